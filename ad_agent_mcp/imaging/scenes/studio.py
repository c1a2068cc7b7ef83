"""A photo studio: a seamless wall that rolls into the floor, a key light, soft window light, vignette and grain."""

import cv2
import numpy as np

from ..picture import Floats, Picture, blur, floats, resize, to_bytes
from .palette import Palette

_ROLL = 0.035
_VIGNETTE = 0.12
_GRAIN = 0.009


def paint_studio(
    size: tuple[int, int],
    palette: Palette,
    rng: np.random.Generator,
    *,
    light_x: float,
    subject_x: float,
    floor_y: float,
) -> Picture:
    """An empty studio.

    Args:
        size: (width, height).
        palette: its colours.
        rng: decides the window light and the grain; the only source of chance.
        light_x: where the key light comes from, -1 (left) to 1 (right).
        floor_y: where the floor begins, as a share of the height.
        subject_x: where the product will stand, as a share of the width; a pool of light waits there.

    Returns:
        RGB (H, W, 3).
    """
    width, height = size
    y = (np.arange(height, dtype=np.float32) / height)[:, None]
    x = (np.arange(width, dtype=np.float32) / width)[None, :]
    is_dark = float(palette.wall.mean()) < 0.35
    roll = 1 / (1 + np.exp(-(y - floor_y) / _ROLL))
    up = np.clip(y / floor_y, 0, 1) ** 1.6 * 0.55
    wall = palette.wall * (1 - up) + palette.shade * up
    far = np.clip((y - floor_y) / (1 - floor_y), 0, 1)
    floor = palette.shade * 0.97 * (1 - far) + np.minimum(palette.wall * 1.03, 1) * far
    column = wall * (1 - roll) + floor * roll

    key = np.exp(-(((x - 0.5 - 0.22 * light_x) / 0.55) ** 2) - ((y - 0.25) / 0.5) ** 2)
    pool = np.exp(-(((x - subject_x) / 0.34) ** 2) - ((y - 0.52) / 0.36) ** 2)
    light = 0.90 + 0.17 * key + (0.40 if is_dark else 0.08) * pool
    light -= (0.05 if is_dark else 0.09) * _window(size, rng, light_x) * (1 - 0.55 * roll)
    light *= 1 - _VIGNETTE * np.clip(((x - 0.5) ** 2 + (y - 0.5) ** 2) * 2, 0, 1)
    # Shade deepens the wall's own hue; a plain multiplication would turn it grey.
    depth = 1 + 0.6 * (palette.shade.max() - palette.shade) / max(1e-3, float(palette.shade.max()))
    image = column[:, None, :] * light[..., None] ** floats(depth)
    return to_bytes(with_grain(floats(image), rng, _GRAIN))


def with_grain(image: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """`image` (values in [0, 1]) with film grain; it also keeps smooth gradients from banding."""
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32)
    return floats(image + strength * 1.6 * blur(noise, 0.6)[..., None])


def _window(size: tuple[int, int], rng: np.random.Generator, light_x: float) -> Floats:
    """Shade between the panes of a window whose light falls across the wall, in [0, 1]."""
    half = (max(2, size[0] // 4), max(2, size[1] // 4))
    panes = np.zeros((400, 300), np.float32)
    for column in range(2):
        for row in range(3):
            panes[row * 133 + 9 : row * 133 + 124, column * 150 + 9 : column * 150 + 141] = 1
    drift = float(rng.uniform(-0.06, 0.06))
    corners = np.array(
        [[0.10 + drift, -0.05], [0.60 + drift, 0.06], [0.92 + drift, 0.84], [0.40 + drift, 0.66]], np.float32
    )
    if light_x > 0:
        corners[:, 0] = 1 - corners[:, 0]
    corners *= np.array(half, np.float32)
    source = np.array([[0, 0], [300, 0], [300, 400], [0, 400]], np.float32)
    lit = cv2.warpPerspective(panes, cv2.getPerspectiveTransform(source, corners), half)
    return resize(floats(1 - blur(floats(lit), 0.02 * half[0] + 1)), size)
