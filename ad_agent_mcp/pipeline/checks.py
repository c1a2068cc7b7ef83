"""What is measured on a finished ad. Only the product's identity can fail a job."""

from typing import Any

import numpy as np
from PIL import Image

from ..contract.document import Box, Product
from ..contract.errors import AdAgentError, ErrorCode, Fix
from ..contract.schemas import Check
from ..contract.texts import say
from ..engines.base import Matte, Picture
from ..imaging.composite import resized_crop
from ..imaging.contrast import MIN_RATIO, Legibility
from ..imaging.picture import Flags, box_of, core_of, dilate, erode, matte_of, window_round
from ..imaging.placement import MAX_HIDDEN_GLYPH_SHARE, MAX_HIDDEN_SHARE, safe_area
from .lettering import MIN_LETTER_SHARE, Glyphs, Placed, larger_setting

IDENTITY_LIMIT = 1.0
"""Levels of 255 by which the placed core may differ from a resize of the original."""
GLYPH_LIMIT = 0.85
_MAX_EXTRUSION_SHARE = 0.2
"""Longest extrusion that may belong to letters, as a share of their height."""
_EDGE_SHARE = 0.02
_OVERLAP_LIMIT = 0.30
_RING_PX = 16


def source_error(original: Image.Image, placed: Product, cutout: Picture) -> float:
    """Largest difference, in levels, of the placed core from a plain resize of the original."""
    x, y, width, height = placed.placed_box
    left, top = max(0, x), max(0, y)
    right, bottom = min(cutout.shape[1], x + width), min(cutout.shape[0], y + height)
    wanted = resized_crop(original, placed.source_box, (width, height))[top - y : bottom - y, left - x : right - x]
    core = core_of(cutout[..., 3])[top:bottom, left:right]
    return _largest(cutout[top:bottom, left:right, :3], wanted, core)


def product_core_identity(
    picture: Picture, cutout: Picture | None, product: Product | None, *, covered: Flags | None = None
) -> Check:
    """Whether the product's core in `picture` is the cut-out's, and the cut-out's the original's.

    Args:
        picture: RGB.
        cutout: RGBA on the same canvas, or None.
        product: how it was placed, with its measured `source_error`; None where no identity was promised.
        covered: pixels that letters lie on, which are not compared.
    """
    if cutout is None or product is None:
        return Check(name="product_core_identity", passed=None)
    core = core_of(cutout[..., 3])
    if covered is not None:
        core &= ~covered
    drawn, source = _largest(picture, cutout[..., :3], core), product.source_error
    is_same = drawn == 0 and source is not None and source <= IDENTITY_LIMIT
    return Check(name="product_core_identity", passed=is_same, value=max(drawn, source or 0.0), limit=IDENTITY_LIMIT)


def require_identity(check: Check) -> None:
    """Raises `AdAgentError` (`check_failed`) when the product would not be itself."""
    if check.passed is False:
        raise AdAgentError(ErrorCode.CHECK_FAILED, say("pipeline.product_changed", levels=check.value))


def wordless_checks(picture: Picture, cutout: Picture | None, product: Product | None) -> tuple[Check, ...]:
    """Every check of an ad without words; see `product_core_identity`."""
    names = ("glyph_overlap", "text_contrast", "text_product_overlap", "safe_margins", "text_size")
    return (product_core_identity(picture, cutout, product), *(Check(name=name, passed=None) for name in names))


def all_checks(
    final: Picture, placed: Placed, cutout: Picture | None, product: Product | None, *, job_id: str
) -> tuple[Check, ...]:
    """Every check of a finished ad; the first is the product's identity.

    Args:
        final: RGB.
        placed: its letters.
        cutout: RGBA on the canvas, or None.
        product: how the product was placed, where its identity was promised and can be known.
        job_id: whose picture it is.
    """
    matte = matte_of(cutout)
    letters = placed.in_front_of(matte)
    covered = (letters[..., 3] > 0) & (not placed.where.is_behind)
    seen = contrast_of(final, placed, letters, matte)
    overlap = None if placed.glyphs is None else glyph_overlap(placed.picture, placed.glyphs)
    hidden, most_hidden = _overlap_with(cutout, placed, covered)
    anew = {"resume_job_id": job_id, "start_step": 2}
    elsewhere = {"resume_job_id": job_id, "start_step": 3, "text_position": "auto", "composition_mode": "overlay"}
    return (
        product_core_identity(final, cutout, product, covered=covered),
        _judged("glyph_overlap", overlap, GLYPH_LIMIT, anew),
        _judged("text_contrast", None if seen is None else seen.worst, MIN_RATIO, elsewhere, digits=2),
        _judged("text_product_overlap", hidden, most_hidden, elsewhere, digits=4, is_most=True),
        _judged("safe_margins", _margin(placed, final), 1.0, anew),
        _text_size(final, placed, matte, job_id=job_id),
    )


