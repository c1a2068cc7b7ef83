"""Cutting a product out of its photo without a model: real alpha, a plain backdrop, or (at a guess) clutter.

A plain backdrop is modelled as a smooth quadratic in Lab; what differs from it is the product, and because
the backdrop is known under the edge as well, the matte there is solved for instead of guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..contract.document import Box
from ..contract.errors import invalid
from ..contract.texts import say
from .backdrop import fit_backdrop, is_overlooking, product_mask
from .clutter import salient_mask
from .matting import own_colours, solve_matte
from .picture import Flags, Floats, Matte, Picture, Window, at_most, box_of, dilate, erode, floats, resize, to_bytes
from .regions import lab_of, parts
from .transparency import flattened, is_rectangle, is_rounded, settled

Route = Literal["alpha", "plain", "clutter", "model"]

MASK_SIDE_PX = 768
MATTE_SIDE_PX = 1280
"""The matte is found at this size at most; a product is rarely placed larger."""
_ALPHA_FLOOR = 4
_SURE = 0.02
"""A model's probability this near to 0 or 1 is taken for it."""
_LEAST_SHARE = 0.002
_BOX_MARGIN = 0.06
_FINEST_TOLERANCE = 1.2
_REGAINED = 1.3
_DOUBTFUL = 0.5
"""The confidence in a cut that may as well be another thing, such as a whole photo."""


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
        photo: RGB, or RGBA; an alpha that is a matte is taken, without haze and stray pixels.
        product_box: where the product is, in pixels of `photo`; nothing outside it is kept.

    Raises:
        AdAgentError: `invalid_request`; the box misses the picture, or the picture is empty.
    """
    window = _window(product_box, photo.shape[1], photo.shape[0])
    photo = settled(photo)
    if photo.shape[2] == 4:
        return _by_alpha(photo, window)
    return _freed(photo, window, *_cut(np.ascontiguousarray(photo[window])))


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
    part = np.ascontiguousarray(photo[window])
    matte = floats(np.clip((segment(part) - _SURE) / (1 - 2 * _SURE), 0, 1))
    inside = int((matte > 0.5).sum())
    if inside < _LEAST_SHARE * matte.size:
        return cut_out(photo, product_box=product_box)
    unsure = int(((matte > 0.1) & (matte < 0.9)).sum())
    return _freed(photo, window, own_colours(part, matte), matte, max(0.0, 1 - unsure / inside), "model")


def _freed(photo: Picture, window: Window, rgb: Picture, matte: Matte, confidence: float, route: Route) -> CutOut:
    rgba = np.zeros((*photo.shape[:2], 4), np.uint8)
    alpha = to_bytes(matte)
    alpha[alpha < _ALPHA_FLOOR] = 0
    rgba[window] = np.dstack([np.where((alpha == 255)[..., None], photo[window], rgb), alpha])
    rows, columns = window
    box = box_of(rgba[..., 3] > 0) or (columns.start, rows.start, matte.shape[1], matte.shape[0])
    return CutOut(rgba, box, confidence, route)


def _by_alpha(photo: Picture, window: Window) -> CutOut:
    rgba = np.zeros_like(photo)
    rgba[window] = photo[window]
    rgba[rgba[..., 3] < _ALPHA_FLOOR, 3] = 0
    box = box_of(rgba[..., 3] > 0)
    if box is None:
        raise invalid(say("imaging.transparent"), field="product_image")
    x, y, width, height = box
    solid = rgba[..., 3] > 127
    is_whole_photo = min(width, height) >= 16 and (is_rectangle(solid) or is_rounded(solid))
    is_doubtful = is_whole_photo and _shows_product(flattened(rgba, solid)[y : y + height, x : x + width])
    return CutOut(rgba, box, _DOUBTFUL if is_doubtful else 1.0, "alpha")


def _shows_product(picture: Picture) -> bool:
    """Whether a product stands before a plain backdrop in `picture`."""
    work = at_most(picture, MASK_SIDE_PX)
    backdrop = fit_backdrop(lab_of(cv2.GaussianBlur(work, (3, 3), 0)))
    return backdrop.is_plain and _is_a_part(product_mask(work, backdrop))


def _window(product_box: Box | None, width: int, height: int) -> Window:
    if product_box is None:
        return slice(0, height), slice(0, width)
    x, y, box_width, box_height = product_box
    margin = round(_BOX_MARGIN * max(box_width, box_height))
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(width, x + box_width + margin), min(height, y + box_height + margin)
    if right - left < 16 or bottom - top < 16:
        told = say("imaging.small_box", box=str(list(product_box)), width=width, height=height)
        raise invalid(told, field="product_box")
    return slice(top, bottom), slice(left, right)


def _cut(photo: Picture, *, is_inner: bool = False) -> tuple[Picture, Matte, float, Route]:
    height, width = photo.shape[:2]
    work = at_most(photo, MASK_SIDE_PX)
    mask, confidence, route = _find(work)
    if route == "plain" and (frame := _frame(mask)) is not None:
        inner = None if is_inner else _cut_inside(photo, frame, height / mask.shape[0])
        if inner is not None:
            return inner
        confidence = min(confidence, _DOUBTFUL)
    if not _is_a_part(mask):
        return photo, np.ones((height, width), np.float32), 0.0, route
    work = at_most(photo, MATTE_SIDE_PX)
    picture, matte = solve_matte(work, resize(floats(mask), (work.shape[1], work.shape[0])) > 0.5)
    if work.shape != photo.shape:
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        matte = resize(matte, (width, height))
        matte[matte > 0.99] = 1
    return picture, matte, confidence, route


def _find(work: Picture) -> tuple[Flags, float, Route]:
    """The product in `work`, how sure it is, and how it was found."""
    backdrop = fit_backdrop(lab_of(cv2.GaussianBlur(work, (3, 3), 0)))
    mask = product_mask(work, backdrop) if backdrop.is_plain else None
    if mask is None or not _is_a_part(mask):
        mask = salient_mask(work)
        return mask, _edge_share(work, mask), "clutter"
    if not is_overlooking(work, mask):
        return mask, _edge_share(work, mask), "plain"
    # Most of a product can be as pale as its backdrop: the finest difference may show it.
    whole = product_mask(work, backdrop._replace(tolerance=_FINEST_TOLERANCE))
    if _is_a_part(whole) and whole.sum() > _REGAINED * mask.sum() and not is_overlooking(work, whole):
        return whole, _edge_share(work, whole), "plain"
    return mask, min(_DOUBTFUL, _edge_share(work, mask)), "plain"


def _frame(mask: Flags) -> Box | None:
    """The box of a rectangle that spans the picture as a photo between bars or in a frame does."""
    height, width = mask.shape
    labels, statistics = parts(mask, 8)
    largest = labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    box = box_of(largest)
    if box is None or not is_rectangle(largest):
        return None
    across, down = box[2] / width, box[3] / height
    return box if max(across, down) > 0.97 or min(across, down) > 0.8 else None


def _cut_inside(photo: Picture, frame: Box, scale: float) -> tuple[Picture, Matte, float, Route] | None:
    """What is cut out within `frame` (times `scale`, in pixels of `photo`); None where that is all of it again."""
    x, y, width, height = (round(value * scale) for value in frame)
    edge = max(3, round(0.006 * max(photo.shape)))
    window = np.s_[y + edge : y + height - edge, x + edge : x + width - edge]
    if min(photo[window].shape[:2]) < 16:
        return None
    picture, matte = photo.copy(), np.zeros(photo.shape[:2], np.float32)
    picture[window], matte[window], confidence, route = _cut(np.ascontiguousarray(photo[window]), is_inner=True)
    if max(width / photo.shape[1], height / photo.shape[0]) < 0.97:
        # With a margin all round it may be a box that shows a picture, too.
        if route != "plain":
            return None
        confidence = min(confidence, _DOUBTFUL)
    return None if confidence == 0 else (picture, matte, confidence, route)


def _is_a_part(mask: Flags) -> bool:
    """Whether a product may cover so much of a picture."""
    return 0.005 < mask.mean() < 0.97


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
