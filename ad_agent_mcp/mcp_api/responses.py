"""What clients are told: jobs, errors and pictures as tool results, none larger than one message may be."""

import base64

from mcp.types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel

from ..contract.errors import ErrorInfo, invalid
from ..contract.notices import shown_in
from ..contract.schemas import JobState
from ..contract.texts import Language, Text, say, shortened
from .views import JobStatus, dump

MAX_MESSAGE_BYTES = 900_000
"""Larger messages kill Python clients over SSE and are refused by Claude Desktop."""
ENVELOPE_BYTES = 20_000
"""Room for everything around a picture: JSON-RPC, the status, its text."""
MAX_PICTURE_BYTES = (MAX_MESSAGE_BYTES - ENVELOPE_BYTES) * 3 // 4


def status_result(
    status: JobStatus, language: Language = "en", *, preview: bytes | None = None, note: Text | str = ""
) -> CallToolResult:
    """A job's status as a tool result: words for the model, a preview for the eye, the data beside them."""
    lines = [*_describe(status), note] if note else _describe(status)
    text = "\n".join(shortened(line.in_(language) if isinstance(line, Text) else line) for line in lines)
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    if preview is not None:
        content.append(picture(preview, "jpeg"))
    if status.final_result is not None:
        content.append(
            ResourceLink(
                type="resource_link",
                name="final.png",
                uri=status.final_result,
                mime_type="image/png",
                description=say("answers.final_picture").in_(language),
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
        following = say("answers.next_fix", tool=info.fix.tool, arguments=info.fix.arguments)
        text += f"\n{following.in_(language)}"
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content={"error": info.model_dump(mode="json")},
        is_error=True,
    )


def picture(data: bytes, picture_format: str) -> ImageContent:
    """One picture as a content block."""
    return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type=f"image/{picture_format}")


def within_budget(result: CallToolResult, language: Language = "en") -> CallToolResult:
    """`result`, or the error that it would be too large: the last guard, which should never act."""
    size = len(result.model_dump_json(by_alias=True, exclude_none=True).encode())
    if size <= MAX_MESSAGE_BYTES:
        return result
    return error_result(invalid(say("answers.too_large", size=size, most=MAX_MESSAGE_BYTES)).info, language)


def _describe(status: JobStatus) -> list[Text | str]:
    """The status in a few lines that also say what to do next."""
    known = {"job_id": status.job_id, "state": say(f"jobs.state_{status.status}")}
    first = say("answers.job", **known, percent=status.progress_percent, message=status.message)
    lines = list[Text | str]()
    named = repr(status.job_id)
    match status.status:
        case JobState.RUNNING | JobState.PENDING if status.waiting_for is None:
            if (rest := status.eta_seconds) is not None:
                first = say("answers.time_left" if rest >= 0 else "answers.time_over", line=first, seconds=abs(rest))
            lines.append(say("answers.next_follow", job_id=named))
        case JobState.PENDING:
            lines.append(say("answers.next_approve", job_id=named))
        case JobState.FAILED | JobState.STOPPED if status.step1_result:
            lines.append(say("answers.next_resume", job_id=named))
        case _:
            pass
    lines += [f"{name}: {place}" for name, place in status.files.items() if place]
    lines += [say("answers.warning", code=notice.code, message=notice.message) for notice in status.warnings]
    lines += [
        say(
            "answers.check_passed" if check.passed else "answers.check_failed",
            name=check.name,
            value=check.value,
            limit=check.limit,
        )
        for check in status.checks
        if check.passed is not None
    ]
    return [first, *lines]
