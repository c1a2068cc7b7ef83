"""What clients are told: jobs, errors and pictures as tool results, none larger than one message may be."""

import base64
import datetime
import math
import time
from collections.abc import Callable
from typing import Any, cast

from mcp.types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from ..contract.errors import ErrorCode, ErrorInfo, shortened
from ..contract.schemas import GenerateRequest, JobState, JobStatus, SystemMetrics
from ..contract.stages import STAGES
from ..jobs.job import Job
from ..jobs.store import JobStore

MAX_MESSAGE_BYTES = 900_000
"""Larger messages kill Python clients over SSE and are refused by Claude Desktop."""
ENVELOPE_BYTES = 20_000
"""Room for everything around a picture: JSON-RPC, the status, its text."""
MAX_PICTURE_BYTES = (MAX_MESSAGE_BYTES - ENVELOPE_BYTES) * 3 // 4
MAX_ENTRIES = 50
"""Of warnings and of checks; no sound job has so many."""
RESULTS = {1: "step1", 2: "step2", 3: "final"}

FileLocator = Callable[[str, str], str]
"""(job id, layer name) to where a client finds the file: a path, or a URL."""


def job_status(job: Job, *, store: JobStore, locate: FileLocator, metrics: SystemMetrics | None) -> JobStatus:
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
        message=_message(job),
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
        created_at=created_at(job),
        warnings=list(job.warnings[:MAX_ENTRIES]),
        checks=list(job.checks[:MAX_ENTRIES]),
        error=job.error,
    )


def created_at(job: Job) -> str:
    """When the job was accepted, as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(job.created_at, datetime.UTC).isoformat(timespec="milliseconds")


def status_result(status: JobStatus, *, preview: bytes | None = None, note: str = "") -> CallToolResult:
    """A job's status as a tool result: words for the model, a preview for the eye, the data beside them."""
    content: list[ContentBlock] = [TextContent(type="text", text=_describe(status) + (f"\n{note}" if note else ""))]
    if preview is not None:
        content.append(picture(preview, "jpeg"))
    if status.final_result is not None:
        content.append(
            ResourceLink(
                type="resource_link",
                name="final.png",
                uri=status.final_result,
                mime_type="image/png",
                description="The finished ad at full size",
            )
        )
    return CallToolResult(content=content, structured_content=dump(status))


def data_result(data: dict[str, Any], text: str) -> CallToolResult:
    """Plain data as a tool result."""
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=data)


def error_result(info: ErrorInfo) -> CallToolResult:
    """A failure as a tool result: the text says what to do next, the data holds the code."""
    text = f"{info.code}: {info.message}"
    if info.fix is not None:
        text += f"\nNext: call {info.fix.tool} with {info.fix.arguments}."
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content={"error": info.model_dump(mode="json")},
        is_error=True,
    )


def picture(data: bytes, picture_format: str) -> ImageContent:
    """One picture as a content block."""
    return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type=f"image/{picture_format}")


def within_budget(result: CallToolResult) -> CallToolResult:
    """`result`, or the error that it would be too large: the last guard, which should never act."""
    size = len(result.model_dump_json(by_alias=True, exclude_none=True).encode())
    if size <= MAX_MESSAGE_BYTES:
        return result
    return error_result(
        ErrorInfo(
            code=ErrorCode.INVALID_REQUEST,
            message=f"The answer would have {size:,} bytes; messages end at {MAX_MESSAGE_BYTES:,}. Ask for less: a "
            "smaller max_side, include_images preview, or fewer jobs.",
        )
    )


def dump(status: JobStatus) -> dict[str, Any]:
    """The status as JSON data, with the public names; texts as long as no sound job has them are cut."""
    return {name: _cut(value) for name, value in status.model_dump(mode="json", by_alias=True).items()}


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


def _message(job: Job) -> str:
    match job.status:
        case JobState.PENDING if job.waiting_for is not None:
            return f"Step {job.last_finished} is finished and waits for approval."
        case JobState.PENDING:
            return "Waiting for its turn."
        case JobState.RUNNING if job.loading is not None:
            return f"Loading {job.loading}..."
        case JobState.RUNNING if job.stage is not None:
            return f"{STAGES[job.stage].message}..."
        case JobState.RUNNING:
            return "Starting..."
        case JobState.COMPLETED:
            return "The ad is finished."
        case JobState.FAILED:
            return job.error.message if job.error else "The job failed."
        case JobState.STOPPED:
            return "The job was stopped; finished steps are kept." if job.finished else "The job was stopped."


def _describe(status: JobStatus) -> str:
    """The status in a few lines that also say what to do next."""
    lines = [f"Job {status.job_id}: {status.status}, {status.progress_percent} %. {status.message}"]
    match status.status:
        case JobState.RUNNING | JobState.PENDING if status.waiting_for is None:
            if status.eta_seconds is not None:
                rest = status.eta_seconds
                lines[0] += f" About {rest} s left." if rest >= 0 else f" {-rest} s over the estimate."
            lines.append(f"Next: status(job_id={status.job_id!r}, wait_seconds=45) to follow it.")
        case JobState.PENDING:
            lines.append(
                f"Next: show the picture to the person, then approve_step(job_id={status.job_id!r}, "
                "action='approve', or 'redo' with changes, or 'stop')."
            )
        case JobState.FAILED | JobState.STOPPED:
            if status.step1_result:
                lines.append(f"Next: generate(resume_job_id={status.job_id!r}) goes on from the last finished step.")
        case _:
            pass
    lines += [f"{name}: {place}" for name, place in status.files.items() if place]
    lines += [f"Warning ({notice.code}): {notice.message}" for notice in status.warnings]
    lines += [
        f"Check {check.name}: {'passed' if check.passed else 'FAILED'} ({check.value}, limit {check.limit})"
        for check in status.checks
        if check.passed is not None
    ]
    return "\n".join(map(shortened, lines))
