"""A city at night far out of focus, and a glossy black floor that mirrors it."""

import numpy as np

from ....imaging.picture import Floats, blur, floats, resize
from ..palette import mixed, turned
from .setting import Setting, axes, joined, lights, mirrored, noise, vignetted


def paint_night(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty floor under the lights of a city; colour words are the lights. RGB float (H, W, 3)."""
    width, height = setting.size
    palette, row = setting.palette, setting.floor_row
    main = turned(palette.accent, lightness=64, chroma=66)
    second = turned(main, lightness=62, chroma=66, degrees=-70)
    if "neon" in setting.props and not palette.words:
        main, second = floats([1.0, 0.22, 0.62]), floats([0.16, 0.72, 1.0])
    elif not palette.words:
        second = floats([0.36, 0.48, 1.0])
    elif float(np.ptp(palette.accent)) < 0.08:
        main, second = floats([0.66, 0.72, 0.82]), floats([0.45, 0.55, 0.85])
    lamps = [main, main, main, second, second, floats([1.0, 0.72, 0.38]), mixed(main, floats([1, 1, 1]), 0.55)]
    x, y = axes(setting.size)
    # Nights are blue unless the prompt says otherwise: a dark yellow would be olive.
    air = mixed(floats([0.24, 0.26, 0.62]), main, 0.4 if palette.words else 0.0)
    dark, dusk = turned(air, lightness=5, chroma=12), turned(air, lightness=15, chroma=26)
    rise = np.clip(y / setting.floor_y, 0, 1)[..., None] ** 2.2
    image = dark * (1 - rise) + dusk * rise + np.zeros((height, width, 1), np.float32)
    far = np.hypot((x - setting.subject_x) * width, (y - setting.floor_y + 0.20) * height) / min(width, height)
    image = image + main * (0.40 * np.exp(-((far / 0.42) ** 2)))[..., None]
    side = setting.subject_x + 0.42 * setting.light_x
    image = image + second * (0.22 * np.exp(-(((x - side) / 0.30) ** 2) - ((y - 0.45) / 0.35) ** 2))[..., None]
    top, bottom = 0.20, setting.floor_y + 0.02
    image = image + 0.8 * lights(setting.size, lamps, rng, count=26, radius=(0.022, 0.058), band=(top, bottom))
    band = (bottom - 0.26, bottom + 0.01)
    image = image + 1.3 * lights(setting.size, lamps, rng, count=44, radius=(0.006, 0.022), band=band)
    city = floats(1 - np.exp(-1.25 * np.maximum(image[:row], 0)))

    rows = height - row
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    soft = blur(mirrored(city, rows), 0.006 * width)
    # A floor that is not quite flat draws what it mirrors out towards the camera.
    coarse = resize(soft, (max(2, width // 12), max(2, rows // 40)))
    drawn = resize(blur(coarse, 0.8), (width, rows))
    streak = noise((width, rows), (30, 5), rng, octaves=3)[..., None]
    floor = (soft * (1 - down) * 0.55 + drawn * (0.30 + 0.22 * streak)) * (0.95 - 0.55 * down) + dark * 0.5
    return vignetted(joined(city, floats(floor), softness_px=0.0025 * height), 0.25)
