"""Which stages a job runs next, and for how many iterations. Pure."""

import re
from collections.abc import Set

from ..contract.call import GenerateRequest
from ..contract.fields import GENERATE
from ..contract.messages import Ready
from ..contract.notices import notice
from ..contract.schemas import Notice
from ..contract.stages import EngineName, Plan, Stage, plan_stages
from ..contract.texts import say
from .job import Job

DEFAULT_STEPS = 28
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def with_preset_values(job: Job, ready: Ready | None) -> Job:
    """The job with what its preset has of its own where the caller gave nothing, and with the notice that says so.

    Args:
        job: as it was asked for, or as this function gave it before.
        ready: what the worker said, once there is one; a preset whose jobs are refused has nothing to say.
    """
    if job.engine is EngineName.DRAFT or ready is None or ready.refusal is not None:
        return job
    job_steps = set(job.steps)
    own = {
        name: value
        for name, value in ready.preset_values.items()
        if name not in job.given and not job_steps.isdisjoint(GENERATE[name].steps)
    }
    if not own:
        return job
    numbers = [f"{name} {value}" for name, value in own.items()]
    told = notice("preset_steps", say("jobs.preset_steps", preset=ready.presets[0], numbers=numbers))
    return job.model_copy(
        update={
            "preset_values": own,
            "warnings": tuple(dict.fromkeys((*job.warnings, told))),
        }
    )


def plan_segment(job: Job, *, preset: str, ready: Ready | None = None) -> tuple[Plan, tuple[Notice, ...]]:
    """The plan of the job's remaining steps, up to its next pause.

    Args:
        job: what is left of it.
        preset: of the models, which the draft engine has none of.
        ready: what the worker said, once there is one: how many steps its models take by default.

    Returns:
        The plan, and notices about passes that are skipped because they would have no iteration, and about prompts
        that the models cannot read.
    """
    request = job.request_as_run
    steps = job.remaining_steps
    if request.pause_after_step in steps:
        steps = tuple(step for step in steps if step <= request.pause_after_step)
    if job.engine is EngineName.DRAFT:
        return plan_stages(engine=job.engine, preset="draft", steps=steps, iterations={}), ()
    count = request.num_inference_steps or (ready.steps if ready else DEFAULT_STEPS)
    # num_inference_steps speaks of the scene's model; another model paints the letters.
    text_count = ready.text_steps if ready else DEFAULT_STEPS
    refining = _iterations(count, request.strength)
    blending = _iterations(request.composition_steps, request.composition_strength)
    skip: dict[Stage, tuple[str, float, int]] = {}
    if refining < 1 and 1 in steps:
        skip[Stage.REFINE] = ("strength", request.strength, count)
    if blending < 1 and 3 in steps:
        skip[Stage.BLEND] = ("composition_strength", request.composition_strength, request.composition_steps)
    plan = plan_stages(
        engine=job.engine,
        preset=preset,
        steps=steps,
        iterations={
            Stage.BACKGROUND: count,
            Stage.REFINE: max(1, refining),
            Stage.TEXT_PAINT: text_count,
            Stage.BLEND: max(1, blending),
        },
        skip=frozenset(skip),
    )
    skipped = [
        notice(
            "pass_skipped", say("jobs.pass_skipped", stage=stage, strength_name=name, strength=strength, steps=count)
        )
        for stage, (name, strength, count) in skip.items()
    ]
    return plan, (*_unread(request, job.given), *skipped)


def _iterations(steps: int, strength: float) -> int:
    """How many of `steps` diffusers runs on a given picture; here below one is none."""
    return steps - int(steps - steps * strength) if steps * strength >= 1 else 0


def _unread(request: GenerateRequest, given: Set[str]) -> tuple[Notice, ...]:
    names = [name for name in sorted(given) if name.endswith("prompt")]
    korean = [name for name in names if _HANGUL.search(getattr(request, name) or "")]
    return (notice("prompt_not_english", say("jobs.prompt_not_english", names=korean)),) if korean else ()
