"""Whole jobs as their workers told them, and what a client would have been told meanwhile.

`DRAFT` was recorded by `python -m bench.traces`. `diffusion_trace` is made up: the stages, loads and noise that a GPU's
job should have, measured on none.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import JobDone, JobEvent, ModelMoved, StageProgress, StepResult
from ad_agent_mcp.contract.stages import STAGES, EngineName, Stage
from ad_agent_mcp.engines.diffusion.info import describe
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.estimates import LoadState, StageTimes
from ad_agent_mcp.jobs.job import Job, advance, move_model, start, steps_to_run
from ad_agent_mcp.jobs.plan import plan_segment
from ad_agent_mcp.models.catalog import PRESETS

ID = "00000000-0000-7000-8000-000000000000"
EXACT = describe(PRESETS["exact"], {"guidance_embeds": True})
BEGAN = 1_000_000.0
"""Seconds since the epoch, on the clock of the replay."""


@dataclass(frozen=True)
class Trace:
    """One job: events with their seconds since its start, the last one its end."""

    engine: EngineName
    request: GenerateRequest
    found: LoadState
    events: tuple[tuple[float, JobEvent | ModelMoved], ...]

    @property
    def total_s(self) -> float:
        return self.events[-1][0]


def _event(told: list[Any]) -> tuple[float, JobEvent]:
    match told:
        case [at, "done"]:
            return at, JobDone(job_id=ID)
        case [at, "step", step]:
            return at, StepResult(job_id=ID, step=step, files={}, width=1, height=1)
        case [at, stage, done, total]:
            return at, StageProgress(job_id=ID, stage=Stage(stage), done=done, total=total)
        case _:
            raise ValueError(told)


def _recorded() -> dict[str, list[Trace]]:
    file = Path(__file__).parents[1] / "data" / "draft_traces.json"
    return {
        name: [
            Trace(
                EngineName.DRAFT,
                GenerateRequest.model_validate(job["request"]),
                LoadState.WARM if number else LoadState.COLD,
                tuple(_event(told) for told in job["events"]),
            )
            for number, job in enumerate(jobs)
        ]
        for name, jobs in json.loads(file.read_text("utf-8")).items()
    }


DRAFT = _recorded()

LOADS_S = {Stage.CUT_OUT: ("birefnet", 1.5), Stage.BACKGROUND: ("flux", 34.0), Stage.TEXT_PAINT: ("sdxl", 9.0)}
ITERATION_S = {
    Stage.CUT_OUT: 1.1,
    Stage.BACKGROUND: 1.35,
    Stage.COMPOSITE: 0.7,
    Stage.REFINE: 1.4,
    Stage.TEXT_LAYOUT: 0.3,
    Stage.TEXT_PAINT: 0.55,
    Stage.TEXT_CUT_OUT: 1.0,
    Stage.PLACEMENT: 0.4,
    Stage.BLEND: 1.45,
    Stage.FINISH: 0.9,
}
SAVING_S = {Stage.REFINE: 1.2, Stage.TEXT_CUT_OUT: 0.6, Stage.FINISH: 0.2}


def diffusion_trace(request: GenerateRequest, *, found: LoadState, seed: int, noise: float = 0.05) -> Trace:
    """A made-up job of the diffusion engine: each duration off by `noise` (standard deviation of its logarithm)."""
    chance = random.Random(seed)
    job = Job(id=ID, request=request, engine=EngineName.DIFFUSION, steps=steps_to_run(request), created_at=0.0)
    events: list[tuple[float, JobEvent | ModelMoved]] = []
    at = 4.0 if found is LoadState.STARTING else 0.05
    scale = request.width * request.height / 2**20

    def passes(seconds: float) -> None:
        nonlocal at
        at += seconds * chance.lognormvariate(0.0, noise)

    stages = plan_segment(job, EXACT)[0].stages
    for planned, following in zip(stages, (*stages[1:], None), strict=True):
        stage, count = planned.stage, planned.iterations
        events.append((at, StageProgress(job_id=ID, stage=stage, done=0, total=count)))
        if stage in LOADS_S and found is not LoadState.WARM:
            model, seconds = LOADS_S[stage]
            events.append((at, ModelMoved(model=model, state="loading")))
            passes(seconds)
            events.append((at, ModelMoved(model=model, state="loaded")))
        for done in range(count):
            passes(ITERATION_S[stage] * (scale if stage not in (Stage.CUT_OUT, Stage.TEXT_CUT_OUT) else 1.0))
            events.append((at, StageProgress(job_id=ID, stage=stage, done=done + 1, total=count)))
        passes(SAVING_S.get(stage, 0.02))
        if following is None or STAGES[following.stage].step != STAGES[stage].step:
            events.append((at, StepResult(job_id=ID, step=STAGES[stage].step, files={}, width=1, height=1)))
    events.append((at, JobDone(job_id=ID)))
    return Trace(EngineName.DIFFUSION, request, found, tuple(events))


def replay(trace: Trace, times: StageTimes) -> list[tuple[float, Job]]:
    """What the job was at each moment, seconds since its start; `times` learns from it, as in the service."""
    job = Job(
        id=ID,
        request=trace.request,
        engine=trace.engine,
        steps=steps_to_run(trace.request),
        created_at=BEGAN,
        owner="a",
    )
    info = INFO if trace.engine is EngineName.DRAFT else EXACT
    plan, _ = plan_segment(job, info)
    pixels = trace.request.width * trace.request.height
    job = start(job, plan, times.expect(plan, info, pixels=pixels, found=trace.found), at=BEGAN, owner="a")
    told = [(0.0, job)]
    for at, event in trace.events:
        if isinstance(event, ModelMoved):
            after = move_model(job, event, at=BEGAN + at)
        else:
            after = advance(job, event, at=BEGAN + at)
            times.learn(job, after, at=BEGAN + at, found=trace.found)
        job = after
        told.append((at, job))
    return told
