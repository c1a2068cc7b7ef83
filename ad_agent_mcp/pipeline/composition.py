"""Step 3: the words placed, made legible, blended into the picture, and the result checked."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from ..contract.errors import invalid
from ..contract.layout import Box
from ..contract.schemas import Check, CompositionMode
from ..contract.stages import Stage
from ..engines.base import Matte, Picture
from ..imaging import contrast
from ..imaging.composite import assemble
from ..imaging.picture import Flags, alpha_over, blur, box_of, dilate, floats, from_image, on_canvas, tinted
from ..imaging.placement import MAX_HIDDEN_SHARE, Spot, find_spot, hidden_share, matte_box, text_area
from . import checks
from .workspace import Workspace, crop, pad

_INK_ALPHA = 25
_CLEAR_RATIO = 1.5
_WANTED_RATIO = 3.15
"""A remedy that is taken at all aims a little higher than the limit."""
_DARK_INK, _LIGHT_INK = 0.06, 0.75
_MIDDLE_LUMINANCE = 0.18
"""Black and white letters are equally legible on it."""
_REMEDIES = ((0.15, 0), (0.3, 0), (0.4, 0), (0.5, 0), (0.58, 0), (0, 0.25), (0, 0.4), (0.5, 0.35))
"""How much the letters' lightness changes, and how dense a scrim is added: mildest first."""
_FEATHER_SHARE = 0.02


class _Lettering(NamedTuple):
    """Letters on the canvas with what lies under them; `remedies` name what was done for legibility."""

    letters: Picture
    under: tuple[Picture, ...]
    remedies: tuple[str, ...]

    @property
    def coverage(self) -> Flags:
        """Every pixel that a letter, its outline, scrim or shadow touches."""
        return np.logical_or.reduce([layer[..., 3] > 0 for layer in (self.letters, *self.under)])


def make_composition(workspace: Workspace) -> tuple[Check, ...]:
    """Run step 3: writes `final`, reports the step and returns the checks.

    Raises:
        AdAgentError: `invalid_request`; the lettering picture is empty. `check_failed` when the product
            would not be itself.
        Cancelled: the job is to stop.
    """
    step1, picture = workspace.step1, workspace.letters
    if step1 is None or picture is None:
        raise invalid("Step 3 needs the pictures of steps 1 and 2.", field="step2_image")
    report = workspace.events.open_stage(Stage.PLACEMENT)
    report.iteration(0, 1)
    workspace.find_product(report)
    mode, spot, letters = _placed(workspace, step1, picture)
    lettering = _legible(workspace, step1, letters, mode, spot.scale)
    report.iteration(1, 1)

    final = _blended(workspace, step1, lettering, mode)
    report = workspace.events.open_stage(Stage.FINISH)
    report.iteration(0, 1)
    cutout, request = workspace.cutout, workspace.request
    coverage = lettering.coverage
    is_behind = mode is CompositionMode.BEHIND and cutout is not None
    if cutout is not None and is_behind:
        final = alpha_over(final, cutout)
        coverage &= cutout[..., 3] < 255
    results = checks.all_checks(
        checks.Finished(
            final=final,
            letters=floats(lettering.letters[..., 3]) / np.float32(255),
            ink_box=spot.box,
            coverage=coverage,
            cutout=cutout,
            is_behind=is_behind,
            is_locked=request.product_lock and workspace.is_verified,
        ),
        workspace,
    )
    checks.require_identity(results[0])
    _note(workspace, mode, spot.box)
    workspace.write({"final": final})
    report.iteration(1, 1)
    workspace.finish_step(3, results)
    return results


def _placed(workspace: Workspace, step1: Picture, picture: Picture) -> tuple[CompositionMode, Spot, Picture]:
    """Where the letters go, and they on the canvas."""
    ink = box_of(picture[..., 3] > _INK_ALPHA)
    if ink is None:
        raise invalid("The lettering picture is empty. Start at step 2.", field="step2_image")
    mode, product = workspace.request.composition_mode, workspace.product_matte
    if product is not None and not product.any():
        product = None
    if mode is CompositionMode.BEHIND and product is not None:
        spot = _spot(workspace, step1, product, ink, mode)
        letters = _letters_at(picture, ink, spot, workspace.canvas)
        share = hidden_share(floats(letters[..., 3]) / np.float32(255), product)
        if share <= MAX_HIDDEN_SHARE:
            return mode, spot, letters
        mode = CompositionMode.OVERLAY
        workspace.events.notice(
            "behind_unreadable",
            f"{share:.0%} of the letters would be hidden behind the product, so they were laid over the picture.",
        )
    spot = _spot(workspace, step1, product, ink, mode)
    return mode, spot, _letters_at(picture, ink, spot, workspace.canvas)


def _spot(workspace: Workspace, step1: Picture, product: Matte | None, ink: Box, mode: CompositionMode) -> Spot:
    position = workspace.request.text_position
    return find_spot(
        step1,
        product,
        (ink[2], ink[3]),
        area=text_area(workspace.canvas, matte_box(product), position=position, mode=mode),
        position=position,
        is_behind=mode is CompositionMode.BEHIND,
    )


