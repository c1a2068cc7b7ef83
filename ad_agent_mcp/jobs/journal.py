"""The states of this server's jobs on their way to the disk, and who is told of them.

A state is shown when the disk has it, or cannot take it: then this process remembers it and tries again. Nobody waits
for the disk but who asks to. Of the states of one job that wait, only the latest is written, with all that the others
wanted of the disk. Knows nothing about workers.
"""

import logging
import math
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from .counters import Counters
from .job import Job
from .store import JobStore

logger = logging.getLogger(__name__)

RETRY_EVERY_S = 0.5


@dataclass
class _Entry:
    """One state that waits for the disk; `written` comes when the disk has it, or could not take it."""

    job: Job
    is_saved: bool
    is_durable: bool
    step1: str | None
    written: anyio.Event = field(default_factory=anyio.Event)


class Journal:
    """Owned by the job service; one task, `run`, does all of its writing, so that states are kept in their order."""

    def __init__(self, store: JobStore, counters: Counters) -> None:
        self._store = store
        self._counters = counters
        self._due: dict[str, _Entry] = {}
        self._now: _Entry | None = None
        """What is being written."""
        self._is_due = anyio.Event()
        self._shown: dict[str, Job] = {}
        """Jobs that a worker has, and those whose state the disk could not take."""
        self._unsaved: set[str] = set()
        self._changed = anyio.Event()
        self._changed_ids: set[str] = set()

    def put(
        self, job: Job, *, is_saved: bool = True, is_durable: bool = False, step1: str | None = None
    ) -> anyio.Event:
        """Take a state; what comes back is set when it is shown.

        Args:
            job: the state.
            is_saved: whether the disk is to have it; else it is only shown, in its turn.
            is_durable: whether it is to outlive a power cut, too.
            step1: SHA-256 of step 1's picture, to find the job by.
        """
        entry = self._due.get(job.id)
        if entry is None:
            entry = self._due[job.id] = _Entry(job, is_saved, is_durable, step1)
        else:
            entry.job, entry.step1 = job, step1 or entry.step1
            entry.is_saved, entry.is_durable = entry.is_saved or is_saved, entry.is_durable or is_durable
        self._is_due.set()
        return entry.written

    async def keep(self, job: Job) -> None:
        """Put a state, and wait until the disk has it, or could not take it."""
        await self.put(job, is_durable=True).wait()

    async def written(self, job_id: str) -> None:
        """Wait until every state of the job that was put is shown."""
        for entry in (self._now, self._due.get(job_id)):
            if entry is not None and entry.job.id == job_id:
                await entry.written.wait()

    def shown(self, job_id: str) -> Job | None:
        """A job that the disk does not know as it stands."""
        return self._shown.get(job_id)

    def is_unsaved(self, job_id: str) -> bool:
        """Whether the disk could not take the state of this job."""
        return job_id in self._unsaved

    def tell(self, job: Job) -> None:
        """Let everybody know that the job has changed."""
        if job.status.is_terminal:  # told once: a job that is over does not change any more
            self._counters.ended[job.engine, job.status] += 1
        self._changed_ids.add(job.id)
        self.wake()

    def wake(self) -> None:
        """Let whoever waits for a change look again."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    @property
    def changed(self) -> anyio.Event:
        """Set at the next change of any job."""
        return self._changed

    async def changed_jobs(self) -> set[str]:
        """Wait until jobs have changed since the last call, and tell which. For one caller."""
        while not self._changed_ids:
            await self._changed.wait()
        changed, self._changed_ids = self._changed_ids, set()
        return changed

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        retry_at = math.inf
        while True:
            with anyio.CancelScope(deadline=retry_at):
                await self._is_due.wait()
            self._is_due = anyio.Event()
            if anyio.current_time() >= retry_at:
                for job_id in self._unsaved - self._due.keys():
                    await self._write(_Entry(self._shown[job_id], is_saved=True, is_durable=True, step1=None))
                retry_at = math.inf
            await self._write_due()
            if self._unsaved:
                retry_at = min(retry_at, anyio.current_time() + RETRY_EVERY_S)

    async def flush(self, timeout_s: float) -> None:
        """Wait until what is due is written, as far as the disk takes it within the time."""
        with anyio.move_on_after(timeout_s):
            for entry in (self._now, *self._due.values()):
                if entry is not None:
                    await entry.written.wait()

    async def _write_due(self) -> None:
        while self._due:
            self._now = entry = self._due.pop(next(iter(self._due)))
            if entry.is_saved:
                await self._write(entry)
            self._show(entry.job)
            entry.written.set()

    async def _write(self, entry: _Entry) -> None:
        """Bring one state to the disk; trouble of any kind makes this process remember it instead."""
        job = entry.job
        is_told = job.id in self._unsaved
        try:
            await anyio.to_thread.run_sync(partial(self._store.save, job, durable=entry.is_durable))
            if entry.step1 is not None:
                await anyio.to_thread.run_sync(self._store.remember_step1, entry.step1, job.id)
        except FileNotFoundError:  # somebody deleted its folder, which is their right
            await anyio.to_thread.run_sync(self._store.forget_marker, job.id)
            logger.warning("the job's folder is gone", extra={"job_id": job.id})
        except Exception as error:  # a job whose end could not be kept would hold its place for ever
            if not is_told:
                trace = not isinstance(error, OSError)
                logger.error("the job's state was not saved: %s", error, exc_info=trace, extra={"job_id": job.id})
            self._unsaved.add(job.id)
            self._shown[job.id] = job
            return
        self._unsaved.discard(job.id)
        if _rests(job):
            self._shown.pop(job.id, None)

    def _show(self, job: Job) -> None:
        if not _rests(job):
            self._shown[job.id] = job
        self.tell(job)


def _rests(job: Job) -> bool:
    """Whether nothing happens to the job by itself: what the disk says of it is all there is."""
    return job.status.is_terminal or job.waiting_for is not None
