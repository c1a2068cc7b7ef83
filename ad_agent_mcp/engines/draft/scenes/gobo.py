"""Shade that a wall gets when the light passes a window or leaves before it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ....imaging.picture import Floats, Picture, blur, floats, resize
from .setting import Setting


def window(setting: Setting, rng: np.random.Generator) -> Floats:
    """Shade between the panes of a window whose light falls across the wall, in [0, 1]."""
    width, height = setting.size
    small = (max(2, width // 4), max(2, height // 4))
    panes = np.zeros((400, 300), np.float32)
    for column in range(2):
        for row in range(3):
            panes[row * 133 + 9 : row * 133 + 124, column * 150 + 9 : column * 150 + 141] = 1
    drift = float(rng.uniform(-0.06, 0.06))
    corners = np.array(
        [[0.10 + drift, -0.05], [0.60 + drift, 0.06], [0.92 + drift, 0.84], [0.40 + drift, 0.66]], np.float32
    )
    if setting.light_x > 0:
        corners[:, 0] = 1 - corners[:, 0]
    corners *= np.array(small, np.float32)
    source = np.array([[0, 0], [300, 0], [300, 400], [0, 400]], np.float32)
    lit = cv2.warpPerspective(panes, cv2.getPerspectiveTransform(source, corners), small)
    return resize(floats(1 - blur(floats(lit), 0.014 * min(small) + 1)), setting.size)


def leaves(setting: Setting, rng: np.random.Generator) -> Floats:
    """Shade of palm fronds that hang in from the light's side, softer the further they reach, in [0, 1]."""
    width, height = max(8, setting.size[0] // 2), max(8, setting.size[1] // 2)
    reach, sheet = float(np.sqrt(width * height)), np.zeros((height, width), np.uint8)
    for turn, root in ((-0.25, 0.30), (0.30, 0.10), (0.85, -0.10), (1.45, -0.04)):
        length = float(rng.uniform(0.56, 0.74)) * reach
        start = np.array([-0.10 * reach, root * height + rng.uniform(-0.04, 0.04) * height])
        along = np.linspace(0, 1, 40)
        angles = turn + float(rng.uniform(-0.12, 0.12)) + float(rng.uniform(0.25, 0.6)) * along**1.5
        spine = start + np.cumsum(np.stack([np.cos(angles), np.sin(angles)], axis=1) * length / 40, axis=0)
        _fill(sheet, np.concatenate([spine + 0.004 * reach, (spine - 0.002 * reach)[::-1]]))
        for i in range(6, 40, 2):
            leaflet = length * 0.40 * float(np.sin(np.pi * (i + 4) / 46)) ** 0.6
            for side in (-1, 1):
                angle = angles[i] + side * (1.05 - 0.55 * along[i]) + float(rng.uniform(-0.06, 0.06))
                ahead, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
                droop = 0.10 * leaflet * np.array([0.0, 1.0])
                tip, belly = spine[i] + leaflet * ahead + droop, spine[i] + 0.42 * leaflet * ahead
                wide = 0.0088 * reach * aside
                _fill(sheet, np.array([spine[i], belly + wide, tip, belly - wide]))
    shade = floats(sheet) / np.float32(255)
    near, far = blur(shade, 0.0045 * reach), blur(shade, 0.013 * reach)
    away = np.clip(np.linspace(0, 1.5, width, dtype=np.float32), 0, 1)
    shade = near * (1 - away) + far * away
    return resize(floats(shade if setting.light_x < 0 else shade[:, ::-1]), setting.size)


def _fill(sheet: Picture, corners: NDArray[np.float64]) -> None:
    cv2.fillPoly(sheet, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
