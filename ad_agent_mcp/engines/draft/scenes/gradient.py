"""A plain gradient: neighbouring tones, a soft light behind the product, and nothing else."""

import numpy as np

from ....imaging.picture import Floats, floats, resize
from ..palette import mixed, turned
from .setting import Setting, ramp


def paint_gradient(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty gradient. RGB float (H, W, 3)."""
    width, height = setting.size
    x = np.linspace(0, 1, max(2, width // 2), dtype=np.float32)[None, :]
    y = np.linspace(0, 1, max(2, height // 2), dtype=np.float32)[:, None]
    tilt = float(rng.uniform(0.15, 0.35))
    toward = x if setting.light_x < 0 else 1 - x
    down = np.clip(y * (1 - tilt) + toward * tilt, 0, 1)
    down = down * down * (3 - 2 * down)
    palette = setting.palette
    # Towards the shade the hue turns a little: one hue alone looks like a badly lit wall.
    near_hue = turned(palette.shade, lightness=62, chroma=42, degrees=float(rng.choice([-32, 32])))
    image = ramp(
        floats(down), [palette.wall, mixed(palette.wall, palette.shade, 0.7), mixed(palette.shade, near_hue, 0.42)]
    )
    near = (x - setting.subject_x) ** 2 * (width / height) ** 2 + (y - setting.foot_y + 0.30) ** 2
    glow = np.exp(-near / 0.11)[..., None]
    ground = np.exp(-(((x - setting.subject_x) / 0.5) ** 2) - ((y - setting.foot_y - 0.06) / 0.10) ** 2)[..., None]
    image = image + (1 - image) * (0.26 * glow + 0.14 * ground)
    return resize(floats(image), setting.size)
