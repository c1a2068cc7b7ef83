"""Which words each model is given for a job. Pure; knows no model."""

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


def prompts_of(request: GenerateRequest) -> dict[Stage, dict[str, str]]:
    """What the models of each generative stage are given to read, by the fields that it is made of.

    SDXL is given two texts, what to paint and what not to; what paints scenes the first alone.
    """
    scene = request.bg_prompt.strip() or _STUDIO
    refined = (request.bg_composition_prompt or "").strip()
    look = request.text_model_prompt.strip()
    style = (request.composition_prompt or "").strip()
    styled = "composition_prompt with " if style else "bg_prompt with " if request.bg_prompt.strip() else ""
    return {
        Stage.BACKGROUND: {"bg_prompt": _SCENE.format(scene=scene)},
        Stage.REFINE: {"bg_composition_prompt": refined} if refined else {"bg_prompt": _REFINED.format(scene=scene)},
        Stage.TEXT_PAINT: {"text_model_prompt": _LETTERS.format(look=look), "negative_prompt": request.negative_prompt},
        Stage.BLEND: {f"{styled}text_model_prompt": _BLENDED.format(style=style or scene, look=look)},
    }
