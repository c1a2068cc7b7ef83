"""Logging to stderr only (stdout may be the wire), with the job id in every record that has one."""

import contextvars
import logging
import sys

current_job_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("current_job_id", default=None)
"""The job that the running code works for; set by the worker around a job."""


class _JobIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        job_id = getattr(record, "job_id", None) or current_job_id.get()
        record.job = f" [{job_id[:8]}…{job_id[-4:]}]" if job_id else ""
        return True


def configure_logging(level: str, *, process: str) -> None:
    """Send records of `level` and above to stderr, marked with the `process` they come from."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_JobIdFilter())
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s {process} %(levelname)s %(name)s%(job)s: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("mcp").setLevel(max(logging.WARNING, logging.getLogger().level))
