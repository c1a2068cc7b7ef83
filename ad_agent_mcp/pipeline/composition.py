"""Step 3: the words placed, made legible, blended into the picture, and the result checked."""

from typing import NamedTuple

import numpy as np

from ..contract.ad import CompositionMode, TextPosition
from ..contract.errors import invalid
from ..contract.layout import Box, LettersLayout
from ..contract.schemas import Check
from ..contract.stages import Stage
from ..engines.base import Matte, Picture
from ..imaging import contrast
from ..imaging.picture import Flags, Window, alpha_over, blur, dilate, floats, mix, on_canvas, window_round
from ..imaging.placement import (
    MAX_HIDDEN_GLYPH_SHARE,
    MAX_HIDDEN_SHARE,
    clear_of,
    find_spots,
    ink_of,
    safe_area,
    text_area,
)
from ..imaging.remedies import Attempt, attempts
from . import checks
from .lettering import Glyphs, Placed, glyphs_of, least_scale, placed_letters
from .workspace import Workspace, crop, pad

_CLEAR_RATIO = 1.5
_WANTED_RATIO = 3.5
"""A remedy that is taken at all aims a little higher than the limit."""
_DARK_INK, _LIGHT_INK = 0.06, 0.75
_MIDDLE_LUMINANCE = 0.18
"""Black and white letters are equally legible on it."""
_FADES = (0.35, 0.5, 1.0)
"""How far what is left of a blend that costs legibility is taken back, time after time."""
_FEATHER_SHARE = 0.02
_STEP_SHARE = 0.01


class _Lettering(NamedTuple):
    """Placed letters, maybe recoloured, with what lies under them, and how well they stand out."""

    placed: Placed
    letters: Picture
    under: tuple[Picture, ...]
    remedies: tuple[str, ...]
    worst: float

    @property
    def covered(self) -> Flags:
        """Every pixel that a letter, its rim, scrim or shadow touches."""
        return np.logical_or.reduce([layer[..., 3] > 0 for layer in (self.letters, *self.under)])


def make_composition(workspace: Workspace) -> tuple[Check, ...]:
    """Run step 3: writes `final`, reports the step and returns the checks.

    Raises:
        AdAgentError: `invalid_request`; the lettering picture is empty. `check_failed` when the product
            would not be itself.
        Cancelled: the job is to stop.
    """
    picture = workspace.letters
    if not picture[..., 3].any():
        raise invalid("The lettering picture is empty. Start at step 2.", field="step2_image")
    report = workspace.events.open_stage(Stage.PLACEMENT)
    workspace.find_product(report)
    text = workspace.layout.text
    glyphs = glyphs_of(text, workspace.fonts, picture.shape[:2]) if text is not None and text.lines else None
    lettering = _arranged(workspace, glyphs)
    report.iteration(1, 1)

    final = _fronted(workspace, _blended(workspace, lettering), lettering)
    report = workspace.events.open_stage(Stage.FINISH)
    if lettering.remedies:
        workspace.events.notice(
            "text_contrast_remedy",
            f"The letters were too faint on the picture; changed: {', '.join(lettering.remedies)}.",
        )
    where = lettering.placed.where
    if text is not None:
        mode, position = _mode(workspace, where), workspace.request.text_position
        text = text.model_copy(update={"placed_box": where.box, "mode": str(mode), "position": str(position)})
    results = checks.all_checks(
        final,
        lettering.placed,
        workspace.cutout,
        workspace.promised_product,
        job_id=workspace.job.job_id,
        text=text,
        fonts=workspace.fonts,
    )
    checks.require_identity(results[0])
    for missed in (check for check in results if check.passed is False):
        workspace.events.notice(
            "check_missed",
            f"{missed.name} is {missed.value:g}, and {missed.limit:g} was wanted; every remedy was tried. "
            + ("The check's fix is a call that may mend it." if missed.fix else "Fewer words may mend it."),
        )
    workspace.layout = workspace.layout.model_copy(update={"letters": where, "text": text})
    workspace.write({"final": final})
    report.iteration(1, 1)
    workspace.finish_step(3, results)
    return results


