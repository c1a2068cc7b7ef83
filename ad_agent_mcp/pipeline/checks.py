"""What is measured on a finished ad. Only the product's identity can fail a job."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..contract.errors import AdAgentError, ErrorCode, Fix
from ..contract.layout import Box, ProductLayout
from ..contract.schemas import Check
from ..engines.base import Matte, Picture
from ..imaging.composite import resized_crop
from ..imaging.contrast import MIN_RATIO, Legibility, legibility
from ..imaging.picture import Flags, box_of, core_of, dilate, erode, floats, window_round
from ..imaging.placement import MAX_HIDDEN_GLYPH_SHARE, MAX_HIDDEN_SHARE, safe_area
from .lettering import Glyphs, Placed
from .workspace import Workspace

IDENTITY_LIMIT = 1.0
"""Levels of 255 by which the placed core may differ from a resize of the original."""
GLYPH_LIMIT = 0.85
_MAX_EXTRUSION_SHARE = 0.2
"""Longest extrusion that may belong to letters, as a share of their height."""
_EDGE_SHARE = 0.02
_OVERLAP_LIMIT = 0.30
_RING_PX = 16


@dataclass(frozen=True)
class Finished:
    """A finished picture and what it was made of.

    Attributes:
        final: RGB.
        lettering: RGBA, the lettering picture as it was painted.
        placed: its letters on the canvas.
        glyphs: the words that it should show, where they are known.
        cutout: RGBA on the canvas, or None.
        product: how it was placed.
        is_locked: whether the product's identity was promised and can be known.
        job_id: whose picture it is.
    """

    final: Picture
    lettering: Picture
    placed: Placed
    glyphs: Glyphs | None
    cutout: Picture | None
    product: ProductLayout | None
    is_locked: bool
    job_id: str

    @property
    def canvas(self) -> tuple[int, int]:
        return self.final.shape[1], self.final.shape[0]

    @property
    def product_matte(self) -> Matte | None:
        return None if self.cutout is None else floats(self.cutout[..., 3]) / np.float32(255)


def source_error(original: Image.Image, placed: ProductLayout, cutout: Picture) -> float:
    """Largest difference, in levels, of the placed core from a plain resize of the original."""
    x, y, width, height = placed.placed_box
    left, top = max(0, x), max(0, y)
    right, bottom = min(cutout.shape[1], x + width), min(cutout.shape[0], y + height)
    wanted = resized_crop(original, placed.source_box, (width, height))[top - y : bottom - y, left - x : right - x]
    core = core_of(cutout[..., 3])[top:bottom, left:right]
    return _largest(cutout[top:bottom, left:right, :3], wanted, core)


def product_core_identity(
    picture: Picture, cutout: Picture, placed: ProductLayout | None, *, covered: Flags | None
) -> Check:
    """Whether the product's core in `picture` is the cut-out's, and the cut-out's the original's.

    Args:
        picture: RGB.
        cutout: RGBA on the same canvas.
        placed: how it was placed, with its measured `source_error`.
        covered: pixels that letters lie on, which are not compared.
    """
    core = core_of(cutout[..., 3])
    if covered is not None:
        core &= ~covered
    drawn = _largest(picture, cutout[..., :3], core)
    source = placed.source_error if placed is not None else None
    is_same = drawn == 0 and source is not None and source <= IDENTITY_LIMIT
    return Check(name="product_core_identity", passed=is_same, value=max(drawn, source or 0.0), limit=IDENTITY_LIMIT)


def require_identity(check: Check) -> None:
    """Raises `AdAgentError` (`check_failed`) when the product would not be itself."""
    if check.passed is False:
        raise AdAgentError(
            ErrorCode.CHECK_FAILED,
            f"The product's pixels differ from the original by {check.value} levels, so the picture was not delivered. "
            "Run the job again; with product_lock false it is delivered as painted.",
        )


def not_applicable() -> tuple[Check, ...]:
    """The checks of letters, for a picture that has none."""
    names = ("glyph_overlap", "text_contrast", "text_product_overlap", "safe_margins")
    return tuple(Check(name=name, passed=None) for name in names)


def step1_checks(workspace: Workspace) -> tuple[Check, ...]:
    """The checks of an ad without words."""
    identity = Check(name="product_core_identity", passed=None)
    if workspace.request.product_lock and workspace.is_verified and workspace.step1 is not None:
        assert workspace.cutout is not None  # noqa: S101
        identity = product_core_identity(workspace.step1, workspace.cutout, workspace.layout.product, covered=None)
    return (identity, *not_applicable())


def all_checks(finished: Finished) -> tuple[Check, ...]:
    """Every check of a finished ad; the first is the product's identity."""
    letters = finished.placed.in_front_of(finished.product_matte)
    covered = letters[..., 3] > 0
    if finished.placed.where.is_behind:
        covered[:] = False
    identity = Check(name="product_core_identity", passed=None)
    if finished.is_locked and finished.cutout is not None:
        identity = product_core_identity(finished.final, finished.cutout, finished.product, covered=covered)
    return (
        identity,
        _glyph_overlap(finished),
        _text_contrast(finished, letters),
        _text_product_overlap(finished, covered),
        _safe_margins(finished),
    )


