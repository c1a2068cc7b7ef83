"""Every failure a caller can meet, each with a stable code.

One exception class carries them all, because callers act on the code; `Cancelled` is apart because
it must travel through library code that catches `Exception`.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator

from .record import Record

MAX_TEXT_CHARS = 4000
"""The longest message that is made, stored or shown: a library's may hold megabytes, and hide all else."""


def shortened(text: str) -> str:
    """`text` with so much left out of its middle that `MAX_TEXT_CHARS` remain, which is said."""
    if len(text) <= MAX_TEXT_CHARS:
        return text
    head, tail = MAX_TEXT_CHARS * 3 // 4, MAX_TEXT_CHARS // 5
    return f"{text[:head]} [... {len(text) - head - tail:,} characters left out ...] {text[-tail:]}"


MessageText = Annotated[str, AfterValidator(shortened)]
"""What is told to people and agents, wherever it comes from: made here, sent over the pipe, or read from disk."""


class ErrorCode(StrEnum):
    """The public error codes."""

    INVALID_REQUEST = "invalid_request"
    BUSY = "busy"
    NOT_FOUND = "not_found"
    MODEL_UNAVAILABLE = "model_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    ENGINE_FAILED = "engine_failed"
    CHECK_FAILED = "check_failed"
    WORKER_CRASHED = "worker_crashed"
    WORKER_STALLED = "worker_stalled"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    STORAGE_FULL = "storage_full"


class Fix(Record):
    """A tool call that an agent can make as it stands."""

    tool: str
    arguments: dict[str, Any]


class ErrorInfo(Record):
    """One failure as it crosses the pipe, lies on disk and is shown to a client."""

    code: ErrorCode
    message: MessageText
    retry_after_seconds: int | None = None
    job_id: str | None = None
    field: str | None = None
    fix: Fix | None = None


class AdAgentError(Exception):
    """Raised when something anticipated went wrong; the message says what to do next."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        job_id: str | None = None,
        field: str | None = None,
        fix: Fix | None = None,
    ) -> None:
        super().__init__(message)
        self.info = ErrorInfo(
            code=code,
            message=message,
            retry_after_seconds=retry_after_seconds,
            job_id=job_id,
            field=field,
            fix=fix,
        )


def invalid(message: str, *, field: str | None = None, fix: Fix | None = None) -> AdAgentError:
    """The error for a request that cannot be served as it stands."""
    return AdAgentError(ErrorCode.INVALID_REQUEST, message, field=field, fix=fix)


class Cancelled(BaseException):
    """Raised when the caller stopped the job. Not an `Exception`, so that no library swallows it."""
