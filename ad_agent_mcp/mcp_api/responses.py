"""What clients are told: jobs, errors and pictures as tool results, none larger than one message may be."""

import base64

from mcp.types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel

from ..contract.errors import ErrorCode, ErrorInfo
from ..contract.notices import shown_in
from ..contract.schemas import JobState
from ..contract.texts import Language, shortened
from .views import JobStatus, dump

MAX_MESSAGE_BYTES = 900_000
"""Larger messages kill Python clients over SSE and are refused by Claude Desktop."""
ENVELOPE_BYTES = 20_000
"""Room for everything around a picture: JSON-RPC, the status, its text."""
MAX_PICTURE_BYTES = (MAX_MESSAGE_BYTES - ENVELOPE_BYTES) * 3 // 4


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


def data_result(data: BaseModel, text: str) -> CallToolResult:
    """Plain data as a tool result."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=data.model_dump(mode="json")
    )


def error_result(info: ErrorInfo, language: Language = "en") -> CallToolResult:
    """A failure as a tool result: the text says what to do next, the data holds the code."""
    info = shown_in(language, info)
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
