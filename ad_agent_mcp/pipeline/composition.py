"""Step 3: the words placed, made legible and blended; the document of the finished ad, its rendering and its checks."""

import numpy as np

from ..contract.document import PRODUCT_Z, Layer, Lettering
from ..contract.errors import invalid
from ..contract.schemas import Check
from ..contract.stages import Stage
from ..contract.texts import say
from ..engines.base import Picture
from . import checks
from .arrangement import arranged
from .blending import blend_patch, mode_of
from .legibility import Laid
from .lettering import glyphs_of
from .render import cropped, render
from .workspace import Workspace


def make_composition(workspace: Workspace) -> tuple[Check, ...]:
    """Run step 3: writes `final` and the layers that it is made of, reports the step and returns the checks.

    Raises:
        AdAgentError: `invalid_request`; the lettering picture is empty. `check_failed` when the product
            would not be itself.
        Cancelled: the job is to stop.
    """
    picture, words = workspace.letters, workspace.words
    if not picture[..., 3].any():
        raise invalid(say("pipeline.lettering_empty"), field="step2_image")
    report = workspace.events.open_stage(Stage.PLACEMENT)
    workspace.find_product(report)
    glyphs = glyphs_of(words, workspace.fonts, picture.shape[:2]) if words is not None and words.lines else None
    laid = arranged(workspace, glyphs)
    report.iteration(1, 1)

    patch = blend_patch(workspace, laid)
    report = workspace.events.open_stage(Stage.FINISH)
    if laid.remedies:
        workspace.events.notice("text_contrast_remedy", say("pipeline.text_contrast_remedy", remedies=laid.remedies))
    layers = _describe(workspace, laid, patch)
    final = render(workspace.document, workspace.pictures | layers)
    product, job_id = workspace.promised_product, workspace.job.job_id
    results = checks.all_checks(final, laid.placed, workspace.cutout, product, job_id=job_id)
    checks.require_identity(results[0])
    for missed in (check for check in results if check.passed is False):
        values = {"name": missed.name, "value": missed.value, "limit": missed.limit}
        told = say("pipeline.check_missed_fix" if missed.fix else "pipeline.check_missed", **values)
        workspace.events.notice("check_missed", told)
    workspace.write(layers | {"final.png": final})
    report.iteration(1, 1)
    workspace.finish_step(3, results)
    return results


def _describe(workspace: Workspace, laid: Laid, patch: Picture | None) -> dict[str, Picture]:
    """Put the letters `laid` into the document, with what lies under them and the engine's `patch` over them.

    Returns:
        The pictures of their layers by file name.
    """
    pictures: dict[str, Picture] = {}

    def layer(name: str, picture: Picture) -> Layer:
        described, pictures[f"{name}.png"] = cropped(name, picture)
        return described

    where, set_before = laid.placed.where, workspace.document.lettering
    solid = laid.letters[..., :3][laid.letters[..., 3] > 127]
    drawn = layer("letters", laid.letters)
    lettering = Lettering(
        words=workspace.words,
        size=(workspace.letters.shape[1], workspace.letters.shape[0]),
        sha256=None if set_before is None else set_before.sha256,
        colour="#{:02x}{:02x}{:02x}".format(*np.median(solid, axis=0).astype(int)) if solid.size else None,
        box=where.box,
        scale=where.scale,
        z=PRODUCT_Z - 1 if where.is_behind else PRODUCT_Z + 1,
        mode=str(mode_of(workspace, laid)),
        position=str(workspace.request.text_position),
        layers=(drawn,) if patch is None else (drawn, layer("blend", patch)),
    )
    shown = [under for under in laid.under if under[..., 3].any()]
    under = [layer(f"under-{index}", picture) for index, picture in enumerate(shown, 1)]
    workspace.document = workspace.document.with_words(lettering, under)
    return pictures
