"""The engine's blend of words and picture, as far as it may change the ad."""

import numpy as np

from ..contract.ad import CompositionMode
from ..contract.stages import Stage
from ..contract.texts import say
from ..engines.base import Picture
from ..imaging import contrast
from ..imaging.picture import alpha_over, blur, dilate, floats, mix
from . import checks
from .legibility import Laid
from .workspace import Workspace, crop, pad

_FADES = (0.35, 0.5, 1.0)
"""How far what is left of a blend that costs legibility is taken back, time after time."""
_FEATHER_SHARE = 0.02


def blend_patch(workspace: Workspace, laid: Laid) -> Picture | None:
    """What the engine's blend makes of the picture and the letters `laid`, before the product comes to the front.

    It stays near the letters and off the product that they do not cover. A blend that makes the letters fainter than
    they may be is taken back as far as that needs.

    Returns:
        RGBA of the canvas's size, opaque where the blend differs from the layers that it lies on and clear elsewhere;
        None where it differs nowhere.
    """
    if not workspace.is_planned(Stage.BLEND):
        return None
    base = alpha_over(workspace.step1, *laid.under)
    plain = alpha_over(base, laid.letters)
    report = workspace.events.open_stage(Stage.BLEND)
    painted = workspace.engine.blend_text(
        pad(base),
        pad(laid.letters, is_empty=True),
        mode=mode_of(workspace, laid),
        seed=workspace.seed_for(Stage.BLEND),
        report=report,
    )
    blended = _near_letters(workspace, crop(painted, workspace.canvas), laid)
    if (blended == plain).all():
        return None
    blended = _legible(workspace, blended, plain, laid)
    is_changed = (blended != plain).any(axis=2)
    return np.dstack([blended, is_changed.astype(np.uint8) * 255])


def mode_of(workspace: Workspace, laid: Laid) -> CompositionMode:
    """The mode as it was carried out: words that do not go behind the product lie over it."""
    asked = workspace.request.composition_mode
    is_over = asked is CompositionMode.BEHIND and not laid.placed.where.is_behind
    return CompositionMode.OVERLAY if is_over else asked


def _legible(workspace: Workspace, blended: Picture, plain: Picture, laid: Laid) -> Picture:
    """As much of `blended` instead of `plain` as leaves the letters legible."""
    cutout = workspace.cutout if laid.placed.where.is_behind else None
    wanted, kept = min(contrast.MIN_RATIO, laid.worst), 1.0
    for fade in _FADES:
        shown = blended if cutout is None else alpha_over(blended, cutout)
        seen = checks.contrast_of(shown, laid.placed, laid.letters, workspace.product_matte)
        if seen is None or seen.worst >= wanted:
            break
        blended = mix(blended, plain, floats(np.full(plain.shape[:2], fade)))
        kept *= 1 - fade
    if kept < 1:
        workspace.events.notice("blend_reduced", say("pipeline.blend_reduced", kept=kept))
    return blended


def _near_letters(workspace: Workspace, blended: Picture, laid: Laid) -> Picture:
    step1, product, covered = workspace.step1, workspace.product_matte, laid.covered
    if not (blended != step1).any(axis=2)[~covered].any():
        return blended
    feather = max(2, round(_FEATHER_SHARE * min(workspace.canvas)))
    weight = np.clip(blur(floats(dilate(covered, feather)), feather / 2), 0, 1)
    weight[covered] = 1
    if workspace.request.product_lock and product is not None:
        weight[(product > 0) & ~covered] = 0
    return mix(step1, blended, weight)