def _arranged(workspace: Workspace, glyphs: Glyphs | None) -> _Lettering:
    """The letters at the best spot at which they can be read, with what that takes."""
    product, picture = workspace.product_matte, workspace.letters
    request, canvas, ink = workspace.request, workspace.canvas, ink_of(picture)
    solid = picture[..., :3][picture[..., 3] > 127]
    tone = float(np.median(contrast.luminance(solid))) if solid.size else 1.0
    smallest = 0.0 if glyphs is None else least_scale(glyphs.letter_px, canvas)

    def spots(position: TextPosition, *, is_behind: bool) -> list[LettersLayout]:
        area = text_area(canvas, product, position=position, is_behind=is_behind)
        return find_spots(
            workspace.step1,
            product,
            (ink[2], ink[3]),
            area=area,
            position=position,
            tone=tone,
            is_behind=is_behind,
            least_scale=smallest,
        )

    position = request.text_position
    if request.composition_mode is CompositionMode.BEHIND and product is not None:
        if position in (TextPosition.CENTER, TextPosition.BOTTOM):
            workspace.events.notice(
                "text_position_unused",
                f"Words behind a product stand at its top, so {position} had no effect."
                + _anew(workspace, composition_mode="overlay"),
            )
            position = TextPosition.AUTO
        lowest = spots(TextPosition.TOP, is_behind=True)[0]
        behind = _peeping(workspace, placed_letters(picture, lowest, canvas, glyphs), product)
        if behind is not None:
            return _legible(workspace, placed_letters(picture, behind, canvas, glyphs))
        workspace.events.notice(
            "behind_unreadable",
            "Behind the product too much of the words would be hidden, so they were laid over the picture. "
            "One short line of text, or a narrower product, leaves them readable.",
        )
    best: _Lettering | None = None
    for spot in spots(position, is_behind=False):
        if best is not None and _obeys(best.placed.where.box, position, canvas) > _obeys(spot.box, position, canvas):
            continue
        candidate = _legible(workspace, placed_letters(picture, spot, canvas, glyphs))
        if best is None or candidate.worst > best.worst:
            moved = () if best is None else ("another place",)
            best = candidate._replace(remedies=(*candidate.remedies, *moved))
        if best.worst >= contrast.MIN_RATIO:
            break
    assert best is not None  # noqa: S101  # find_spots gives one at least
    if not _obeys(best.placed.where.box, position, canvas):
        workspace.events.notice(
            "text_position_unused",
            f"There was no room at the {position} beside the product; the words stand elsewhere." + _anew(workspace),
        )
    return best


def _anew(workspace: Workspace, **changes: str) -> str:
    """The call that composes the picture anew for where the words are wanted, if it was composed for another place."""
    product, position = workspace.layout.product, workspace.request.text_position
    if workspace.request.product_image is None or (product is not None and product.side == position):
        return ""
    arguments = {"resume_job_id": workspace.job.job_id, "start_step": 1, "text_position": str(position), **changes}
    return f" {checks.call_of(arguments)} makes room for them there."


def _peeping(workspace: Workspace, placed: Placed, product: Matte) -> LettersLayout | None:
    """The lowest place from the given one upwards at which words behind the product stay readable."""
    text = workspace.layout.text
    if text is not None and len(text.lines) > 1:
        return None
    left, lowest, width, height = placed.where.box
    step = max(2, round(_STEP_SHARE * workspace.canvas[1]))
    for top in range(lowest, safe_area(workspace.canvas)[1] - 1, -step):
        lower = np.roll(product, lowest - top, axis=0)
        lower[: lowest - top] = 0
        total, worst = placed.hidden_shares(lower)
        if total <= MAX_HIDDEN_SHARE and worst <= MAX_HIDDEN_GLYPH_SHARE:
            return placed.where.model_copy(update={"box": (left, top, width, height)})
    return None


def _obeys(box: Box, position: TextPosition, canvas: tuple[int, int]) -> bool:
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


