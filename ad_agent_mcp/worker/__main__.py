"""The worker process: `python -m ad_agent_mcp.worker`, commands on stdin, events on stdout.

Two threads: the reader takes commands off stdin, the main thread runs jobs one at a time. A worker never
outlives its server: it ends when stdin closes, and on Linux the kernel ends it with its parent.
"""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading

from ..config import EngineChoice, Settings
from ..contract.errors import AdAgentError, Cancelled, ErrorCode, ErrorInfo
from ..contract.messages import JobDone, JobFailed, Ready, StartJob, UnloadModels
from ..contract.stages import EngineName
from ..engines import create_engine
from ..engines.base import Engine
from ..files import is_disk_full
from ..imaging.fonts import FontCatalog
from ..logs import configure_logging, current_job_id
from ..pipeline.run import run_job
from .context import JobContext, Wire
from .inbox import Inbox

logger = logging.getLogger(__name__)

NICENESS = 5
"""Below the server, which must answer while a job computes."""


def main() -> None:
    """Run until the server goes away."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server decides
    _die_with_parent()
    wire = Wire.claim_stdout()
    inbox = Inbox()
    threading.Thread(target=inbox.read, args=(sys.stdin.buffer,), daemon=True, name="inbox").start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, process="worker")

    fonts = FontCatalog.with_user_folders(settings.font_dirs)
    engines: dict[EngineName, Engine] = {}
    name = EngineName.DIFFUSION if settings.engine is EngineChoice.DIFFUSION else EngineName.DRAFT
    draft = engines[EngineName.DRAFT] = create_engine(EngineName.DRAFT)
    wire.send(Ready(pid=os.getpid(), engine=name, device=draft.device, presets=draft.presets))
    while (work := inbox.next_work()) is not None:
        match work:
            case StartJob() as job:
                current_job_id.set(job.job_id)
                wire.send(_run(job, engines, fonts, JobContext(job, wire, inbox)))
                current_job_id.set(None)
            case UnloadModels():
                for engine in engines.values():
                    engine.unload()


def _run(
    job: StartJob, engines: dict[EngineName, Engine], fonts: FontCatalog, context: JobContext
) -> JobDone | JobFailed:
    """Run one job to its last word."""
    try:
        engine = engines.get(job.plan.engine)
        if engine is None:
            engine = engines[job.plan.engine] = create_engine(job.plan.engine)
        logger.info("job started")
        checks = run_job(job, engine, context, fonts=fonts)
        logger.info("job finished")
        return JobDone(job_id=job.job_id, checks=checks)
    except Cancelled:
        logger.info("job cancelled")
        error = ErrorInfo(code=ErrorCode.CANCELLED, message="The job was stopped.")
    except AdAgentError as failure:
        logger.warning("job failed: %s", failure.info.code)  # the message may quote the ad's words
        error = failure.info
    except Exception as failure:  # the worker outlives any job: whatever a library raises becomes an error code
        logger.exception("job failed")
        error = _describe(failure)
    return JobFailed(job_id=job.job_id, error=error)


def _describe(failure: Exception) -> ErrorInfo:
    if isinstance(failure, OSError) and is_disk_full(failure):
        return ErrorInfo(
            code=ErrorCode.STORAGE_FULL,
            message="The disk that holds AD_AGENT_DATA_DIR is full. Free some space, then resume this job.",
        )
    if isinstance(failure, MemoryError):
        return ErrorInfo(
            code=ErrorCode.OUT_OF_MEMORY,
            message="The machine ran out of memory. Ask for a smaller width and height, then resume this job.",
        )
    return ErrorInfo(
        code=ErrorCode.ENGINE_FAILED,
        message=f"The engine failed with {type(failure).__name__}: {str(failure)[:500]}. The server's log has the "
        "details; finished steps are kept, so the job can be resumed.",
    )


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere a closed stdin has to do."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died between the two calls
        os._exit(0)


if __name__ == "__main__":
    main()