def glyph_overlap(lettering: Picture, glyphs: Glyphs) -> float:
    """Intersection over union of painted letters with their words set anew: of all, or of the worst glyph."""
    drawn, wanted, cells = lettering[..., 3] > 127, glyphs.mask, glyphs.cells
    value = _overlap(drawn, wanted, cells)
    right, below = _excess(drawn, wanted, round(_MAX_EXTRUSION_SHARE * max(cell[3] for cell in cells)))
    for deep in (below, below - 1) if value < GLYPH_LIMIT else ():  # an edge may round up
        value = max(value, _overlap(drawn, _swept(wanted, right, max(0, deep)), cells))
    return value


def _overlap(drawn: Flags, wanted: Flags, cells: tuple[Box, ...]) -> float:
    both, either = drawn & wanted, drawn | wanted
    # An edge is a matter of style, a stroke is not: what is wrong by more than an edge's width weighs threefold.
    edge = max(1, round(_EDGE_SHARE * max(cell[3] for cell in cells)))
    wrong = dilate(erode(either & ~both, edge), edge)
    parts = [np.s_[:, :], *(np.s_[y : y + height, x : x + width] for x, y, width, height in cells)]
    shares = (
        float(both[part].sum() / (int(either[part].sum()) + 2 * int(wrong[part].sum())))
        for part in parts
        if either[part].any()
    )
    return min(shares, default=0.0)


def _excess(drawn: Flags, wanted: Flags, longest: int) -> tuple[int, int]:
    """How far `drawn` reaches beyond `wanted` to the right and below, as extruded letters do."""
    outer, inner = box_of(drawn) or (0, 0, 0, 0), box_of(wanted) or (0, 0, 0, 0)
    right, below = (outer[axis] + outer[axis + 2] - inner[axis] - inner[axis + 2] for axis in (0, 1))
    return min(max(0, right), longest), min(max(0, below), longest)


def _swept(letters: Flags, right: int, below: int) -> Flags:
    """`letters` with everything that they pass over on their way `right` and `below`, in pixels."""
    solid = letters.copy()
    height, width = letters.shape
    for step in range(1, max(right, below) + 1):
        x, y = round(right * step / max(right, below)), round(below * step / max(right, below))
        solid[y:, x:] |= letters[: height - y, : width - x]
    return solid


def contrast_of(picture: Picture, placed: Placed, letters: Picture, product: Matte | None) -> Legibility | None:
    """How well `letters`, as they are laid over `picture`, stand out in it; `product` may be in front of them."""
    window = window_round(letters, _RING_PX + round(0.2 * placed.font_size_px))
    front = None if product is None else product[window]
    return placed.legibility(picture[window], letters[window], front, window)


def _overlap_with(cutout: Picture | None, placed: Placed, covered: Flags) -> tuple[float | None, float]:
    """Share of the product's core under letters, or behind it of all letters or the worst glyph; and the limit."""
    product = matte_of(cutout)
    if cutout is None or product is None:
        return None, _OVERLAP_LIMIT
    if placed.where.is_behind:
        total, worst = placed.hidden_shares(product)
        is_worse = worst / MAX_HIDDEN_GLYPH_SHARE > total / MAX_HIDDEN_SHARE
        return (worst, MAX_HIDDEN_GLYPH_SHARE) if is_worse else (total, MAX_HIDDEN_SHARE)
    core = core_of(cutout[..., 3])
    return float((core & covered).sum()) / max(1, int(core.sum())), _OVERLAP_LIMIT


def _margin(placed: Placed, final: Picture) -> float:
    """The ink's smallest distance from an edge, in units of the margin that this edge asks for."""
    height, width = final.shape[:2]
    x, y, safe_width, safe_height = safe_area((width, height))
    left, top, ink_width, ink_height = placed.where.box
    return min(
        left / x,
        top / y,
        (width - left - ink_width) / (width - x - safe_width),
        (height - top - ink_height) / (height - y - safe_height),
    )


def _text_size(final: Picture, placed: Placed, product: Matte | None, *, job_id: str) -> Check:
    """Height of the letters as a share of the canvas's shorter side."""
    glyphs = placed.glyphs
    if glyphs is None:
        return _judged("text_size", None, MIN_LETTER_SHARE, None)
    share = glyphs.letter_px * placed.where.scale / min(final.shape[:2])
    fix = None
    if round(share, 4) < MIN_LETTER_SHARE:
        fix = larger_setting(glyphs.words.content, glyphs.typesetter, final, product, job_id=job_id)
    return _judged("text_size", share, MIN_LETTER_SHARE, fix, digits=4)


def call_of(arguments: dict[str, Any]) -> str:
    """A call of `generate` as it can be made."""
    return f"generate({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def _judged(
    name: str, value: float | None, limit: float, fix: dict[str, Any] | None, *, digits: int = 3, is_most: bool = False
) -> Check:
    """Whether `value` is within its least (or most) `limit`, and else the call that may help; None: not applicable."""
    if value is None:
        return Check(name=name, passed=None, limit=limit)
    value = round(value, digits)
    passed = value <= limit if is_most else value >= limit
    again = None if passed or fix is None else Fix(tool="generate", arguments=fix)
    return Check(name=name, passed=passed, value=value, limit=limit, fix=again)


def _largest(one: Picture, other: Picture, where: Flags) -> float:
    return float(np.abs(one[where].astype(np.int16) - other[where].astype(np.int16)).max(initial=0))
