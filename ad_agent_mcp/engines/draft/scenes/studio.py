"""A photo studio: a seamless wall that rolls into the floor, a key light, and what falls through a window or leaves."""

import numpy as np

from ....imaging.picture import Floats, floats
from .gobo import leaves, window
from .setting import Setting, axes, in_light, podium, vignetted

_ROLL = 0.035


def paint_studio(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty studio; props `leaf` and `window` shade the wall, `podium` stands on the floor. RGB float (H, W, 3)."""
    palette, floor_y = setting.palette, setting.floor_y
    x, y = axes(setting.size)
    is_dark = float(palette.wall.mean()) < 0.35
    roll = 1 / (1 + np.exp(-(y - floor_y) / _ROLL))
    up = np.clip(y / floor_y, 0, 1) ** 1.6 * 0.55
    wall = palette.wall * (1 - up) + palette.shade * up
    far = np.clip((y - floor_y) / (1 - floor_y), 0, 1)
    floor = palette.shade * 0.97 * (1 - far) + np.minimum(palette.wall * 1.03, 1) * far
    column = wall * (1 - roll) + floor * roll

    key = np.exp(-(((x - 0.5 - 0.22 * setting.light_x) / 0.55) ** 2) - ((y - 0.25) / 0.5) ** 2)
    pool = np.exp(-(((x - setting.subject_x) / 0.34) ** 2) - ((y - 0.52) / 0.36) ** 2)
    light = 0.87 + 0.13 * key + 0.09 * far + (0.40 if is_dark else 0.07) * pool
    if "leaf" in setting.props:
        light -= (0.10 if is_dark else 0.20) * leaves(setting, rng) * (1 - 0.5 * roll)
    elif "window" in setting.props:
        light -= (0.07 if is_dark else 0.13) * window(setting, rng) * (1 - 0.55 * roll)
    image = in_light(floats(column[:, None, :]), vignetted(floats(light)[..., None], 0.10), palette.shade)
    if "podium" in setting.props:
        image = podium(image, setting, floats(np.minimum(palette.wall * 1.02, 1)), rng, rim=0.10)
    return image
