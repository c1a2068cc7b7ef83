"""Logging to stderr only (stdout may be the wire), with the job id in every record that has one."""

import contextvars
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

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
    logging.getLogger("mcp").setLevel(max(logging.WARNING, logging.getLogger().level))
