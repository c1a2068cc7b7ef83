"""Putting a cut-out product on a canvas without changing it.

Where its matte is full, a placed product is the plain Lanczos resize of its photo and nothing else; only
the soft edge gets colours that were freed from the old backdrop.
"""

import numpy as np
from PIL import Image

from ..contract.ad import TextPosition
from ..contract.document import Box
from .picture import Picture, blur, floats, from_image, on_canvas, to_bytes
from .placement import is_banner, safe_area

_MAX_UPSCALE = 4.0


def product_box(source: tuple[int, int], canvas: tuple[int, int], *, floor_y: float, side: TextPosition | None) -> Box:
    """Where a product stands: on the floor, as large as leaves room for the words.

    Args:
        source: (width, height) of its tight box in the photo.
        canvas: (width, height).
        floor_y: height of the floor line as a share of the canvas.
        side: where words will stand, or None without any.

    Returns:
        Its box on the canvas. On a wide canvas with words it stands to the right of them.
    """
    width, height = canvas
    beside = side is not None and is_banner(canvas)
    base = min(0.93, max(floor_y + 0.12, 0.90 if beside else 0.86))
    above = 0.14 if side is None else 0.08 if beside else 0.28
    if side is TextPosition.BOTTOM and not beside:
        _, safe_top, _, safe_height = safe_area(canvas)
        base, above = (safe_top + safe_height) / height - 0.21, 0.08
    elif side is TextPosition.CENTER and not beside:
        base, above = 0.92, 0.46
    max_height = base - above
    max_width = 0.42 if beside else 0.74
    scale = min(max_height * height / source[1], max_width * width / source[0], _MAX_UPSCALE)
    placed = (max(8, round(source[0] * scale)), max(8, round(source[1] * scale)))
    centre = subject_x(canvas, side)
    return round(centre * width - placed[0] / 2), round(base * height) - placed[1], placed[0], placed[1]


def subject_x(canvas: tuple[int, int], side: TextPosition | None) -> float:
    """Where the product's middle stands, as a share of the width; see `product_box`."""
    return 0.73 if side is not None and is_banner(canvas) else 0.5


def resized_crop(original: Image.Image, source_box: Box, size: tuple[int, int]) -> Picture:
    """The part `source_box` of `original` at `size` (width, height), by Pillow's Lanczos filter: RGB."""
    x, y, width, height = source_box
    return from_image(original.convert("RGB").resize(size, Image.Resampling.LANCZOS, box=(x, y, x + width, y + height)))


def place_product(
    original: Image.Image, cut: Picture, *, source_box: Box, placed_box: Box, canvas: tuple[int, int]
) -> Picture:
    """The product on an empty canvas.

    Args:
        original: the decoded photo, RGB or RGBA.
        cut: RGBA of the photo, maybe smaller than `original` but of the same shape.
        source_box: the product in `original`.
        placed_box: where it goes.
        canvas: (width, height).

    Returns:
        uint8 (H, W, 4). Where alpha is 255 the colours equal `resized_crop`.
    """
    scale_x, scale_y = cut.shape[1] / original.width, cut.shape[0] / original.height
    x, y, width, height = source_box
    region = (x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y)
    size = (placed_box[2], placed_box[3])
    # Pillow premultiplies RGBA while it resizes, so colours of empty pixels do not bleed into the edge.
    layer = from_image(Image.fromarray(cut).resize(size, Image.Resampling.LANCZOS, box=region))
    alpha = layer[..., 3:]
    layer[..., :3] = np.where(alpha == 255, resized_crop(original, source_box, size), layer[..., :3])
    layer[layer[..., 3] < 3] = 0
    return on_canvas(layer, (placed_box[0], placed_box[1]), canvas)


def product_reflection(cutout: Picture, *, product: Box, gloss: float) -> Picture:
    """What a glossy floor mirrors of a product, to lie under it: softer and fainter the further down.

    Args:
        cutout: RGBA (H, W, 4), the placed product.
        product: its box on the canvas; it stands on the box's lower edge.
        gloss: 0-1, how much the floor mirrors where the product touches it.

    Returns:
        uint8 (H, W, 4), straight alpha; empty where `gloss` is 0.
    """
    height, width = cutout.shape[:2]
    result = np.zeros_like(cutout)
    left, right = max(0, product[0] - product[2] // 8), min(width, product[0] + product[2] + product[2] // 8)
    base, reach = min(height, product[1] + product[3]), 0.55 * product[3]
    rows = min(height - base, base, round(reach))
    if gloss <= 0 or rows < 2 or left >= right:
        return result
    mirrored = floats(cutout[base - rows : base, left:right][::-1]) / np.float32(255)
    mirrored[..., :3] *= mirrored[..., 3:]
    away = np.linspace(0, rows / reach, rows, dtype=np.float32)[:, None, None]
    soft = np.clip(away * 3, 0, 1)
    mirrored = blur(mirrored, 0.003 * product[3]) * (1 - soft) + blur(mirrored, 0.012 * product[3]) * soft
    alpha = mirrored[..., 3:]
    result[base : base + rows, left:right, :3] = to_bytes(mirrored[..., :3] / np.maximum(alpha, 1e-3))
    faded = np.clip(alpha, 0, 1) * gloss * np.maximum(0, 1 - away) ** 1.6
    result[base : base + rows, left:right, 3] = to_bytes(faded[..., 0])
    result[result[..., 3] == 0] = 0
    return result


def merged(under: Picture, over: Picture) -> Picture:
    """RGBA `over` on top of RGBA `under`, as one RGBA layer with straight alpha."""
    top, below = floats(over[..., 3:]) / 255, floats(under[..., 3:]) / 255
    below = below * (1 - top)
    alpha = top + below
    result = np.zeros_like(under)
    colour = (floats(over[..., :3]) * top + floats(under[..., :3]) * below) / np.maximum(alpha, 1e-3)
    result[..., :3] = np.clip(colour + 0.5, 0, 255)
    result[..., 3:] = to_bytes(alpha)
    result[result[..., 3] == 0] = 0
    return result
