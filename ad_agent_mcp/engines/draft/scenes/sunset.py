"""Open water under a low sun or, by day, a pale sky; the product stands on a stone in it."""

import cv2
import numpy as np

from ....imaging.picture import Floats, floats, resize
from ..palette import mixed, rgb_of, turned
from .setting import Setting, axes, joined, noise, podium, ramp, vignetted

_DUSK = ("#46507f", "#8a6590", "#d8827f", "#f6ab74", "#ffd9a0")
_DAY = ("#5fa6d8", "#86c1e6", "#b1dbef", "#d6edf4", "#f3f7f2")
_ABOVE_FLOOR = 0.13


def paint_sunset(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty sea; the prop `day` raises the sun, a colour word tints the sky. RGB float (H, W, 3)."""
    width, height = setting.size
    palette, is_day = setting.palette, "day" in setting.props
    stops = [floats(rgb_of(code)) for code in (_DAY if is_day else _DUSK)]
    if palette.words:
        tones = ((44, 34), (56, 40), (68, 44), (79, 42), (90, 26))
        tinted = [turned(palette.accent, lightness=light, chroma=chroma) for light, chroma in tones]
        stops = [mixed(stop, tint, 0.6) for stop, tint in zip(stops, tinted, strict=True)]
    row = max(2, round((setting.floor_y - _ABOVE_FLOOR) * height))
    clear = max(0.27, 0.5 * setting.subject[2] / width + 0.09)
    sun = (
        float(np.clip(setting.subject_x + clear * setting.light_x, 0.08, 0.92)),
        row / height - (0.30 if is_day else 0.055),
    )
    warm = floats([1.0, 0.97, 0.90]) if is_day else mixed(floats([1.0, 0.80, 0.48]), stops[4], 0.3)
    sky = _sky(setting, rng, stops, sun, row, warm)
    water = _water(setting, rng, stops, sun[0], height - row, warm)
    image = joined(sky, water, softness_px=max(1.0, 0.0022 * height))
    stone = mixed(floats([0.95, 0.92, 0.88] if is_day else [0.86, 0.70, 0.66]), stops[2], 0.25)
    return vignetted(podium(image, setting, stone, rng, rim=0.3), 0.16)


def _sky(
    setting: Setting, rng: np.random.Generator, stops: list[Floats], sun: tuple[float, float], row: int, warm: Floats
) -> Floats:
    # All of it is soft, so half the resolution is enough.
    full, (width, height) = (setting.size[0], row), (max(2, size // 2) for size in setting.size)
    row = max(2, row // 2)
    x, y = axes((width, row))
    down = y**1.15
    y = y * (row / height)
    sky = ramp(floats(np.broadcast_to(down, (row, width))), stops)
    bands = noise((width, row), (2.2, 11), rng, octaves=5, gain=0.55)
    drift = noise((width, row), (1.5, 3), rng, octaves=2)
    cloud = np.clip((bands - 0.5) * 3.4 + (drift - 0.5) * 1.6, 0, 1) * np.exp(-(((down - 0.66) / 0.30) ** 2))
    distance = np.hypot((x - sun[0]) * width, (y - sun[1]) * height) / np.sqrt(width * height)
    lit = mixed(stops[2], floats([1.0, 0.93, 0.86]), 0.45) * np.exp(-distance * 1.2)[..., None] + stops[1] * 0.25
    sky = sky + (lit - sky) * (0.55 * cloud)[..., None]
    glow = 0.42 * np.exp(-distance / 0.11) + 0.26 * np.exp(-((distance / 0.36) ** 2))
    sky = sky + (1 - sky) * warm * glow[..., None]
    if "day" not in setting.props:
        disc = np.clip((0.034 - distance) * np.sqrt(width * height) / 1.6 + 0.5, 0, 1)[..., None]
        sky = sky * (1 - disc) + floats([1.5, 1.35, 1.02]) * disc
    return resize(floats(sky), full)


def _water(
    setting: Setting, rng: np.random.Generator, stops: list[Floats], sun_x: float, rows: int, warm: Floats
) -> Floats:
    """The sky seen in waves, row by row towards the camera: each wave tilts its piece of the mirror."""
    width, is_day = setting.size[0], "day" in setting.props
    x, down = axes((width, rows))
    away = 1 / (down + 0.012)
    tilt = np.zeros((rows, width), np.float32)
    aspect = width / (rows / 0.43)
    for scale, strength in ((1.0, 0.50), (2.7, 0.32), (6.9, 0.22)):
        waves = noise((1024, 1024), (64, 96), rng, octaves=2, gain=0.5) - 0.5
        at_x = floats(((x - 0.5) * away * 130 * scale * aspect + 700) % 2046)
        at_y = floats(np.broadcast_to((away * 120 * scale) % 2046, at_x.shape))
        # Waves of less than two pixels average out.
        fade = np.clip(rows * down**2 * 0.10 / scale, 0, 1)
        tilt += strength * fade * floats(cv2.remap(waves, _mirrored(at_x), _mirrored(at_y), cv2.INTER_LINEAR))
    seen = 1 - 0.72 * down + tilt * (0.35 + 0.9 * down)
    water = ramp(floats(np.clip(seen, 0, 1)), stops)
    deep = floats([0.10, 0.45, 0.58]) if is_day else mixed(floats(stops[0] * 0.55), floats([0.10, 0.10, 0.22]), 0.4)
    mirror = np.clip(0.80 - 0.42 * down + 0.55 * tilt, 0.15, 0.95)[..., None]
    water = water * mirror + deep * (1 - mirror)
    column = np.exp(-(((x - sun_x) / (0.035 + 0.13 * down)) ** 2))
    spark = np.clip((tilt - 0.05 - 0.03 * down) * 7, 0, 1) * (0.55 + 0.45 * (1 - down))
    glitter = column * (spark * 0.95 + 0.22 * (1 - down)) * (0.5 if is_day else 1.0)
    return floats(water + (1 - water) * (warm * floats(glitter)[..., None]))


def _mirrored(at: Floats) -> Floats:
    """Coordinates folded into [0, 1023], so that a texture continues as its own mirror image."""
    return floats(1023 - np.abs(at - 1023))
