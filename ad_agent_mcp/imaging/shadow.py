"""The shadow that makes a product stand on its floor: one cast along it, one of contact under it."""

import cv2
import numpy as np

from ..contract.document import Box
from .picture import Matte, Picture, blur, floats, resize, tinted

_COLOUR = (22, 17, 15)
_SQUASH = 0.24


def product_shadow(matte: Matte, *, product: Box, light_x: float, light_z: float = 1.0, cast: float = 1.0) -> Picture:
    """The shadow of a product, to lie under it.

    Args:
        matte: float32 (H, W), the placed product's coverage.
        product: its box on the canvas; it stands on the box's lower edge.
        light_x: where the light comes from, -1 (left) to 1 (right); the shadow falls to the other side.
        light_z: 1 with the light before the product, whose shadow then falls behind it; -1 with the light behind it.
        cast: 0-1, strength of the shadow along the floor.

    Returns:
        uint8 (H, W, 4), nearly black with straight alpha; cut at the border.
    """
    height, width = matte.shape
    _, top, box_width, box_height = product
    base = min(height, top + box_height)
    # Nothing here is sharper than a few pixels, so half the resolution is enough.
    half = (max(1, width // 2), max(1, height // 2))
    small = resize(matte, half)
    scale_y = half[1] / height
    squash = _SQUASH if light_z >= 0 else -_SQUASH
    foot, reach = base * scale_y, max(1.0, _SQUASH * box_height * scale_y)
    lean = light_x * 0.8
    warp = np.array([[1, lean, -lean * foot], [0, squash, foot * (1 - squash)]], np.float32)
    fallen = floats(cv2.warpAffine(small, warp, half, flags=cv2.INTER_LINEAR))
    away = np.clip(np.abs(foot - np.arange(half[1], dtype=np.float32)) / reach, 0, 1)[:, None]
    near, far = blur(fallen, 0.012 * half[0]), blur(fallen, 0.035 * half[0])
    fallen = (near * (1 - away) + far * away) * (1 - 0.35 * away)

    contact = np.zeros_like(small)
    sole_from = max(0, round(foot - 0.012 * box_height * scale_y) - 1)
    foot_row = max(sole_from + 1, round(foot))
    touching = small[sole_from:foot_row].max(axis=0)
    thick = max(2, round(0.014 * box_height * scale_y))
    contact[max(0, foot_row - thick) : foot_row + thick // 4] = touching
    span = max(4.0, 0.55 * half[0] * box_width / width + 0.2 * half[0])
    contact = blur(contact, 0.009 * span) * 0.8 + blur(contact, 0.04 * span) * 1.6
    density = np.clip(0.42 * cast * fallen + 0.72 * np.clip(contact, 0, 1), 0, 0.85)
    return tinted(np.clip(resize(floats(density), (width, height)), 0, 1), _COLOUR)
