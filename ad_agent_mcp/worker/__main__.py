"""The worker process: `python -m ad_agent_mcp.worker`, commands on stdin, events on stdout.

Two threads: the reader takes commands off stdin, the main thread runs jobs one at a time. For its first seconds a
third one may import what the first job will need. A worker never outlives its server: it ends when stdin closes, and
on Linux the kernel ends it with its parent.
"""

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from ..config import Settings
from ..contract.errors import AdAgentError, Cancelled, ErrorCode, ErrorInfo
from ..contract.messages import EVERY_MODEL, JobDone, JobFailed, ModelMoved, Ready, StartJob, UnloadModels
from ..contract.stages import EngineName
from ..contract.texts import say
from ..engines import create_engine, describe_engine, import_engine
from ..engines.base import Engine
from ..files import folder_trouble, is_disk_full, is_out_of_files
from ..hardware import this_machine
from ..logs import configure_logging, current_job_id
from ..media.fonts import FontCatalog
from ..models.selection import engine_here
from ..pipeline.run import run_job
from .context import JobContext, PreloadReport, Wire
from .inbox import Inbox

logger = logging.getLogger(__name__)

NICENESS = 5
"""Below the server, which must answer while a job computes."""


def main() -> None:
    """Run until the server goes away."""
    faulthandler.enable()
    _leave_signals_to_server()
    _die_with_parent()
    wire = Wire.claim_stdout()
    inbox = Inbox()
    threading.Thread(target=_hear, args=(inbox,), daemon=True, name="inbox").start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, process="worker")

    fonts = FontCatalog(settings.font_dirs)
    engines = _Engines(settings, wire)
    engines.get(EngineName.DRAFT)
    ready = _introduction(settings)
    wire.send(ready)
    if ready.engine is EngineName.DIFFUSION and ready.refusal is None:
        # Beside a draft; a job that needs it waits for the import, or meets its failure and tells its caller.
        threading.Thread(target=import_engine, args=(ready.engine,), daemon=True, name="imports").start()
        if settings.preload:
            engines.preload(PreloadReport(wire, inbox))
    while (work := inbox.next_work()) is not None:
        match work:
            case StartJob() as job:
                current_job_id.set(job.job_id)
                last_word = _run(job, engines, fonts, JobContext(job, wire, inbox))
                if job.plan.engine is not EngineName.DRAFT:
                    engines.tell_if_empty()
                wire.send(last_word)
                if isinstance(last_word, JobFailed) and last_word.ends_worker:
                    os._exit(1)  # an orderly end would call the broken driver
                current_job_id.set(None)
            case UnloadModels():
                engines.unload()


def _hear(inbox: Inbox) -> None:
    """Thread body: a worker that hears nothing any more is of no use, whatever the reason."""
    status = 1
    try:
        status = inbox.read(sys.stdin.buffer)
    except OSError:
        logger.exception("stdin cannot be read")
    finally:
        os._exit(status)


class _Engines:
    """The engines that were asked for so far."""

    def __init__(self, settings: Settings, wire: Wire) -> None:
        self.settings = settings
        self._wire = wire
        self._open: dict[EngineName, Engine] = {}

    def get(self, name: EngineName) -> Engine:
        """The engine called `name`; the first time its libraries are imported, which is told as loading."""
        if name not in self._open:
            if name is not EngineName.DRAFT:
                self._wire.send(ModelMoved(model=name, state="loading"))
            self._open[name] = create_engine(name, self.settings)
        return self._open[name]

    def preload(self, report: PreloadReport) -> None:
        """Bring in what a job begins with. What goes wrong the first job will meet, and tell its caller."""
        try:
            self.get(EngineName.DIFFUSION).preload(report)
        except (Cancelled, AdAgentError, RuntimeError, OSError, ImportError) as why:
            logger.warning("models were not all preloaded: %s", why if str(why) else "a job came")
        self.tell_if_empty()

    def unload(self) -> None:
        """Let go of every model."""
        for engine in self._open.values():
            engine.unload()
        self.tell_if_empty()

    def tell_if_empty(self) -> None:
        """Tell the server when nothing is on the device, however it went."""
        if not any(engine.holds_device for engine in self._open.values()):
            self._wire.send(ModelMoved(model=EVERY_MODEL, state="unloaded"))

    def are_usable(self) -> bool:
        """Whether the next job can run here."""
        return all(engine.is_usable() for engine in self._open.values())


def _introduction(settings: Settings) -> Ready:
    """Which engine this machine gets, and what can be had."""
    machine = this_machine(settings.device_lock)
    choice = engine_here(settings, machine)
    is_draft = choice.engine is EngineName.DRAFT
    names = dict.fromkeys((EngineName.DRAFT, choice.engine) if choice.is_ready else (EngineName.DRAFT,))
    return Ready(
        pid=os.getpid(),
        engine=choice.engine,
        device="cpu" if is_draft or machine.gpu is None else machine.gpu.name,
        presets=("draft" if is_draft else settings.preset,),
        note=choice.reason,
        refusal=None if choice.is_ready else choice.reason,
        engines=tuple(describe_engine(name, settings) for name in names),
    )


def _run(job: StartJob, engines: _Engines, fonts: FontCatalog, context: JobContext) -> JobDone | JobFailed:
    """Run one job to its last word."""
    try:
        logger.info("job started")
        engine = engines.get(job.plan.engine)
        checks = run_job(job, engine, context, fonts=fonts)
        logger.info("job finished")
        return JobDone(job_id=job.job_id, checks=checks)
    except Cancelled:
        logger.info("job cancelled")
        error = AdAgentError(ErrorCode.CANCELLED, say("answers.stopped")).info
    except AdAgentError as failure:
        logger.warning("job failed: %s", failure.info.code)  # the message may quote the ad's words
        error = failure.info
    except Exception as failure:  # the worker outlives any job: whatever a library raises becomes an error code
        logger.exception("job failed")
        error = _describe(failure, engines.settings.data_dir)
    return JobFailed(job_id=job.job_id, error=error, ends_worker=not engines.are_usable())


def _describe(failure: Exception, data_dir: Path) -> ErrorInfo:
    code, told = ErrorCode.ENGINE_FAILED, say("worker.engine_failed", kind=type(failure).__name__)
    if isinstance(failure, OSError) and is_disk_full(failure):
        code, told = ErrorCode.STORAGE_FULL, say("worker.disk_full")
    elif isinstance(failure, OSError) and is_out_of_files(failure):
        told = say("worker.out_of_files")
    elif isinstance(failure, OSError) and str(failure.filename).startswith(str(data_dir)):
        told = say("worker.folder_trouble", trouble=folder_trouble(data_dir, failure))
    elif isinstance(failure, MemoryError):
        code, told = ErrorCode.OUT_OF_MEMORY, say("worker.out_of_memory")
    elif "CUDA error" in str(failure):
        told = say("worker.gpu_failed", reason=str(failure).splitlines()[0][:200])
    return AdAgentError(code, told).info


def _leave_signals_to_server() -> None:
    """Ignore what is sent to a whole group of processes to end it: the server hands the job over, and closes stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


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