def _legible(workspace: Workspace, placed: Placed) -> _Lettering:
    """`placed` with a shadow and, where the letters stand out too little, the mildest remedy that is enough."""
    step1, product, light_x = workspace.step1, workspace.product_matte, workspace.layout.light_x or 0.0
    may_recolour = workspace.layout.text is not None
    letters = placed.in_front_of(product)
    if workspace.request.composition_mode is CompositionMode.BLEND:
        letters = contrast.lit_by_scene(letters, step1, light_x=light_x)
    size_px = placed.font_size_px
    window = window_round(letters, round(2.1 * size_px) + 4)
    base, local = step1[window], np.ascontiguousarray(letters[window])
    front = None if product is None else product[window]
    ground = base[window_round(local, round(0.5 * size_px))]

    plain = placed.legibility(alpha_over(base, local), local, front, window)
    is_light = plain is None or plain.is_light
    own = float(np.median(contrast.luminance(local[..., :3])[local[..., 3] > 127])) if plain is not None else 1.0
    if plain is not None and plain.worst < _CLEAR_RATIO and _DARK_INK < own < _LIGHT_INK:
        # Letters of the picture's own lightness may go either way: take the one with more room.
        is_light = bool(np.median(contrast.luminance(ground)) < _MIDDLE_LUMINANCE)
    density = contrast.scrim_density(placed.where.box, workspace.canvas, font_size_px=size_px)

    def veiled(tried: Attempt, part: Window) -> tuple[Picture, ...]:
        if tried.veil is None:
            return ()
        opacity, is_dark = tried.veil
        layer = contrast.scrim(density[part], ground, opacity=opacity, is_dark=is_dark)
        if workspace.cutout is None:
            return (layer,)
        # The old ground shines through a product's soft edge: it takes the scrim, and the product comes over it again.
        edge = workspace.cutout[part].copy()
        is_soft = edge[..., 3] < 255
        edge[..., 3] = np.where(is_soft, edge[..., 3].astype(np.uint16) * layer[..., 3] // 255, 0)
        return clear_of(layer, floats(~is_soft)), edge

    best: tuple[float, Attempt] | None = None
    for attempt in attempts(
        local, ground, font_size_px=size_px, light_x=light_x, is_light=is_light, may_recolour=may_recolour
    ):
        # A product stands before what is laid under letters.
        tried = attempt._replace(under=tuple(clear_of(layer, front) for layer in attempt.under))
        picture = alpha_over(base, *veiled(tried, window), *tried.under, tried.letters)
        seen = placed.legibility(picture, tried.letters, front, window)
        worst = 21.0 if seen is None else seen.worst
        if best is None or worst > best[0]:
            best = worst, tried
        if worst >= (_WANTED_RATIO if tried.names else contrast.MIN_RATIO):
            break
    assert best is not None  # noqa: S101
    worst, tried = best
    corner, canvas = (window[1].start, window[0].start), workspace.canvas
    under = (*veiled(tried, np.s_[:, :]), *(on_canvas(layer, corner, canvas) for layer in tried.under))
    return _Lettering(placed, on_canvas(tried.letters, corner, canvas), under, tried.names, worst)


def _blended(workspace: Workspace, lettering: _Lettering) -> Picture:
    """The engine's blend near the letters, step 1 elsewhere and on the product that they do not cover.

    A blend that makes the letters fainter than they may be is taken back as far as that needs.
    """
    base = alpha_over(workspace.step1, *lettering.under)
    plain = alpha_over(base, lettering.letters)
    if not workspace.is_planned(Stage.BLEND):
        return plain
    report = workspace.events.open_stage(Stage.BLEND)
    blended = crop(
        workspace.engine.blend_text(
            pad(base),
            pad(lettering.letters, is_empty=True),
            mode=_mode(workspace, lettering.placed.where),
            seed=workspace.seed_for(Stage.BLEND),
            report=report,
        ),
        workspace.canvas,
    )
    product = workspace.product_matte
    final = _near_letters(workspace, blended, lettering.covered)
    kept = 1.0
    for fade in _FADES if (final != plain).any() else ():
        seen = checks.contrast_of(_fronted(workspace, final, lettering), lettering.placed, lettering.letters, product)
        if seen is None or seen.worst >= min(contrast.MIN_RATIO, lettering.worst):
            break
        final = mix(final, plain, floats(np.full(final.shape[:2], fade)))
        kept *= 1 - fade
    if kept < 1:
        workspace.events.notice(
            "blend_reduced",
            f"Blended into the picture the words were too faint, so {kept:.0%} of the blend was kept. Less "
            "composition_strength, another composition_prompt or composition_mode overlay may keep all of it.",
        )
    return final


def _fronted(workspace: Workspace, picture: Picture, lettering: _Lettering) -> Picture:
    if workspace.cutout is None or not lettering.placed.where.is_behind:
        return picture
    return alpha_over(picture, workspace.cutout)


def _near_letters(workspace: Workspace, blended: Picture, covered: Flags) -> Picture:
    step1, product = workspace.step1, workspace.product_matte
    if not (blended != step1).any(axis=2)[~covered].any():
        return blended
    feather = max(2, round(_FEATHER_SHARE * min(workspace.canvas)))
    weight = np.clip(blur(floats(dilate(covered, feather)), feather / 2), 0, 1)
    weight[covered] = 1
    if workspace.request.product_lock and product is not None:
        weight[(product > 0) & ~covered] = 0
    return mix(step1, blended, weight)


def _mode(workspace: Workspace, where: LettersLayout) -> CompositionMode:
    """The mode as it was carried out: words that do not go behind the product lie over it."""
    asked = workspace.request.composition_mode
    return CompositionMode.OVERLAY if asked is CompositionMode.BEHIND and not where.is_behind else asked
