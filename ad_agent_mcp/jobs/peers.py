"""Other servers on the same data folder: who lives, who has the device, whose jobs were cut off.

Every server holds a lock of its own for as long as it lives; the system lets go of it when the server dies. Who ends
in order takes the lock's file along, so a file that nobody holds tells of a death. Everything here blocks on the disk.
"""

import contextlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from ..contract.errors import AdAgentError
from ..contract.schemas import JobState
from ..files import FileLock
from .data_folder import DataFolderError, telling_trouble_of
from .errors import interrupted
from .job import Job, fail, requeue
from .store import JobStore, UnreadableJobError

logger = logging.getLogger(__name__)

_SERVER_ID = re.compile("[0-9a-f]{12}")


class Peers:
    """This server among the others. Owns its lock and, while a job of ours runs or models are loaded, the device's."""

    def __init__(self, store: JobStore, device_lock: Path, *, resume_max_age_s: float) -> None:
        self.server_id = uuid.uuid4().hex[:12]
        self._store = store
        self._resume_max_age_s = resume_max_age_s
        self._own_lock = FileLock(self._lock_path(self.server_id))
        self._device_lock = FileLock(device_lock)
        self._device_trouble = ""
        """Why the device's lock could not be taken when last tried: told in one line for as long as it lasts."""

    def join(self) -> None:
        """Be seen alive.

        Raises:
            DataFolderError: the lock file cannot be made.
        """
        with telling_trouble_of(self._store.root):
            self._store.make_folders()
            while not (self._own_lock.try_acquire(str(os.getpid())) and self._own_lock.path.exists()):
                self._own_lock.release()  # who clears up took the file, still unheld, for that of a dead server

    def leave(self) -> None:
        """Be gone in order: what still runs is handed back."""
        self._device_lock.release()
        self._own_lock.release()
        with contextlib.suppress(OSError):
            self._own_lock.path.unlink(missing_ok=True)

    def take_device(self, job_id: str) -> bool:
        """Take the device for a job (none: an empty id) or go on having it; False while another server has it."""
        note = {"server": self.server_id, "pid": os.getpid(), "job_id": job_id}
        try:
            self._store.make_folders()
            self._own_lock.try_acquire(str(os.getpid()))  # its file may have gone with the folder
            is_ours = self._device_lock.try_acquire(json.dumps(note))
        except OSError as error:
            if self._device_trouble != str(error):
                logger.error("the device's lock cannot be opened, and no job is started: %s", error)
            self._device_trouble = str(error)
            return False
        self._device_trouble = ""
        return is_ours

    def owns_pending(self, job_id: str) -> bool:
        """Whether a queued job is still this server's: another one may have approved or adopted it meanwhile.

        Raises:
            DataFolderError: nobody can tell now.
        """
        try:
            job = self._store.load(job_id)
        except DataFolderError:
            raise
        except AdAgentError:
            return False
        return job.status is JobState.PENDING and job.owner == self.server_id

    def release_device(self) -> None:
        """Let others have the device."""
        self._device_lock.release()

    @property
    def has_device(self) -> bool:
        """Whether this server has the device."""
        return self._device_lock.is_held

    def device_holder(self) -> tuple[str, Job | None] | None:
        """Which other server has the device, and its latest job; None while the device is free or ours."""
        if self._device_lock.is_held or FileLock.is_free(self._device_lock.path):
            return None
        try:
            note = json.loads(self._device_lock.read_note())
            server, job_id = str(note["server"]), str(note["job_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # it was taken, or let go of, this very moment
        try:
            return server, self._store.load(job_id)
        except AdAgentError:
            return server, None

    def is_dead(self, owner: str) -> bool:
        """Whether the server `owner` is gone."""
        is_gone = not _SERVER_ID.fullmatch(owner) or FileLock.is_free(self._lock_path(owner))
        return owner != self.server_id and is_gone

    def left_ghosts(self) -> bool:
        """Whether a job is said to run, or to be queued, whose server is dead."""
        for job_id, owner in self._store.active_jobs().items():
            with contextlib.suppress(AdAgentError):
                if self.is_dead(owner):
                    job = self._store.load(job_id)
                    if job.waiting_for is None and self.is_dead(job.owner):
                        return True
        return False

    def adopt(self, mine: Iterable[str]) -> list[Job]:
        """Take over the jobs of servers that are gone: to be continued where they may, failed where not.

        To be called while the `turn` is held.

        Args:
            mine: ids of jobs that this server has already.

        Returns:
            The jobs as they are kept on disk now.
        """
        active = sorted(self._store.active_jobs().items())
        ghosts = [job_id for job_id, owner in active if job_id not in mine and self.is_dead(owner)]
        adopted = [job for job_id in ghosts if (job := self._adopted(job_id)) is not None]
        for path in self._store.locks.glob("server-*.lock"):
            if path != self._own_lock.path:
                _clear_away(path)
        return adopted

    def turn(self) -> FileLock:
        """The lock that a server holds while it decides about a job that no worker has, from reading it to writing it.

        Locks are taken in this order: the turn, then `Capacity.accept`; nothing else is taken under them.
        It is taken by `take_turn`.
        """
        return FileLock(self._store.locks / "adoption.lock")

    def take_turn(self, turn: FileLock) -> bool:
        """Take the `turn` without waiting, with a note for the others; False while another server has it.

        Raises:
            DataFolderError: the data folder is gone or cannot be written.
        """
        with telling_trouble_of(self._store.root):
            self._store.make_folders()
            return turn.try_acquire(f"server {self.server_id}, process {os.getpid()}")

    def _adopted(self, job_id: str) -> Job | None:
        try:
            job = self._store.load(job_id)
        except DataFolderError:
            raise
        except AdAgentError as error:
            if not isinstance(error, UnreadableJobError) or error.is_damaged:
                self._store.forget_marker(job_id)  # else it may be readable again one day
            return None
        if not self.is_dead(job.owner):  # the marker is damaged, or not renewed yet
            return None
        if job.status.is_terminal:  # its server died before it could say so
            self._store.forget_marker(job_id)
        if job.waiting_for is not None or job.status.is_terminal:
            return None
        ran = job.status is JobState.RUNNING
        is_retry = ran and bool(_SERVER_ID.fullmatch(job.owner)) and self._lock_path(job.owner).exists()
        never_ran = job.plan is None and not ran
        is_young = never_ran or time.time() - job.asked_at <= self._resume_max_age_s
        job = self._with_told_steps(job)
        at = time.time()
        if is_young and not (is_retry and job.retries):
            job = requeue(job, at=at, owner=self.server_id, is_retry=is_retry)
            pause = job.request.pause_after_step
            if ran and job.plan and pause in job.plan.steps and pause in job.finished and job.remaining_steps:
                job = job.model_copy(update={"waiting_for": "approval"})  # it died before it could ask
        else:
            job = fail(job, interrupted(job), at=at)
        try:
            self._store.save(job)
        except OSError as error:
            logger.error("cut-off job %s stays as it is, its state cannot be saved: %s", job_id, error)
            return None
        return job

    def _with_told_steps(self, job: Job) -> Job:
        """A step is finished when its document says so, even if the server died before it could hear of it."""
        document = self._store.document(job.id)
        if document is None or document.job_id != job.id:
            return job
        told = {step: files for step, files in document.finished.items() if step in job.steps}
        return job.model_copy(update={"finished": {**job.finished, **told}, "checks": document.checks or job.checks})

    def _lock_path(self, owner: str) -> Path:
        return self._store.locks / f"server-{owner}.lock"


def _clear_away(path: Path) -> None:
    """Remove the lock's file of a server that died; held meanwhile, so that nobody takes it who then has none."""
    lock = FileLock(path)
    with contextlib.suppress(OSError):
        if lock.try_acquire():
            path.unlink(missing_ok=True)
    lock.release()
