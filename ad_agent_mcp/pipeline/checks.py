"""What is measured on a finished ad. Only the product's identity can fail a job."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..contract.errors import AdAgentError, ErrorCode, Fix
from ..contract.layout import Box, ProductLayout
from ..contract.schemas import Check
from ..engines.base import Matte, Picture
from ..imaging.composite import resized_crop
from ..imaging.contrast import MIN_RATIO, legibility
from ..imaging.picture import Flags, box_of, core_of, floats
from ..imaging.placement import MAX_HIDDEN_SHARE, hidden_share, safe_area
from ..imaging.typesetting import Typesetter
from .workspace import Workspace

IDENTITY_LIMIT = 1.0
"""Levels of 255 by which the placed core may differ from a resize of the original."""
_GLYPH_LIMIT = 0.85
_OVERLAP_LIMIT = 0.30
_RING_PX = 16


@dataclass(frozen=True)
class Finished:
    """A finished picture and what it was made of.

    Attributes:
        final: RGB.
        letters: float32, coverage of the letters on the canvas.
        ink_box: their ink's box.
        coverage: what letters, outline, scrim and shadow touch of the picture.
        cutout: RGBA on the canvas, or None.
        is_behind: whether the product lies over the letters.
        is_locked: whether the product's identity was promised and can be known.
    """

    final: Picture
    letters: Matte
    ink_box: Box
    coverage: Flags
    cutout: Picture | None
    is_behind: bool
    is_locked: bool


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


def all_checks(finished: Finished, workspace: Workspace) -> tuple[Check, ...]:
    """Every check of a finished ad; the first is the product's identity."""
    identity = Check(name="product_core_identity", passed=None)
    if finished.is_locked and finished.cutout is not None:
        identity = product_core_identity(
            finished.final, finished.cutout, workspace.layout.product, covered=finished.coverage
        )
    return (
        identity,
        _glyph_overlap(workspace),
        _text_contrast(finished, workspace),
        _text_product_overlap(finished, workspace),
        _safe_margins(finished, workspace),
    )


def _glyph_overlap(workspace: Workspace) -> Check:
    """Intersection over union of the painted letters with their words set anew."""
    text, letters = workspace.layout.text, workspace.letters
    if text is None or letters is None or not workspace.letters_are_ours:
        return Check(name="glyph_overlap", passed=None, limit=_GLYPH_LIMIT)
    lines = [line.text for line in text.lines]
    anew = Typesetter(workspace.fonts, text.font_name).draw(lines, text.font_size_px, padding_px=0).mask > 0.5
    left, top = min(line.box[0] for line in text.lines), min(line.box[1] for line in text.lines)
    wanted = np.zeros(letters.shape[:2], np.bool_)
    part = wanted[top : top + anew.shape[0], left : left + anew.shape[1]]
    part[:] = anew[: part.shape[0], : part.shape[1]]
    drawn = letters[..., 3] > 127
    union = float((wanted | drawn).sum())
    value = float((wanted & drawn).sum()) / union if union else 0.0
    return Check(
        name="glyph_overlap",
        passed=value >= _GLYPH_LIMIT,
        value=round(value, 3),
        limit=_GLYPH_LIMIT,
        fix=None if value >= _GLYPH_LIMIT else _again(workspace, 2),
    )


def _text_contrast(finished: Finished, workspace: Workspace) -> Check:
    box = box_of(finished.letters > 0)
    seen = None
    if box is not None:
        left, top = max(0, box[0] - _RING_PX), max(0, box[1] - _RING_PX)
        window = (slice(top, box[1] + box[3] + _RING_PX), slice(left, box[0] + box[2] + _RING_PX))
        front = None
        if finished.is_behind and finished.cutout is not None:
            front = floats(finished.cutout[window][..., 3]) / np.float32(255)
        seen = legibility(finished.final[window], finished.letters[window], front=front)
    if seen is None:
        return Check(name="text_contrast", passed=None, limit=MIN_RATIO)
    passed = seen.worst >= MIN_RATIO
    fix = None if passed else _again(workspace, 3, text_position="auto", composition_mode="overlay")
    return Check(name="text_contrast", passed=passed, value=round(seen.worst, 2), limit=MIN_RATIO, fix=fix)


def _text_product_overlap(finished: Finished, workspace: Workspace) -> Check:
    """Share of the product's core that lettering covers; `behind`: share of the letters that is hidden."""
    limit = MAX_HIDDEN_SHARE if finished.is_behind else _OVERLAP_LIMIT
    if finished.cutout is None or not finished.cutout[..., 3].any():
        return Check(name="text_product_overlap", passed=None, limit=limit)
    if finished.is_behind:
        value = hidden_share(finished.letters, floats(finished.cutout[..., 3]) / np.float32(255))
    else:
        core = core_of(finished.cutout[..., 3])
        value = float((core & finished.coverage).sum()) / max(1, int(core.sum()))
    passed = value <= limit
    fix = None if passed else _again(workspace, 3, text_position="auto", composition_mode="overlay")
    return Check(name="text_product_overlap", passed=passed, value=round(value, 4), limit=limit, fix=fix)


def _safe_margins(finished: Finished, workspace: Workspace) -> Check:
    """The ink's smallest distance from an edge, in units of the margin that this edge asks for."""
    width, height = workspace.canvas
    x, y, safe_width, safe_height = safe_area(workspace.canvas)
    left, top, ink_width, ink_height = finished.ink_box
    shares = (
        left / x,
        top / y,
        (width - left - ink_width) / (width - x - safe_width),
        (height - top - ink_height) / (height - y - safe_height),
    )
    value = min(shares)
    passed = value >= 1
    fix = None if passed else _again(workspace, 2)
    return Check(name="safe_margins", passed=passed, value=round(value, 3), limit=1.0, fix=fix)


def _again(workspace: Workspace, start_step: int, **arguments: str) -> Fix:
    return Fix(
        tool="generate", arguments={"resume_job_id": workspace.job.job_id, "start_step": start_step, **arguments}
    )


def _largest(one: Picture, other: Picture, where: Flags) -> float:
    if not where.any():
        return 0.0
    return float(np.abs(one[where].astype(np.int16) - other[where].astype(np.int16)).max())
