"""Logging to stderr only (stdout may be the wire), with the job id in every record that has one."""

import contextvars
import io
import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, TextIO, cast

logger = logging.getLogger(__name__)

current_job_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("current_job_id", default=None)
"""The job that the running code works for; set by the worker around a job."""


class _JobIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        job_id = getattr(record, "job_id", None) or current_job_id.get()
        record.job_id = job_id
        record.job = f" [{job_id[:8]}…{job_id[-4:]}]" if job_id else ""
        return True


class _JsonFormatter(logging.Formatter):
    """One JSON object a line; `job_id` and `exception` only where there is one."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            "job_id": getattr(record, "job_id", None),
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in entry.items() if value is not None}, ensure_ascii=False)


def configure_logging(level: str, log_format: Literal["text", "json"], *, process: str) -> None:
    """Send records of `level` and above to stderr, marked with the `process` they come from."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_JobIdFilter())
    text = logging.Formatter(f"%(asctime)s {process} %(levelname)s %(name)s%(job)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(text if log_format == "text" else _JsonFormatter(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("mcp", "sse_starlette"):  # they tell what is sent, with people's words and pictures in it
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


MAX_WAITING_BYTES = 1 << 20
"""What is kept of a log that nobody reads."""
FLUSH_S = 1.0
"""How long the end of a process waits for its last lines to be read."""


@contextmanager
def unblocked_stderr() -> Generator[None]:
    """`sys.stderr` that never waits for its reader, for the length of the block; records go there too.

    A client that does not read our stderr fills its pipe, and the next write would wait for ever: on the event loop,
    whoever writes there. When the block ends, the last lines are waited for, `FLUSH_S` at most.
    """
    try:
        plain, queued = sys.stderr, LineQueue(sys.stderr.fileno())
    except (AttributeError, OSError):  # there is no stderr, or it is no file
        yield
        return
    _send_to(cast(TextIO, queued))
    try:
        yield
    finally:
        if queued.drain(FLUSH_S):  # else what comes yet, a traceback perhaps, must not wait either
            _send_to(plain)


def _send_to(stream: TextIO) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            cast(logging.StreamHandler[TextIO], handler).setStream(stream)
    sys.stderr = stream


class LineQueue(io.TextIOBase):
    """Text stream that writes whole lines to a descriptor from a thread of its own.

    Its writers never wait: what does not fit in `MAX_WAITING_BYTES` is dropped, line by line, and the number of dropped
    lines is logged when there is room again. Written by any thread; the thread alone touches the descriptor.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        if sys.platform != "win32":
            os.set_blocking(descriptor, True)
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._begun = ""
        self._dropped_lines = 0
        threading.Thread(target=self._run, daemon=True, name="stderr").start()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._changed:
            whole, end, begun = (self._begun + text).rpartition("\n")
            self._begun = begun[:MAX_WAITING_BYTES]
            self._put(whole + end)
        return len(text)

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is written; False when it was not in time."""
        with self._changed:
            self._put(self._begun)
            self._begun = ""
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)

    def _put(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        if self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
            self._dropped_lines += text.count("\n")
        elif data:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting.popleft()
            self._write_out(data)
            with self._changed:
                self._waiting_bytes -= len(data)
                dropped_lines = 0 if self._waiting else self._dropped_lines
                self._dropped_lines -= dropped_lines
                self._changed.notify_all()
            if dropped_lines:
                logger.warning("%d lines of the log were dropped: nobody read them in time", dropped_lines)

    def _write_out(self, data: bytes) -> None:
        """Write everything, however long its reader takes; nothing more when there is none any more."""
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]
