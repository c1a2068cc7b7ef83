"""Which stages a job runs next, for how many iterations, and what of the request its engine has no use for. Pure."""

import re
from collections.abc import Iterator

from ..contract.call import GenerateRequest
from ..contract.fields import GENERATE
from ..contract.notices import notice
from ..contract.schemas import Notice
from ..contract.stages import STAGES, EngineInfo, EngineName, Plan, Stage
from ..contract.texts import say
from .job import Job

_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def with_preset_values(job: Job, info: EngineInfo) -> Job:
    """The job with what its preset has of its own where the caller gave nothing."""
    own = {
        name: value for name, value in info.preset_values.items() if name not in job.given and _acts_on(name, job.steps)
    }
    return job.model_copy(update={"preset_values": own})


def plan_segment(job: Job, info: EngineInfo) -> tuple[Plan, tuple[Notice, ...]]:
    """The plan of the job's remaining steps, up to its next pause.

    Args:
        job: what is left of it, with its preset's values.
        info: what its engine says of itself.

    Returns:
        The plan, and notices about numbers of the preset's own, arguments that the engine has no use for, prompts that
        it cannot read, and passes that are skipped because they would have no iteration.
    """
    steps = job.remaining_steps
    if (pause := job.request.pause_after_step) in steps:
        steps = tuple(step for step in steps if step <= pause)
    passes = _passes(job.request_as_run, info)
    plan = info.plan(steps, {stage: count for stage, (count, _) in passes.items()})
    skipped = (
        notice("pass_skipped", say("jobs.pass_skipped", stage=stage, product=product))
        for stage, (count, product) in passes.items()
        if not count and STAGES[stage].step in steps
    )
    return plan, (*_preset_steps(job, info), *_unused(job, info, steps), *_unread(job, info), *skipped)


def _passes(request: GenerateRequest, info: EngineInfo) -> dict[Stage, tuple[int, str]]:
    """The stages whose iterations the request decides: how many, and of which numbers that is the product."""
    if "num_inference_steps" in info.unused:
        return {}
    # It speaks of the scene's model; another model paints the letters.
    scene, blend = request.num_inference_steps or info.stages[Stage.BACKGROUND].iterations, request.composition_steps
    share, blend_share = request.strength, request.composition_strength
    return {
        Stage.BACKGROUND: (scene, ""),
        Stage.REFINE: (_iterations(scene, share), f"strength {share} x {scene}"),
        Stage.BLEND: (_iterations(blend, blend_share), f"composition_strength {blend_share} x {blend}"),
    }


def _iterations(steps: int, strength: float) -> int:
    """How many of `steps` diffusers runs on a given picture; here below one is none."""
    return steps - int(steps - steps * strength) if steps * strength >= 1 else 0


def _preset_steps(job: Job, info: EngineInfo) -> Iterator[Notice]:
    if numbers := [f"{name} {value}" for name, value in job.preset_values.items()]:
        yield notice("preset_steps", say("jobs.preset_steps", preset=info.preset, numbers=numbers))


def _unused(job: Job, info: EngineInfo, steps: tuple[int, ...]) -> Iterator[Notice]:
    names = [name for name in info.unused if name in job.given and _acts_on(name, steps)]
    if names and info.name is EngineName.DRAFT:
        yield notice("not_supported", say("jobs.unused_by_draft", names=names))
    elif names:
        yield notice("not_supported", say("jobs.unused_by_preset", preset=info.preset, names=names))


def _unread(job: Job, info: EngineInfo) -> Iterator[Notice]:
    given = () if info.reads_hangul else sorted(job.given)
    if names := [
        name for name in given if GENERATE[name].is_prompt and _HANGUL.search(getattr(job.request, name) or "")
    ]:
        yield notice("prompt_not_english", say("jobs.prompt_not_english", names=names))


def _acts_on(name: str, steps: tuple[int, ...]) -> bool:
    return not set(steps).isdisjoint(GENERATE[name].steps)
