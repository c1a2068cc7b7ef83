"""Which words each model is given for a job, and what has no effect. Pure; knows no model."""

from collections.abc import Mapping

from ...contract.call import GenerateRequest
from ...contract.stages import Stage

_STUDIO = "a clean photo studio with a seamless light backdrop, soft light"
_SCENE = (
    "{scene}. Empty background scene for product photography, clear surface in the lower third, nothing on it, no text"
)
_REFINED = (
    "{scene}. A product stands on the surface, natural contact shadow, coherent light, professional product photo"
)
_BLENDED = "{style}. {look} lettering in the scene, coherent light and soft shadows, professional advertisement"
_LETTERS = "{look}, isolated on a plain light grey background, studio light"

FLUX_STAGES = (Stage.BACKGROUND, Stage.REFINE, Stage.BLEND)
_NEGATIVE_FIELDS: Mapping[Stage, str] = {
    Stage.BACKGROUND: "bg_negative_prompt",
    Stage.REFINE: "bg_composition_negative_prompt",
    Stage.BLEND: "composition_negative_prompt",
}


def prompts_of(request: GenerateRequest, *, has_negative: bool) -> dict[Stage, dict[str, str]]:
    """What the models of each generative stage are given to read, by the fields that it is made of.

    SDXL is given two texts, what to paint and what not to; so is FLUX if it runs with true classifier-free guidance
    (`has_negative`), otherwise the first alone.
    """
    scene = request.bg_prompt.strip() or _STUDIO
    refined = (request.bg_composition_prompt or "").strip()
    look = request.text_model_prompt.strip()
    style = (request.composition_prompt or "").strip()
    styled = "composition_prompt with " if style else "bg_prompt with " if request.bg_prompt.strip() else ""
    prompts = {
        Stage.BACKGROUND: {"bg_prompt": _SCENE.format(scene=scene)},
        Stage.REFINE: {"bg_composition_prompt": refined} if refined else {"bg_prompt": _REFINED.format(scene=scene)},
        Stage.TEXT_PAINT: {
            "text_model_prompt": _LETTERS.format(look=look),
            "negative_prompt": request.negative_prompt,
        },
        Stage.BLEND: {f"{styled}text_model_prompt": _BLENDED.format(style=style or scene, look=look)},
    }
    for stage, name in _NEGATIVE_FIELDS.items() if has_negative else ():
        prompts[stage][name] = getattr(request, name)
    return prompts


def unused_fields(
    request: GenerateRequest, stages: tuple[Stage, ...], *, has_negative: bool, has_guidance: bool
) -> list[str]:
    """Fields that the caller set and that no stage of the job heeds.

    Args:
        request: the job.
        stages: its stages.
        has_negative: whether FLUX runs with true classifier-free guidance.
        has_guidance: whether this FLUX takes a guidance scale.
    """
    flux = [stage for stage in stages if stage in FLUX_STAGES]
    names = [] if has_negative else [_NEGATIVE_FIELDS[stage] for stage in flux]
    if flux and not has_guidance:
        names += ["guidance_scale", "composition_guidance_scale"]
    return [name for name in names if name in request.model_fields_set]
