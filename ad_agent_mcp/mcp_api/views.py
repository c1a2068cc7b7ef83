"""A job as clients see it, whole or as a row of a list: made anew for each answer, never stored.

Knows nothing about messages or their size.
"""

import datetime
import math
import time
from collections.abc import Callable
from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from ..contract.call import GenerateRequest
from ..contract.errors import ErrorInfo
from ..contract.notices import shown_in
from ..contract.schemas import Check, JobState, Notice
from ..contract.texts import Language, say, shortened
from ..hardware import SystemMetrics
from ..jobs.job import Job
from ..jobs.store import JobStore

MAX_ENTRIES = 50
"""Of warnings and of checks; no sound job has so many."""
RESULTS = {1: "step1", 2: "step2", 3: "final"}

FileLocator = Callable[[str, str], str]
"""(job id, layer name) to where a client finds the file: a path, or a URL."""


class JobStatus(BaseModel):
    """One job as a client sees it."""

    job_id: str
    status: JobState
    waiting_for: Literal["approval"] | None = None
    progress_percent: int
    current_step: str | None = None
    sub_step: str | None = None
    message: str
    elapsed_sec: float
    eta_seconds: int | None = None
    step_eta_seconds: int | None = None
    system_metrics: SystemMetrics | None = None
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    step1_result: str | None = None
    step2_result: str | None = None
    final_result: str | None = None
    files: dict[str, str | None] = Field(default_factory=dict[str, str | None])
    images: dict[str, str | None] | None = None
    engine: str
    created_at: str
    warnings: list[Notice] = Field(default_factory=list[Notice])
    checks: list[Check] = Field(default_factory=list[Check])
    error: ErrorInfo | None = None


def job_row(job: Job, language: Language = "en") -> dict[str, Any]:
    """One job of many, without a look at its files."""
    return {
        "job_id": job.id,
        "status": job.status,
        "waiting_for": job.waiting_for,
        "progress_percent": int(job.percent),
        "text_content": job.request.text_content,
        "width": job.request.width,
        "height": job.request.height,
        "created_at": _created_at(job),
        "engine": job.engine,
        "final_result": _uri(job, "final") if job.status is JobState.COMPLETED else None,
        "message": shown_in(language, job.error).message if job.error else None,
    }


def row_text(row: dict[str, Any], language: Language) -> str:
    """A row in a line, for hosts that show a model nothing but text."""
    words = row["text_content"]
    state = say("answers.row_state", state=say(f"jobs.state_{row['status']}"), percent=row["progress_percent"])
    return say(
        "answers.row",
        job_id=row["job_id"],
        created=f"{row['created_at'][:16]}Z",
        state=say("answers.row_waits") if row["waiting_for"] else state,
        width=row["width"],
        height=row["height"],
        words=words.replace("\n", " / ")[:80] if words else say("answers.row_without_words"),
    ).in_(language)


def progress_text(job: Job, language: Language) -> str:
    """What the job does now, in few words; in English by the public name of its stage."""
    label = job.sub_step or str(job.waiting_for or job.status)
    return (label if language == "en" else _message(job, language))[:120]


def job_status(
    job: Job, *, store: JobStore, locate: FileLocator, metrics: SystemMetrics | None, language: Language = "en"
) -> JobStatus:
    """`job` as clients see it."""
    now = time.time()
    there = {name: _has_result(job, step, store) for step, name in RESULTS.items()}
    return JobStatus(
        job_id=job.id,
        status=job.status,
        waiting_for=job.waiting_for,
        progress_percent=int(job.percent),
        current_step=job.current_step,
        sub_step=job.sub_step,
        message=_message(job, language),
        elapsed_sec=round(job.elapsed_s(now), 1),
        eta_seconds=_countdown(job.ends_at, now),
        step_eta_seconds=_countdown(job.step_ends_at, now),
        system_metrics=metrics,
        parameters=_parameters(job.request_as_run) if job.steps else {},
        step1_result=_uri(job, "step1") if there["step1"] else None,
        step2_result=_uri(job, "step2") if there["step2"] else None,
        final_result=_uri(job, "final") if there["final"] else None,
        files={name: locate(job.id, name) if there[name] else None for name in RESULTS.values()},
        engine=job.engine,
        created_at=_created_at(job),
        warnings=[shown_in(language, notice) for notice in job.warnings[:MAX_ENTRIES]],
        checks=list(job.checks[:MAX_ENTRIES]),
        error=shown_in(language, job.error) if job.error else None,
    )


def dump(status: JobStatus) -> dict[str, Any]:
    """The status as JSON data, with the public names; texts as long as no sound job has them are cut."""
    return {name: _cut(value) for name, value in status.model_dump(mode="json", by_alias=True).items()}


def _created_at(job: Job) -> str:
    """When the job was accepted, as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(job.created_at, datetime.UTC).isoformat(timespec="milliseconds")


def _has_result(job: Job, step: int, store: JobStore) -> bool:
    """Whether a step's picture is this job's: finished here, or brought along from before."""
    if step == 3:
        return job.status is JobState.COMPLETED and store.layer(job.id, "final") is not None
    brought = step < job.request.start_step
    return (step in job.finished or brought) and store.layer(job.id, RESULTS[step]) is not None


def _cut(value: Any) -> Any:
    match value:
        case str():
            return shortened(value)
        case list():
            return [_cut(entry) for entry in cast(list[Any], value)]
        case dict():
            return {name: _cut(entry) for name, entry in cast(dict[str, Any], value).items()}
        case _:
            return value


def _uri(job: Job, name: str) -> str:
    return f"ad://jobs/{job.id}/{name}.png"


def _countdown(at: float | None, now: float) -> int | None:
    return None if at is None else math.ceil(at - now)


def _parameters(request: GenerateRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in GenerateRequest.model_fields if name != "wait_seconds"}


def _message(job: Job, language: Language) -> str:
    match job.status:
        case JobState.PENDING if job.waiting_for is not None:
            told = say("answers.waits_for_approval", step=job.last_finished)
        case JobState.PENDING:
            told = say("answers.waits_for_turn")
        case JobState.RUNNING if job.loading is not None:
            told = say("answers.loading", model=job.loading)
        case JobState.RUNNING:
            told = say(f"stages.{job.stage}") if job.stage is not None else say("answers.starting")
        case JobState.COMPLETED:
            told = say("answers.finished")
        case JobState.FAILED if job.error is not None:
            return shown_in(language, job.error).message
        case JobState.FAILED:
            told = say("answers.failed")
        case JobState.STOPPED:
            told = say("answers.stopped_with_steps" if job.finished else "answers.stopped")
    return told.in_(language)
