"""Which stages a job runs next, and for how many iterations. Pure."""

from ..contract.schemas import Notice
from ..contract.stages import EngineName, Plan, Stage, plan_stages
from .job import Job

DEFAULT_STEPS = 28


def plan_segment(job: Job, *, preset: str) -> tuple[Plan, tuple[Notice, ...]]:
    """The plan of the job's remaining steps, up to its next pause.

    Returns:
        The plan, and notices about passes that are skipped because they would have no iteration.
    """
    request = job.request
    steps = job.remaining_steps
    if request.pause_after_step in steps:
        steps = tuple(step for step in steps if step <= request.pause_after_step)
    if job.engine is EngineName.DRAFT:
        return plan_stages(engine=job.engine, preset=preset, steps=steps, iterations={}), ()
    count = request.num_inference_steps or DEFAULT_STEPS
    refining = int(count * request.strength)
    blending = int(request.composition_steps * request.composition_strength)
    skip: dict[Stage, str] = {}
    if refining < 1 and 1 in steps:
        skip[Stage.REFINE] = f"strength {request.strength} x {count} steps is less than one iteration"
    if blending < 1 and 3 in steps:
        skip[Stage.BLEND] = (
            f"composition_strength {request.composition_strength} x {request.composition_steps} steps is less than "
            "one iteration"
        )
    plan = plan_stages(
        engine=job.engine,
        preset=preset,
        steps=steps,
        iterations={
            Stage.BACKGROUND: count,
            Stage.REFINE: max(1, refining),
            Stage.TEXT_PAINT: count,
            Stage.BLEND: max(1, blending),
        },
        skip=frozenset(skip),
    )
    return plan, tuple(
        Notice(code="pass_skipped", message=f"{stage} was skipped: {why}.") for stage, why in skip.items()
    )
