"""The arrays that pictures are, and the few operations on them that everything here shares.

RGB is `uint8 (H, W, 3)`, RGBA `uint8 (H, W, 4)` with straight alpha, a matte `float32 (H, W)` in [0, 1].
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..contract.document import Box

Picture = NDArray[np.uint8]
Matte = NDArray[np.float32]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Window = tuple[slice, slice]
"""Rows and columns."""

CORE_EROSION_PX = 2


def floats(values: ArrayLike) -> Floats:
    """`values` as float32, without a copy where they are already."""
    return np.asarray(values, dtype=np.float32)


def to_bytes(values: ArrayLike) -> Picture:
    """Values in [0, 1] as 0-255, rounded and clipped."""
    return np.clip(np.asarray(values) * 255 + 0.5, 0, 255).astype(np.uint8)


def coverage(layer: Picture) -> Matte:
    """The alpha of RGBA `layer` as a matte."""
    return floats(layer[..., 3]) / np.float32(255)


def matte_of(layer: Picture | None) -> Matte | None:
    """As `coverage`; None where there is no layer, or nothing in it."""
    return coverage(layer) if layer is not None and layer[..., 3].any() else None


def from_image(image: Image.Image) -> Picture:
    """A Pillow RGB or RGBA image as an array of its own."""
    return np.array(image, dtype=np.uint8)


def blur(values: Floats | Picture, sigma_px: float) -> Floats:
    """Gaussian blur. Borders repeat."""
    if sigma_px < 6:
        return floats(cv2.GaussianBlur(floats(values), (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))
    # A wide blur holds no detail that half the resolution would lose, and costs a fraction there.
    height, width = values.shape[:2]
    scale = min(1.0, max(3.0 / sigma_px, 8 / min(height, width)))
    small = resize(floats(values), (max(1, round(width * scale)), max(1, round(height * scale))))
    soft = cv2.GaussianBlur(small, (0, 0), sigma_px * scale, borderType=cv2.BORDER_REPLICATE)
    return resize(floats(soft), (width, height))


def resize(values: Floats, size: tuple[int, int]) -> Floats:
    """Resize to `size` (width, height): area average downwards, bilinear upwards."""
    shrinks = size[0] < values.shape[1]
    return floats(cv2.resize(values, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def at_most(picture: Picture, side_px: int) -> Picture:
    """`picture` made smaller where its longer side has more than `side_px`."""
    height, width = picture.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def disc(radius_px: int) -> Picture:
    """A round structuring element."""
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def dilate(flags: Flags, radius_px: int) -> Flags:
    """`flags` grown by `radius_px`."""
    return np.asarray(cv2.dilate(flags.astype(np.uint8), disc(radius_px))) > 0


def erode(flags: Flags, radius_px: int) -> Flags:
    """`flags` shrunk by `radius_px`; the picture's border does not eat into them."""
    return np.asarray(cv2.erode(flags.astype(np.uint8), disc(radius_px))) > 0


def box_of(flags: Flags) -> Box | None:
    """The tight box of what is set, or None."""
    rows = np.flatnonzero(flags.any(axis=1))
    columns = np.flatnonzero(flags.any(axis=0))
    if rows.size == 0:
        return None
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def alpha_over(image: Picture, *layers: Picture) -> Picture:
    """RGBA `layers`, the last one on top, over RGB `image` of the same size; exact where an alpha is 0 or 255."""
    result = image.copy()
    for layer in layers:
        window = window_round(layer, 0)
        over = layer[window]
        alpha = np.repeat(over[..., 3:], 3, axis=2).astype(np.uint16)
        mixed = result[window] * (255 - alpha)
        mixed += over[..., :3] * alpha
        mixed += 128
        mixed += mixed >> 8  # with the next shift a rounded division by 255
        result[window] = mixed >> 8
    return result


def mix(one: Picture, other: Picture, share: Matte) -> Picture:
    """RGB `one` with `share` (H, W) of `other` in it; exact where the share is 0 or 1."""
    mixed = floats(one) * (1 - share[..., None]) + floats(other) * share[..., None]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def window_round(layer: Picture, reach_px: int) -> Window:
    """Rows and columns of what RGBA `layer` shows and `reach_px` around it."""
    x, y, width, height = box_of(layer[..., 3] > 0) or (0, 0, 1, 1)
    return slice(max(0, y - reach_px), y + height + reach_px), slice(max(0, x - reach_px), x + width + reach_px)


def tinted(matte: Matte, colour: tuple[int, int, int]) -> Picture:
    """RGBA of one colour with `matte` as its alpha."""
    layer = np.empty((*matte.shape, 4), np.uint8)
    layer[..., :3] = colour
    layer[..., 3] = to_bytes(matte)
    layer[layer[..., 3] == 0] = 0
    return layer


def on_canvas(layer: Picture, at: tuple[int, int], canvas: tuple[int, int]) -> Picture:
    """RGBA `layer` with its top left corner `at` (x, y) of an empty `canvas` (width, height), cut at its border."""
    x, y = at
    height, width = layer.shape[:2]
    result = np.zeros((canvas[1], canvas[0], 4), np.uint8)
    left, top, right, bottom = max(0, x), max(0, y), min(canvas[0], x + width), min(canvas[1], y + height)
    if left < right and top < bottom:
        result[top:bottom, left:right] = layer[top - y : bottom - y, left - x : right - x]
    return result


def core_of(alpha: Picture) -> Flags:
    """Where `alpha` (uint8) is 255 and stays so `CORE_EROSION_PX` inwards."""
    return erode(alpha == 255, CORE_EROSION_PX)


def encode_png(picture: Picture) -> bytes:
    """RGB or RGBA as PNG, compressed fast rather than small."""
    swap = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, swap), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()
