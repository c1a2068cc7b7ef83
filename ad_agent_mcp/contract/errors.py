"""Every failure a caller can meet, each with a stable code.

One exception class carries them all, because callers act on the code; `Cancelled` is apart because
it must travel through library code that catches `Exception`.
"""

from enum import StrEnum
from typing import Any

from .record import Record
from .texts import KeptText, MessageText, Text


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
    text: KeptText = None


class AdAgentError(Exception):
    """Raised when something anticipated went wrong; the message says what to do next."""

    def __init__(
        self,
        code: ErrorCode,
        said: Text,
        *,
        retry_after_seconds: int | None = None,
        job_id: str | None = None,
        field: str | None = None,
        fix: Fix | None = None,
    ) -> None:
        message = str(said)
        super().__init__(message)
        self.info = ErrorInfo(
            code=code,
            message=message,
            retry_after_seconds=retry_after_seconds,
            job_id=job_id,
            field=field,
            fix=fix,
            text=said,
        )

    @property
    def text(self) -> Text | None:
        """What the message is made from."""
        return self.info.text


def invalid(said: Text, *, field: str | None = None, fix: Fix | None = None) -> AdAgentError:
    """The error for a request that cannot be served as it stands."""
    return AdAgentError(ErrorCode.INVALID_REQUEST, said, field=field, fix=fix)


class Cancelled(BaseException):
    """Raised when the caller stopped the job. Not an `Exception`, so that no library swallows it."""
