"""Where the words of an ad go: over the picture beside the product, or behind it."""

from functools import partial

import numpy as np

from ..contract.ad import CompositionMode, TextPosition
from ..contract.document import Box
from ..contract.texts import Text, say
from ..engines.base import Matte
from ..imaging import contrast
from ..imaging.placement import MAX_HIDDEN_GLYPH_SHARE, MAX_HIDDEN_SHARE, Spot, find_spots, ink_of, safe_area, text_area
from . import checks
from .legibility import Laid, made_legible
from .lettering import Glyphs, Placed, least_scale, placed_letters
from .workspace import Workspace

_STEP_SHARE = 0.01


def arranged(workspace: Workspace, glyphs: Glyphs | None) -> Laid:
    """The letters at the best spot at which they can be read, with what that takes.

    Args:
        workspace: the job, its second step done.
        glyphs: the words, or None when it is not known which they are.
    """
    position, product = workspace.request.text_position, workspace.product_matte
    if workspace.request.composition_mode is not CompositionMode.BEHIND or product is None:
        return _over(workspace, glyphs, position)
    if position in (TextPosition.CENTER, TextPosition.BOTTOM):
        workspace.events.notice(
            "text_position_unused",
            _anew(workspace, say("pipeline.position_behind", position=position), composition_mode="overlay"),
        )
        position = TextPosition.AUTO
    lowest = _spots(workspace, glyphs, TextPosition.TOP, is_behind=True)[0]
    behind = _peeping(workspace, _placed(workspace, glyphs, lowest), product)
    if behind is not None:
        return made_legible(workspace, _placed(workspace, glyphs, behind))
    workspace.events.notice("behind_unreadable", say("pipeline.behind_unreadable"))
    return _over(workspace, glyphs, position)


def _over(workspace: Workspace, glyphs: Glyphs | None, position: TextPosition) -> Laid:
    """The letters over the picture, at the first of the best spots where they can be read."""
    obeys = partial(_obeys, position=position, canvas=workspace.canvas)
    best: Laid | None = None
    for spot in _spots(workspace, glyphs, position, is_behind=False):
        if best is not None and obeys(best.placed.where.box) > obeys(spot.box):
            continue
        candidate = made_legible(workspace, _placed(workspace, glyphs, spot))
        if best is None:
            best = candidate
        elif candidate.worst > best.worst:
            best = candidate._replace(remedies=(*candidate.remedies, say("pipeline.another_place")))
        if best.worst >= contrast.MIN_RATIO:
            break
    assert best is not None  # noqa: S101  # find_spots gives one at least
    if not obeys(best.placed.where.box):
        workspace.events.notice(
            "text_position_unused", _anew(workspace, say("pipeline.position_full", position=position))
        )
    return best


def _spots(workspace: Workspace, glyphs: Glyphs | None, position: TextPosition, *, is_behind: bool) -> list[Spot]:
    product, picture, canvas = workspace.product_matte, workspace.letters, workspace.canvas
    ink, solid = ink_of(picture), picture[..., :3][picture[..., 3] > 127]
    return find_spots(
        workspace.step1,
        product,
        (ink[2], ink[3]),
        area=text_area(canvas, product, position=position, is_behind=is_behind),
        position=position,
        tone=float(np.median(contrast.luminance(solid))) if solid.size else 1.0,
        is_behind=is_behind,
        least_scale=0.0 if glyphs is None else least_scale(glyphs.letter_px, canvas),
    )


def _placed(workspace: Workspace, glyphs: Glyphs | None, spot: Spot) -> Placed:
    return placed_letters(workspace.letters, spot, workspace.canvas, glyphs)


def _anew(workspace: Workspace, told: Text, **changes: str) -> Text:
    """`told`, with the call that composes the picture for where words are wanted, if it was for another place."""
    product, position = workspace.document.product, workspace.request.text_position
    if workspace.request.product_image is None or (product is not None and product.side == position):
        return told
    arguments = {"resume_job_id": workspace.job.job_id, "start_step": 1, "text_position": str(position), **changes}
    return say("pipeline.position_anew", what=told, call=checks.call_of(arguments))


def _peeping(workspace: Workspace, placed: Placed, product: Matte) -> Spot | None:
    """The lowest place from the given one upwards at which words behind the product stay readable."""
    if workspace.words is not None and len(workspace.words.lines) > 1:
        return None
    left, lowest, width, height = placed.where.box
    step = max(2, round(_STEP_SHARE * workspace.canvas[1]))
    for top in range(lowest, safe_area(workspace.canvas)[1] - 1, -step):
        lower = np.roll(product, lowest - top, axis=0)
        lower[: lowest - top] = 0
        total, worst = placed.hidden_shares(lower)
        if total <= MAX_HIDDEN_SHARE and worst <= MAX_HIDDEN_GLYPH_SHARE:
            return placed.where._replace(box=(left, top, width, height))
    return None


def _obeys(box: Box, *, position: TextPosition, canvas: tuple[int, int]) -> bool:
    """Whether `box` is where words are wanted; in the centre they reach into the middle third."""
    start, end = box[1] / canvas[1], (box[1] + box[3]) / canvas[1]
    match position:
        case TextPosition.TOP:
            return start + end < 1
        case TextPosition.BOTTOM:
            return start + end > 1
        case TextPosition.CENTER:
            return start < 2 / 3 and end > 1 / 3
        case TextPosition.AUTO:
            return True