def _letters_at(picture: Picture, ink: Box, spot: Spot, canvas: tuple[int, int]) -> Picture:
    scale = spot.scale
    if scale != 1:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = from_image(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        picture[picture[..., 3] == 0] = 0
    return on_canvas(picture, (spot.box[0] - round(ink[0] * scale), spot.box[1] - round(ink[1] * scale)), canvas)


def _legible(workspace: Workspace, step1: Picture, letters: Picture, mode: CompositionMode, scale: float) -> _Lettering:
    """`letters` with a shadow and, where they stand out too little, the mildest remedy that is enough."""
    text = workspace.layout.text
    box = box_of(letters[..., 3] > 0) or (0, 0, 1, 1)
    size_px = text.font_size_px * scale if text is not None else max(12.0, box[3] * 0.6)
    reach = round(0.8 * size_px) + 4
    left, top = max(0, box[0] - reach), max(0, box[1] - reach)
    window = (slice(top, box[1] + box[3] + reach), slice(left, box[0] + box[2] + reach))
    base, local = step1[window], np.ascontiguousarray(letters[window])
    product = workspace.product_matte
    front = floats(product[window]) if mode is CompositionMode.BEHIND and product is not None else None

    best = _remedied(base, local, front, size_px, may_relight=workspace.letters_are_ours)
    if best.remedies:
        workspace.events.notice(
            "text_contrast_remedy", f"The letters were too faint on the picture; added: {', '.join(best.remedies)}."
        )
    canvas = workspace.canvas
    under = tuple(on_canvas(layer, (left, top), canvas) for layer in best.under)
    return _Lettering(on_canvas(best.letters, (left, top), canvas), under, best.remedies)


def _remedied(base: Picture, letters: Picture, front: Matte | None, size_px: float, *, may_relight: bool) -> _Lettering:
    matte = floats(letters[..., 3]) / np.float32(255)
    seen = contrast.legibility(alpha_over(base, letters), matte, front=front)
    is_light = seen is None or seen.is_light
    shadow = _drop_shadow(matte, size_px, opacity=0.38 if is_light else 0.14)
    best = (_worst(base, (shadow,), letters, front), _Lettering(letters, (shadow,), ()))

    def tried(candidate: _Lettering) -> bool:
        nonlocal best
        worst = _worst(base, candidate.under, candidate.letters, front)
        if worst > best[0]:
            best = (worst, candidate)
        return worst >= _WANTED_RATIO

    if seen is None or best[0] >= contrast.MIN_RATIO:
        return best[1]
    own = float(np.median(contrast.luminance(letters[..., :3])[matte > 0.5]))
    if best[0] < _CLEAR_RATIO and _DARK_INK < own < _LIGHT_INK:
        # Letters of the picture's own lightness may go either way: take the one with more room.
        is_light = bool(np.median(contrast.luminance(base)) < _MIDDLE_LUMINANCE)
    shade = _drop_shadow(matte, size_px, opacity=0.38 if is_light else 0.10)
    name = "lighter letters" if is_light else "darker letters"
    for amount, opacity in _REMEDIES:
        if amount and not may_relight:
            continue
        changed = contrast.relit(letters, towards_light=is_light, amount=amount) if amount else letters
        halo = contrast.scrim(matte, font_size_px=size_px, opacity=opacity, is_dark=is_light)
        names = (*((name,) if amount else ()), *(("scrim",) if opacity else ()))
        if tried(_Lettering(changed, (halo, shade) if opacity else (shade,), names)):
            return best[1]
    outline = contrast.outline(matte, base, font_size_px=size_px, is_dark=own > _MIDDLE_LUMINANCE)
    tried(_Lettering(letters, (_drop_shadow(matte, size_px, opacity=0.45), outline), ("outline",)))
    return best[1]


def _worst(base: Picture, under: tuple[Picture, ...], letters: Picture, front: Matte | None) -> float:
    matte = floats(letters[..., 3]) / np.float32(255)
    seen = contrast.legibility(assemble(base, *under, letters), matte, front=front)
    return 21.0 if seen is None else seen.worst


def _drop_shadow(matte: Matte, size_px: float, *, opacity: float) -> Picture:
    down, right = round(0.035 * size_px), round(0.012 * size_px)
    moved = np.zeros_like(matte)
    moved[down:, right:] = matte[: matte.shape[0] - down, : matte.shape[1] - right]
    return tinted(floats(np.clip(blur(moved, 0.045 * size_px), 0, 1) * opacity), (18, 14, 14))


def _blended(workspace: Workspace, step1: Picture, lettering: _Lettering, mode: CompositionMode) -> Picture:
    """The engine's blend near the letters, step 1 elsewhere and on the product that they do not cover."""
    base = assemble(step1, *lettering.under)
    if not workspace.is_planned(Stage.BLEND):
        return alpha_over(base, lettering.letters)
    report = workspace.events.open_stage(Stage.BLEND)
    blended = crop(
        workspace.engine.blend_text(
            pad(base),
            pad(lettering.letters, is_empty=True),
            mode=mode,
            request=workspace.request,
            seed=workspace.seed_for(Stage.BLEND),
            report=report,
        ),
        workspace.canvas,
    )
    coverage = lettering.coverage
    if not (blended != step1).any(axis=2)[~coverage].any():
        return blended
    feather = max(2, round(_FEATHER_SHARE * min(workspace.canvas)))
    weight = np.clip(blur(floats(dilate(coverage, feather)), feather / 2), 0, 1)
    weight[coverage] = 1
    product = workspace.product_matte
    if workspace.request.product_lock and product is not None:
        weight[(product > 0) & ~coverage] = 0
    mixed = floats(step1) * (1 - weight[..., None]) + floats(blended) * weight[..., None]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _note(workspace: Workspace, mode: CompositionMode, box: Box) -> None:
    text = workspace.layout.text
    if text is not None:
        update = {"placed_box": box, "mode": str(mode), "position": str(workspace.request.text_position)}
        workspace.layout = workspace.layout.model_copy(update={"text": text.model_copy(update=update)})
