"""Cutting a product out of its photo without a model: real alpha, a plain backdrop, or (at a guess) clutter.

A plain backdrop is modelled as a smooth quadratic in Lab; what differs from it is the product, and because
the backdrop is known under the edge as well, the matte there is solved for instead of guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..contract.errors import invalid
from ..contract.layout import Box
from .backdrop import fit_backdrop, product_mask
from .clutter import salient_mask
from .matting import own_colours, solve_matte
from .picture import Flags, Floats, Matte, Picture, box_of, dilate, erode, floats, resize, to_bytes
from .regions import lab_of

Route = Literal["alpha", "plain", "clutter", "model"]

MASK_SIDE_PX = 768
MATTE_SIDE_PX = 1280
"""The matte is found at this size at most; a product is rarely placed larger."""
_ALPHA_FLOOR = 4
_SURE = 0.02
"""A model's probability this near to 0 or 1 is taken for it."""
_LEAST_SHARE = 0.002
_BOX_MARGIN = 0.06


@dataclass(frozen=True)
class CutOut:
    """A product cut from a picture.

    Attributes:
        rgba: uint8 (H, W, 4), straight alpha, same size as the picture that was cut. Where alpha is 255
            the colours are the picture's own.
        box: tight box of alpha > 0.
        confidence: 0-1; below 0.5 the cut is surely bad.
        route: how it was found.
    """

    rgba: Picture
    box: Box
    confidence: float
    route: Route


def cut_out(photo: Picture, *, product_box: Box | None = None) -> CutOut:
    """Cut the product out of `photo`.

    Args:
        photo: RGB, or RGBA whose alpha is then taken as it is.
        product_box: where the product is, in pixels of `photo`; nothing outside it is kept.

    Raises:
        AdAgentError: `invalid_request`; the box misses the picture, or the picture is empty.
    """
    if photo.shape[2] == 4:
        return _by_alpha(photo, product_box)
    window = _window(product_box, photo.shape[1], photo.shape[0])
    rgb, matte, confidence, route = _cut(_part(photo, window))
    return _freed(photo, window, rgb, matte, confidence, route)


def from_model(photo: Picture, segment: Callable[[Picture], Matte], *, product_box: Box | None = None) -> CutOut:
    """Cut the product out of an RGB `photo` by what a model takes for its subject.

    Args:
        photo: RGB.
        segment: gives the matte of an RGB picture, of its size.
        product_box: where the product is, in pixels of `photo`; the model sees nothing outside it.

    Returns:
        What `cut_out` gives, of another route, where the model finds nothing.

    Raises:
        AdAgentError: `invalid_request`; the box misses the picture.
    """
    window = _window(product_box, photo.shape[1], photo.shape[0])
    part = _part(photo, window)
    matte = np.clip((segment(part) - _SURE) / (1 - 2 * _SURE), 0, 1)
    inside = int((matte > 0.5).sum())
    if inside < _LEAST_SHARE * matte.size:
        return cut_out(photo, product_box=product_box)
    unsure = int(((matte > 0.1) & (matte < 0.9)).sum())
    confidence = max(0.0, 1 - unsure / inside)
    return _freed(photo, window, own_colours(part, floats(matte)), floats(matte), confidence, "model")


def _part(photo: Picture, window: tuple[int, int, int, int]) -> Picture:
    left, top, right, bottom = window
    return np.ascontiguousarray(photo[top:bottom, left:right])


def _freed(
    photo: Picture, window: tuple[int, int, int, int], rgb: Picture, matte: Matte, confidence: float, route: Route
) -> CutOut:
    left, top, right, bottom = window
    rgba = np.zeros((*photo.shape[:2], 4), np.uint8)
    alpha = to_bytes(matte)
    alpha[alpha < _ALPHA_FLOOR] = 0
    rgba[top:bottom, left:right, :3] = np.where((alpha == 255)[..., None], photo[top:bottom, left:right], rgb)
    rgba[top:bottom, left:right, 3] = alpha
    box = box_of(rgba[..., 3] > 0) or (left, top, right - left, bottom - top)
    return CutOut(rgba, box, confidence, route)


def _by_alpha(photo: Picture, product_box: Box | None) -> CutOut:
    rgba = photo.copy()
    if product_box is not None:
        left, top, right, bottom = _window(product_box, photo.shape[1], photo.shape[0])
        kept = np.zeros(photo.shape[:2], np.bool_)
        kept[top:bottom, left:right] = True
        rgba[~kept, 3] = 0
    rgba[rgba[..., 3] < _ALPHA_FLOOR, 3] = 0
    box = box_of(rgba[..., 3] > 0)
    if box is None:
        raise invalid("The product picture is transparent all over. Send one that shows it.", field="product_image")
    return CutOut(rgba, box, 1.0, "alpha")


def _window(product_box: Box | None, width: int, height: int) -> tuple[int, int, int, int]:
    if product_box is None:
        return 0, 0, width, height
    x, y, box_width, box_height = product_box
    margin = round(_BOX_MARGIN * max(box_width, box_height))
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + box_width + margin), min(height, y + box_height + margin)
    if right - left < 16 or bottom - top < 16:
        raise invalid(
            f"product_box {list(product_box)} covers too little of the picture ({width} x {height} pixels). "
            "Correct it or leave it out.",
            field="product_box",
        )
    return left, top, right, bottom


def _cut(photo: Picture) -> tuple[Picture, Matte, float, Route]:
    height, width = photo.shape[:2]
    work = _at_most(photo, MASK_SIDE_PX)
    lab = lab_of(cv2.GaussianBlur(work, (3, 3), 0))
    backdrop = fit_backdrop(lab)
    route: Route = "clutter"
    mask = np.zeros(work.shape[:2], np.bool_)
    if backdrop.is_plain:
        mask = product_mask(work, backdrop)
        route = "plain" if 0.005 < mask.mean() < 0.97 else "clutter"
    if route == "clutter":
        mask = salient_mask(work)
        if not 0.005 < mask.mean() < 0.97:
            return photo, np.ones((height, width), np.float32), 0.0, route
    confidence = _edge_share(work, mask)
    work = _at_most(photo, MATTE_SIDE_PX)
    mask = resize(floats(mask), (work.shape[1], work.shape[0])) > 0.5
    picture, matte = solve_matte(work, mask)
    if work.shape != photo.shape:
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        matte = resize(matte, (width, height))
        matte[matte > 0.99] = 1
    return picture, matte, confidence, route


def _at_most(photo: Picture, side_px: int) -> Picture:
    height, width = photo.shape[:2]
    scale = min(1.0, side_px / max(height, width))
    if scale == 1:
        return photo
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _edge_share(work: Picture, mask: Flags) -> float:
    """Share of the contour with a real colour step across it."""
    radius = max(2, int(0.006 * max(mask.shape)))
    small, large = erode(mask, 1), dilate(mask, 1)
    edge = large & ~small
    edge[:3] = edge[-3:] = False
    edge[:, :3] = edge[:, -3:] = False
    if not edge.any():
        return 0.0
    lab, window = lab_of(work), (4 * radius + 1, 4 * radius + 1)
    sides: list[Floats] = []
    for part in (floats(small), floats(~large)):
        weight = floats(cv2.blur(part, window)) + 1e-4
        sides.append(floats(floats(cv2.blur(lab * part[..., None], window)) / weight[..., None]))
    return float((np.linalg.norm(sides[0] - sides[1], axis=2)[edge] > 8).mean())
