"""Where words go: the room that is left for them, and the calmest legible spot in it.

Knows where the product is, not what it is.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..contract.ad import CompositionMode, TextPosition
from ..contract.call import GenerateRequest
from ..contract.document import Box
from .contrast import MIN_RATIO, luminance, ratio
from .picture import Flags, Floats, Matte, Picture, blur, box_of, dilate, floats, from_image, on_canvas, resize
from .regions import lab_of, slopes

MAX_HIDDEN_SHARE = 0.08
"""More of the letters than this may not disappear behind the product, ..."""
MAX_HIDDEN_GLYPH_SHARE = 0.30
"""... nor more of any one of them."""
_INK_ALPHA = 25
_SCALES = (1.0, 0.85, 0.7, 0.55, 0.45)
_CHOICES = 4
_APART = 0.4
_OFF_CENTRE = 0.35
"""An axis shared with the room, and so with the product, is worth some clutter."""
_GRID = 8
_BANNER_ASPECT = 1.45
_STORY_ASPECT = 1.6


class Spot(NamedTuple):
    """Where letters lie on the canvas: the `box` of their ink, their `scale`, whether the product is before them."""

    box: Box
    scale: float
    is_behind: bool


def safe_area(canvas: tuple[int, int]) -> Box:
    """The part of a canvas (width, height) that no platform covers or crops; on a story its controls do."""
    width, height = canvas
    side, top, bottom = 0.06, 0.06, 0.06
    if height / width >= _STORY_ASPECT:
        side, top, bottom = 0.065, 0.13, 0.16
    elif is_banner(canvas):
        side, top, bottom = 0.045, 0.09, 0.09
    x, y = round(side * width), round(top * height)
    return x, y, width - 2 * x, height - y - round(bottom * height)


def is_banner(canvas: tuple[int, int]) -> bool:
    """Whether a canvas (width, height) is so wide that words stand beside the product."""
    return canvas[0] / canvas[1] >= _BANNER_ASPECT


def words_side(request: GenerateRequest) -> TextPosition | None:
    """On which side of the product words are wanted, or None without any."""
    # Words behind the product look over its top, wherever else they were wanted.
    is_behind = request.composition_mode is CompositionMode.BEHIND
    return None if request.text_content is None else TextPosition.TOP if is_behind else request.text_position


def text_area(canvas: tuple[int, int], matte: Matte | None, *, position: TextPosition, is_behind: bool) -> Box:
    """The room in which words should be set: beside, above or below the product.

    Args:
        canvas: (width, height).
        matte: the product's coverage of the canvas, or None.
        position: where the caller wants them.
        is_behind: whether they are to reach behind the product's top instead.

    Returns:
        A box inside the safe area.
    """
    x, y, width, height = safe_area(canvas)
    tall = round(min(0.30 * canvas[1], 0.42 * canvas[0]))
    product = None if matte is None else box_of(matte > 0.1)
    if product is None:
        offset = {TextPosition.TOP: 0, TextPosition.BOTTOM: height - tall}.get(position, (height - tall) // 2)
        return x, y + max(0, offset), width, min(tall, height)
    gap = round(0.045 * math.sqrt(canvas[0] * canvas[1]))
    if is_behind:
        reach = max(y + round(0.16 * canvas[1]), product[1] + round(0.16 * product[3]))
        return x, max(y, reach - tall), width, min(tall, reach - y)
    aside = round(1.4 * gap)
    left, right = product[0] - aside - x, x + width - (product[0] + product[2] + aside)
    above, below = product[1] - gap - y, y + height - (product[1] + product[3] + gap)
    if is_banner(canvas) and max(left, right) >= 0.3 * canvas[0]:
        side_x, side_width = (x, left) if left >= right else (x + width - right, right)
        high = height if position in (TextPosition.AUTO, TextPosition.CENTER) else round(0.85 * height)
        side_y = y + height - high if position is TextPosition.BOTTOM else y
        return side_x, side_y, side_width, high
    if position is TextPosition.AUTO:
        position = TextPosition.TOP if above >= 0.8 * below else TextPosition.BOTTOM
    if position is TextPosition.CENTER:
        # The middle of the picture, as far as the product leaves it free.
        end = min(product[1] - gap, (canvas[1] + tall) // 2)
        start = max(y, end - tall)
        if end - start >= 0.13 * canvas[1]:
            return x, start, width, end - start
        return x, y + max(0, height - tall) // 2, width, min(tall, height)
    room = max(round(0.13 * canvas[1]), min(tall, above if position is TextPosition.TOP else below))
    return x, (y if position is TextPosition.TOP else y + height - room), width, room


def find_spots(
    picture: Picture,
    product: Matte | None,
    size: tuple[int, int],
    *,
    area: Box,
    position: TextPosition,
    tone: float = 1.0,
    is_behind: bool = False,
    least_scale: float = 0.0,
) -> list[Spot]:
    """The best places for letters of `size` (width, height of their ink), best first and apart from each other.

    Args:
        picture: RGB, the canvas without letters.
        product: its coverage, or None.
        size: ink size at scale 1.
        area: the room they were set for; preferred where it is as good as any.
        position: a wish that is followed, or `auto` for the calmest large place.
        tone: relative luminance of the letters; ground of this tone is avoided.
        is_behind: the letters go behind the product and may reach under its edge.
        least_scale: below it they could not be read, so it is not gone below where they fit at all.

    Returns:
        At least one spot inside the safe area; the letters shrink where there is no room.
    """
    canvas = (picture.shape[1], picture.shape[0])
    safe = safe_area(canvas)
    widest = min(1.0, safe[2] / size[0], safe[3] / size[1])
    taken = np.zeros(picture.shape[:2], np.bool_) if product is None else product > 0.1
    clutter = _integral(_clutter(picture, taken & is_behind))
    light = _shrunk(luminance(picture))
    likeness = _integral(floats(np.maximum(0, np.log(MIN_RATIO / ratio(light, tone)))))
    covered = _integral(_shrunk(floats(dilate(taken, 3 if is_behind else round(0.012 * max(canvas))))))
    found: list[tuple[float, float, Spot]] = []
    for scale in [scale for scale in _SCALES if scale * widest >= least_scale] or _SCALES[:1]:
        width, height = round(size[0] * scale * widest), round(size[1] * scale * widest)
        rightmost, lowest = safe[0] + safe[2] - width, safe[1] + safe[3] - height
        lefts = {area[0] + (area[2] - width) // 2, safe[0], rightmost}
        step = max(4, round(0.02 * canvas[1]))
        tops = {*range(safe[1], lowest + 1, step), area[1] + (area[3] - height) // 2}
        for left in sorted(lefts):
            for top in sorted(tops):
                if not (safe[0] <= left <= rightmost and safe[1] <= top <= lowest):
                    continue
                spot = Spot(box=(left, top, width, height), scale=scale * widest, is_behind=is_behind)
                score = 2.5 * math.log(scale) - _dislike(spot.box, area, canvas, position)
                score -= 3.0 * _mean(clutter, spot.box) + 0.5 * _mean(likeness, spot.box)
                overlap = _mean(covered, spot.box)
                # Behind a product a little must vanish; in front of it nothing should be covered at all.
                score -= 5.0 * max(0.0, overlap - 0.12) if is_behind else 8.0 * overlap + (1.5 if overlap else 0.0)
                found.append((score, overlap, spot))
    found.sort(key=lambda scored: -scored[0])
    spots: list[Spot] = []
    for _, overlap, spot in found:
        # No other place is worth covering more of the product than the best one does.
        if overlap <= found[0][1] and all(_shared(spot.box, other.box) < _APART for other in spots):
            spots.append(spot)
        if len(spots) == _CHOICES:
            break
    return spots


def ink_of(letters: Picture) -> Box:
    """The box of the ink in RGBA `letters`."""
    return box_of(letters[..., 3] > _INK_ALPHA) or (0, 0, 1, 1)


def letters_at(letters: Picture, ink: Box, box: Box, scale: float, canvas: tuple[int, int]) -> Picture:
    """RGBA `letters` scaled and laid on an empty `canvas` so that their `ink` begins where `box` does."""
    if scale != 1:
        size = (max(1, round(letters.shape[1] * scale)), max(1, round(letters.shape[0] * scale)))
        letters = from_image(Image.fromarray(letters).resize(size, Image.Resampling.LANCZOS))
        letters[letters[..., 3] == 0] = 0
    return on_canvas(letters, (box[0] - round(ink[0] * scale), box[1] - round(ink[1] * scale)), canvas)


def clear_of(layer: Picture, product: Matte | None) -> Picture:
    """RGBA `layer` passing behind the product."""
    if product is None:
        return layer
    result = layer.copy()
    result[..., 3] = np.round(layer[..., 3] * (1 - product))
    result[result[..., 3] == 0] = 0
    return result


def _dislike(box: Box, area: Box, canvas: tuple[int, int], position: TextPosition) -> float:
    centre_x, centre_y = box[0] + box[2] / 2, box[1] + box[3] / 2
    away_x = abs(centre_x - area[0] - area[2] / 2) / canvas[0]
    away_y = abs(centre_y - area[1] - area[3] / 2) / canvas[1]
    aside, apart = (0.6, 0.3) if position is TextPosition.AUTO else (1.2, 3.0)
    return aside * away_x + apart * away_y + (_OFF_CENTRE if away_x > 0.02 else 0.0)


def _clutter(picture: Picture, ignored: Flags) -> Floats:
    steep = floats(slopes(lab_of(_shrunk(floats(picture)))).sum(axis=2))
    steep[_shrunk(floats(dilate(ignored, _GRID))) > 0.2] = 0
    return blur(floats(np.minimum(steep, 12)), 2) / np.float32(12)


def _shrunk(values: Floats) -> Floats:
    return resize(values, (max(1, values.shape[1] // _GRID), max(1, values.shape[0] // _GRID)))


def _integral(values: Floats) -> Floats:
    return floats(cv2.integral(values))


def _mean(integral: Floats, box: Box) -> float:
    rows, columns = integral.shape[0] - 1, integral.shape[1] - 1
    left, top = min(columns - 1, box[0] // _GRID), min(rows - 1, box[1] // _GRID)
    right = min(columns, max(left + 1, (box[0] + box[2]) // _GRID))
    bottom = min(rows, max(top + 1, (box[1] + box[3]) // _GRID))
    total = integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]
    return float(total) / ((bottom - top) * (right - left))


def _shared(one: Box, other: Box) -> float:
    """How much of the smaller box the other one covers, 0-1."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height) / max(1, min(one[2] * one[3], other[2] * other[3]))
