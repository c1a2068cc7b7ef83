"""The shadow that makes a product stand on its floor: one cast along it, one of contact under it."""

import cv2
import numpy as np

from ..contract.layout import Box
from .picture import Matte, Picture, blur, floats, resize, tinted

_COLOUR = (22, 17, 15)
_SQUASH = 0.20


def product_shadow(matte: Matte, *, product: Box, light_x: float, opacity: float = 1.0) -> Picture:
    """The shadow of a product, to lie under it.

    Args:
        matte: float32 (H, W), the placed product's coverage.
        product: its box on the canvas; it stands on the box's lower edge.
        light_x: where the light comes from, -1 (left) to 1 (right); the shadow falls to the other side.
        opacity: 0-1, strength of both parts.

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
    foot, reach = base * scale_y, max(1.0, _SQUASH * box_height * scale_y)
    lean = light_x * 0.9
    warp = np.array([[1, lean, -lean * foot], [0, _SQUASH, foot * (1 - _SQUASH)]], np.float32)
    cast = floats(cv2.warpAffine(small, warp, half, flags=cv2.INTER_LINEAR))
    away = np.clip((foot - np.arange(half[1], dtype=np.float32)) / reach, 0, 1)[:, None]
    near, far = blur(cast, 0.012 * half[0]), blur(cast, 0.035 * half[0])
    cast = (near * (1 - away) + far * away) * (1 - 0.35 * away)

    contact = np.zeros_like(small)
    sole_from = max(0, round(foot - 0.012 * box_height * scale_y) - 1)
    foot_row = max(sole_from + 1, round(foot))
    touching = small[sole_from:foot_row].max(axis=0)
    thick = max(2, round(0.014 * box_height * scale_y))
    contact[max(0, foot_row - thick) : foot_row + thick // 4] = touching
    span = max(4.0, 0.55 * half[0] * box_width / width + 0.2 * half[0])
    contact = blur(contact, 0.009 * span) * 0.8 + blur(contact, 0.035 * span) * 1.1
    density = np.clip(0.32 * cast + 0.62 * np.clip(contact, 0, 1), 0, 0.85) * opacity
    return tinted(np.clip(resize(floats(density), (width, height)), 0, 1), _COLOUR)
