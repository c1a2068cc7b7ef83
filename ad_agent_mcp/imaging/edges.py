"""The edge map that steers a diffusion model towards the letters' outlines."""

import cv2
import numpy as np

from .picture import Matte, Picture, to_bytes

_LOW, _HIGH = 100, 200


def canny_map(mask: Matte, size: tuple[int, int]) -> Picture:
    """Canny edges of a flat glyph `mask`, white on black.

    Args:
        mask: float32 (H, W), coverage of the letters.
        size: (width, height) of the result; the mask is scaled to it.

    Returns:
        uint8 (height, width, 3), each pixel 0 or 255.

    Source: Canny 1986, with the thresholds that ControlNet's Canny models were trained with.
    """
    shrinks = size[0] * size[1] < mask.size
    flat = to_bytes(cv2.resize(mask, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
    return np.repeat(np.asarray(cv2.Canny(flat, _LOW, _HIGH), dtype=np.uint8)[..., None], 3, axis=2)
