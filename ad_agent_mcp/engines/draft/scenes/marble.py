"""A polished marble counter before a softly lit wall."""

import cv2
import numpy as np

from ....imaging.picture import Floats, blur, floats, resize
from ..palette import mixed
from .gobo import leaves, window
from .setting import Setting, axes, focused, in_light, joined, mirrored, noise, on_floor, vignetted

_NARROWING = 0.50
_METALS = {"gold", "silver", "bronze", "rosegold", "champagne"}


def paint_marble(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty counter; a metal's name colours the veins, any other colour the stone. RGB float (H, W, 3)."""
    width, height = setting.size
    palette, row = setting.palette, setting.floor_row
    stones = [word for word in palette.words if word not in _METALS]
    is_metal = len(stones) < len(palette.words)
    base = floats([0.945, 0.935, 0.925])
    if stones and palette.words[0] == stones[0]:
        # Stone is never as strong as paint.
        grey = floats(np.full(3, palette.wall.mean()))
        pale = palette.wall.mean() > 0.4
        base = mixed(mixed(palette.wall, grey, 0.45), floats([0.95, 0.94, 0.93]), 0.35 if pale else 0.0)
    elif palette.lift < 0:
        base = floats([0.115, 0.115, 0.125])
    is_dark = float(base.mean()) < 0.42
    vein = floats([0.80, 0.62, 0.30]) if is_metal else floats([0.86, 0.84, 0.80] if is_dark else base * 0.46)

    veins = on_floor(_veins(setting, rng), (width, height - row), narrowing=_NARROWING)
    clouds = noise((width, height - row), (4, 3), rng, octaves=4)[..., None] - 0.5
    stone = base * (1 + (0.5 if is_dark else 0.13) * clouds)
    stone = stone + (vein - stone) * (veins * (0.95 if is_metal else 0.62))[..., None]

    x, y = axes((max(2, width // 2), max(2, height // 2)))
    wall = mixed(palette.shade, palette.wall, 0.6)
    if is_dark:
        wall = mixed(floats(base * 1.5), palette.accent if not stones else base, 0.10)
    key = np.exp(-(((x - 0.5 - 0.30 * setting.light_x) / 0.5) ** 2) - ((y - 0.30) / 0.42) ** 2)
    shaded = resize(leaves(setting, rng) if "leaf" in setting.props else window(setting, rng), (x.size, y.size))
    back = np.exp(-(((x - setting.subject_x) / 0.32) ** 2) - ((y - 0.55) / 0.30) ** 2)
    shade = (
        0.92
        + 0.13 * key
        - (0.10 if is_dark else 0.12) * shaded
        + ((0.35 if stones and float(np.ptp(base)) > 0.05 else 1.0) if is_dark else 0.05) * back
    )
    plaster = noise((x.size, y.size), (9, 9), rng, octaves=4) - 0.5
    shade = floats(shade * (1 + 0.035 * plaster))[..., None]
    room = resize(in_light(wall, shade, palette.shade), setting.size)[:row]

    x, down = axes((width, height - row))
    pool = np.exp(-(((x - setting.subject_x - 0.12 * setting.light_x) / 0.55) ** 2) - ((down - 0.45) / 0.8) ** 2)
    stone = stone * (0.86 + 0.16 * pool)[..., None]
    sheen = (0.34 * (1 - down) ** 1.5)[..., None]
    stone = stone * (1 - sheen) + blur(mirrored(room, height - row), 0.02 * width) * sheen
    stone = focused(floats(stone), setting, sigma_px=0.0035 * width)
    return vignetted(joined(room, stone, softness_px=0.003 * height), 0.14)


def _veins(setting: Setting, rng: np.random.Generator) -> Floats:
    """Veins (h, w) in [0, 1]: a few that wander far, many hair-fine ones beside them."""
    width = int(np.clip(1.6 * setting.size[0], 300, 2200))
    height = int(np.clip(1.7 * (setting.size[1] - setting.floor_row), 160, 1500))
    size = (width, height)
    grid_x, grid_y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    coarse = (width // 4, height // 4)
    bend_x, bend_y = (resize(noise(coarse, (7, 5), rng, octaves=4, gain=0.55) - 0.5, size) for _ in range(2))
    spread = 0.10 * width
    warped_x, warped_y = grid_x + spread * bend_x + 0.45 * grid_y, grid_y + spread * bend_y
    result = np.zeros((height, width), np.float32)
    for cells, thin, strength in (((3, 2), 0.010, 1.0), ((6, 4), 0.007, 0.6), ((11, 7), 0.008, 0.35)):
        field = noise(size, cells, rng, octaves=3, gain=0.45)
        field = floats(cv2.remap(field, warped_x, warped_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
        off = np.abs(field - 0.5)
        presence = resize(np.clip(noise(coarse, (5, 4), rng, octaves=2) * 2.6 - 0.85, 0, 1), size)
        line = np.exp(-off / thin) + 0.22 * np.exp(-off / (5 * thin))
        result += strength * presence * line
    return floats(np.clip(result, 0, 1))