def glyph_overlap(lettering: Picture, glyphs: Glyphs) -> float:
    """Intersection over union of painted letters with their words set anew: of all, or of the worst glyph."""
    drawn, wanted, cells = lettering[..., 3] > 127, glyphs.mask, glyphs.cells
    value = _overlap(drawn, wanted, cells)
    right, below = _excess(drawn, wanted, round(_MAX_EXTRUSION_SHARE * max(cell[3] for cell in cells)))
    for deep in (below, below - 1) if value < GLYPH_LIMIT else ():  # an edge may round up
        value = max(value, _overlap(drawn, _swept(wanted, right, max(0, deep)), cells))
    return value


def _glyph_overlap(finished: Finished) -> Check:
    if finished.glyphs is None:
        return Check(name="glyph_overlap", passed=None, limit=GLYPH_LIMIT)
    value = glyph_overlap(finished.lettering, finished.glyphs)
    passed = value >= GLYPH_LIMIT
    fix = None if passed else _again(finished, 2)
    return Check(name="glyph_overlap", passed=passed, value=round(value, 3), limit=GLYPH_LIMIT, fix=fix)


def _overlap(drawn: Flags, wanted: Flags, cells: tuple[Box, ...]) -> float:
    both, either = drawn & wanted, drawn | wanted
    # An edge is a matter of style, a stroke is not: what is wrong by more than an edge's width weighs threefold.
    edge = max(1, round(_EDGE_SHARE * max(cell[3] for cell in cells)))
    wrong = dilate(erode(either & ~both, edge), edge)
    parts = [np.s_[:, :], *(np.s_[y : y + height, x : x + width] for x, y, width, height in cells)]
    return min(
        float(both[part].sum() / (int(either[part].sum()) + 2 * int(wrong[part].sum())))
        for part in parts
        if either[part].any()
    )


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
    return legibility(
        picture[window],
        floats(letters[window][..., 3]) / np.float32(255),
        faces=None if placed.faces is None else placed.faces[window],
        front=product[window] if placed.where.is_behind and product is not None else None,
        font_size_px=placed.font_size_px,
    )


def _text_contrast(finished: Finished, letters: Picture) -> Check:
    seen = contrast_of(finished.final, finished.placed, letters, finished.product_matte)
    if seen is None:
        return Check(name="text_contrast", passed=None, limit=MIN_RATIO)
    passed = seen.worst >= MIN_RATIO
    fix = None if passed else _again(finished, 3, text_position="auto", composition_mode="overlay")
    return Check(name="text_contrast", passed=passed, value=round(seen.worst, 2), limit=MIN_RATIO, fix=fix)


def _text_product_overlap(finished: Finished, covered: Flags) -> Check:
    """Share of the product's core under letters; `behind`: hidden share of all letters, or of the worst glyph."""
    product = finished.product_matte
    value, limit = 0.0, _OVERLAP_LIMIT
    if finished.cutout is None or product is None or not product.any():
        return Check(name="text_product_overlap", passed=None, limit=limit)
    if finished.placed.where.is_behind:
        total, worst = finished.placed.hidden_shares(product)
        is_worse = worst / MAX_HIDDEN_GLYPH_SHARE > total / MAX_HIDDEN_SHARE
        value, limit = (worst, MAX_HIDDEN_GLYPH_SHARE) if is_worse else (total, MAX_HIDDEN_SHARE)
    else:
        core = core_of(finished.cutout[..., 3])
        value = float((core & covered).sum()) / max(1, int(core.sum()))
    passed = value <= limit
    fix = None if passed else _again(finished, 3, text_position="auto", composition_mode="overlay")
    return Check(name="text_product_overlap", passed=passed, value=round(value, 4), limit=limit, fix=fix)


def _safe_margins(finished: Finished) -> Check:
    """The ink's smallest distance from an edge, in units of the margin that this edge asks for."""
    width, height = finished.canvas
    x, y, safe_width, safe_height = safe_area(finished.canvas)
    left, top, ink_width, ink_height = finished.placed.where.box
    shares = (
        left / x,
        top / y,
        (width - left - ink_width) / (width - x - safe_width),
        (height - top - ink_height) / (height - y - safe_height),
    )
    value = min(shares)
    passed = value >= 1
    fix = None if passed else _again(finished, 2)
    return Check(name="safe_margins", passed=passed, value=round(value, 3), limit=1.0, fix=fix)


def _again(finished: Finished, start_step: int, **arguments: str) -> Fix:
    return Fix(tool="generate", arguments={"resume_job_id": finished.job_id, "start_step": start_step, **arguments})


def _largest(one: Picture, other: Picture, where: Flags) -> float:
    if not where.any():
        return 0.0
    return float(np.abs(one[where].astype(np.int16) - other[where].astype(np.int16)).max())
