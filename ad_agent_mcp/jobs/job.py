"""The state of a job as a value, and the pure functions that move it.

A terminal job never changes and progress never goes back. Times are seconds since the epoch.
"""

import os
import time
import uuid
from typing import Annotated, Any, Literal, NamedTuple, assert_never, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..contract.call import GenerateRequest
from ..contract.errors import ErrorCode, ErrorInfo
from ..contract.messages import JobDone, JobEvent, JobFailed, JobNotice, ModelMoved, StageProgress, StepResult
from ..contract.schemas import Check, JobState, Notice
from ..contract.stages import STAGES, STEP_NAMES, STEP_SHARES, EngineName, Plan, Stage
from ..contract.texts import Text, say

MAX_TIME_S = 253_402_300_799.0
"""The end of the year 9999, after which there are no dates."""


class Estimate(NamedTuple):
    """Seconds of one stage: until its models are there, and of its own work, saving included."""

    lead_s: float
    work_s: float

    @property
    def whole_s(self) -> float:
        return self.lead_s + self.work_s


class Decision(BaseModel):
    """What was decided about a finished step, by the person themself or by their client in their name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    action: Literal["approve", "redo", "stop"]
    by: Literal["person", "client"]
    at: float


class Job(BaseModel):
    """One job. `steps` is all it has to run; `plan` the part that the worker was given last."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: str
    status: JobState = JobState.PENDING
    waiting_for: Literal["approval"] | None = None
    request: GenerateRequest
    given: frozenset[str] = frozenset()
    """Arguments that the caller set, in this call or in those that it goes on from; the others are defaults."""
    preset_values: dict[str, int] = Field(default_factory=dict[str, int])
    """Arguments that the caller did not give and that the preset has a value of its own for."""
    engine: EngineName
    steps: tuple[Annotated[int, Field(ge=1, le=3)], ...]
    """None where nothing is known of what was asked for."""
    plan: Plan | None = None
    """None where no worker has told yet what its engine does."""
    expected: dict[Stage, Estimate] = Field(default_factory=dict[Stage, Estimate])
    """What each stage of the plan should take."""

    stage: Stage | None = None
    done: int = 0
    total: int = 1
    loading: str | None = None
    """The model that is being loaded, if one is."""
    percent: float = 0.0
    stage_since: float | None = None
    """When the stage began; for the first one, when the job did."""
    work_since: float | None = None
    """When the stage had its models."""
    ends_at: float | None = None
    step_ends_at: float | None = None

    finished: dict[int, dict[str, str]] = Field(default_factory=dict[int, dict[str, str]])
    """Finished steps: their layers' names with their SHA-256."""
    warnings: tuple[Notice, ...] = ()
    checks: tuple[Check, ...] = ()
    error: ErrorInfo | None = None

    created_at: Annotated[float, Field(ge=0, le=MAX_TIME_S)]
    running_since: float | None = None
    ran_s: float = 0.0
    owner: str = ""
    """The server that answers for it while it is not terminal."""
    retries: int = 0
    """How often it was continued after a server's death."""
    decisions: tuple[Decision, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_0_1_stored_it(cls, stored: Any) -> Any:
        """0.1 did not say what was given, but stored nothing else of a request."""
        if not isinstance(stored, dict) or "given" in stored:
            return cast(object, stored)
        job = cast(dict[str, Any], stored)
        request = job.get("request")
        given = request.model_fields_set if isinstance(request, GenerateRequest) else request or ()
        return {**job, "given": list(given)}

    @property
    def asked_at(self) -> float:
        """When somebody last wanted it to run."""
        return max([self.created_at, *(decision.at for decision in self.decisions)])

    @property
    def last_finished(self) -> int:
        """The latest of the finished steps; 0 while there is none."""
        return max(self.finished, default=0)

    @property
    def request_as_run(self) -> GenerateRequest:
        return self.request.model_copy(update=self.preset_values)

    @property
    def remaining_steps(self) -> tuple[int, ...]:
        return tuple(step for step in self.steps if step not in self.finished)

    @property
    def sub_step(self) -> str | None:
        if self.status is not JobState.RUNNING:
            return None
        if self.loading is not None:
            return f"loading_{self.loading}"
        if self.stage is None:
            return "starting"
        planned = self.plan.stages if self.plan else ()
        label = next((one.label for one in planned if one.stage is self.stage), "")
        return f"{label or self.stage} ({self.done}/{self.total})"

    @property
    def current_step(self) -> str | None:
        if self.stage is not None:
            return STEP_NAMES[STAGES[self.stage].step]
        remaining = self.remaining_steps
        return STEP_NAMES[remaining[0]] if remaining else None

    def elapsed_s(self, at: float) -> float:
        return self.ran_s + (max(0.0, at - self.running_since) if self.running_since is not None else 0.0)


def new_job_id() -> str:
    """A UUID whose text sorts by creation time (RFC 9562 version 7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def steps_to_run(request: GenerateRequest) -> tuple[int, ...]:
    """The steps a request asks for. Without words only the scene remains."""
    last = 3 if request.text_content else 1
    return tuple(range(request.start_step, last + 1))


def share_of(job: Job, step: int) -> tuple[float, float]:
    """Percent at which `step` begins and ends; a job of the first step alone has all of it."""
    if job.steps == (1,):
        return (0.0, 100.0)
    low, high = STEP_SHARES[step]
    return (float(low), float(high))


def start(job: Job, plan: Plan | None, expected: dict[Stage, Estimate], *, at: float, owner: str) -> Job:
    """The job as it goes to the worker with `plan`, or waits for one that says what it does: then there is no plan.

    Its percentage stays where it was, or goes up.
    """
    remaining = job.remaining_steps
    low = share_of(job, remaining[0])[0] if remaining else 0.0
    first_step = STAGES[plan.stages[0].stage].step if plan and plan.stages else 0
    return job.model_copy(
        update={
            "status": JobState.RUNNING,
            "waiting_for": None,
            "plan": plan,
            "expected": expected,
            "stage": None,
            "loading": None,
            "percent": max(job.percent, low),
            "stage_since": at,
            "ends_at": at + sum(stage.whole_s for stage in expected.values()) if plan else None,
            "step_ends_at": at + sum(expected[stage].whole_s for stage in expected if STAGES[stage].step == first_step)
            if plan
            else None,
            "error": None,
            "running_since": at,
            "owner": owner,
        }
    )


def advance(job: Job, event: JobEvent, *, at: float) -> Job:
    """The job after `event`. A job that is not running, another job's event, or one that cannot be: unchanged."""
    if job.status is not JobState.RUNNING or event.job_id != job.id or fault_of(job, event) is not None:
        return job
    match event:
        case StageProgress():
            return _progress(job, event, at)
        case StepResult(step=step, files=files):
            high = share_of(job, step)[1]
            last = not [other for other in job.remaining_steps if other > step]
            percent = max(job.percent, min(high, 99.0) if last else high)
            return job.model_copy(update={"finished": {**job.finished, step: files}, "percent": percent})
        case JobNotice(code=code, message=message, text=text):
            notice = Notice(code=code, message=message, text=text)
            return job if notice in job.warnings else job.model_copy(update={"warnings": (*job.warnings, notice)})
        case JobDone(checks=checks):
            waits = bool(job.remaining_steps)
            return _halt(
                job,
                at,
                status=JobState.PENDING if waits else JobState.COMPLETED,
                waiting_for="approval" if waits else None,
                percent=job.percent if waits else 100.0,
                checks=checks or job.checks,
            )
        case JobFailed(error=error, checks=checks):
            return fail(job.model_copy(update={"checks": checks or job.checks}), error, at=at)
        case _:
            assert_never(event)


def fault_of(job: Job, event: JobEvent) -> Text | None:
    """What a worker cannot mean by `event` about the job that it runs, or None."""
    planned = job.plan.steps if job.plan is not None else ()
    match event:
        case StepResult(step=step) if step not in planned:
            return say("worker.other_step", step=step)
        case JobDone() if missing := [step for step in planned if step not in job.finished]:
            return say("worker.step_missing", step=missing[0])
        case _:
            return None


def move_model(job: Job, event: ModelMoved, *, at: float) -> Job:
    """The job whose stage waits for a model, or has it now."""
    job = job.model_copy(update={"loading": event.model if event.state == "loading" else None})
    if event.state != "loaded" or job.stage is None or job.done > 0:
        return job
    return _estimated(job.model_copy(update={"work_since": at}), job.stage, at)


def fail(job: Job, error: ErrorInfo, *, at: float) -> Job:
    """The job ended early: stopped when it was asked to, else failed with `error`."""
    if job.status.is_terminal:
        return job
    if error.code is ErrorCode.CANCELLED:
        return _halt(job, at, status=JobState.STOPPED, waiting_for=None)
    return _halt(job, at, status=JobState.FAILED, waiting_for=None, error=error.model_copy(update={"job_id": job.id}))


def redo(job: Job, request: GenerateRequest, *, given: frozenset[str], step: int) -> Job:
    """The job with its last finished step, `step`, to be made again as `request` says."""
    return job.model_copy(
        update={
            "request": request,
            "given": given,
            "steps": steps_to_run(request),
            "finished": {done: files for done, files in job.finished.items() if done != step},
            "percent": 0.0,
            "warnings": () if step == 1 else job.warnings,
        }
    )


def requeue(job: Job, *, at: float, owner: str, is_retry: bool) -> Job:
    """A job whose server is gone, ready to continue from its last finished step; `is_retry`: that cut it off."""
    halted = _halt(job, at, status=JobState.PENDING)
    return halted.model_copy(update={"owner": owner, "retries": job.retries + is_retry})


def _halt(job: Job, at: float, **changes: object) -> Job:
    return job.model_copy(
        update={
            "stage": None,
            "loading": None,
            "stage_since": None,
            "work_since": None,
            "ends_at": None,
            "step_ends_at": None,
            "running_since": None,
            "ran_s": job.elapsed_s(at),
            **changes,
        }
    )


def _progress(job: Job, event: StageProgress, at: float) -> Job:
    if job.plan is None or event.stage not in job.expected:
        return job
    order = [planned.stage for planned in job.plan.stages]
    if job.stage is not None and order.index(event.stage) < order.index(job.stage):
        return job
    done = min(event.done, event.total)
    changes: dict[str, object] = {"stage": event.stage, "done": done, "total": event.total, "loading": None}
    if event.stage is not job.stage:
        changes |= {"stage_since": at if job.stage else job.stage_since, "work_since": at}
    return _estimated(job.model_copy(update=changes), event.stage, at)


def _estimated(job: Job, stage: Stage, at: float) -> Job:
    """The job, which is in `stage`, with its percentage and what is left of it."""
    low, high = share_of(job, STAGES[stage].step)
    order = list(job.expected)
    here = order.index(stage)
    lead_s, work_s = job.expected[stage]
    passed_s = lead_s if job.done or job.stage_since is None else min(lead_s, at - job.stage_since)
    passed_s += work_s * min(1.0, job.done / job.total)
    of_step = [other for other in order if STAGES[other].step == STAGES[stage].step]
    before_s = sum(job.expected[other].whole_s for other in of_step if order.index(other) < here)
    whole_s = sum(job.expected[other].whole_s for other in of_step) or 1.0
    ends_at = at + lead_s + work_s - passed_s
    return job.model_copy(
        update={
            "percent": max(job.percent, min(low + (high - low) * (before_s + passed_s) / whole_s, 99.0)),
            "ends_at": ends_at + sum(job.expected[other].whole_s for other in order[here + 1 :]),
            "step_ends_at": ends_at
            + sum(job.expected[other].whole_s for other in of_step if order.index(other) > here),
        }
    )
