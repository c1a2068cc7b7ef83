"""Jobs and uploaded pictures on disk: inspectable files, safe to kill at any moment.

    jobs/<job id>/job.json, layout.json, <layer>.png, inputs/<field>
    format                 the number of this layout
    latest                 the id of the newest job
    active/<job id>        a marker for each job that is not over; holds its owner
    steps/<sha256>         the job whose step 1 has that picture
    assets/<asset id>      uploaded pictures
    locks/                 one lock per server, one per device

What is active is found without reading the jobs that are over, so start-up does not slow down with them. Names are
looked at before anything is opened, and what cannot be read is the trouble of one job.
"""

import contextlib
import errno
import logging
import os
import shutil
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from ..contract.call import GenerateRequest
from ..contract.errors import AdAgentError, ErrorCode, Fix, invalid
from ..contract.notices import notice
from ..contract.schemas import LAYER_NAMES, JobState, Notice
from ..contract.stages import EngineName
from ..contract.texts import Text, say
from ..files import is_disk_full, is_regular_file, read_small, sync_folder, write_atomically
from .data_folder import telling_trouble
from .job import Job
from .picture_store import JOB_ID, MAX_DOCUMENT_BYTES, SHA256, PictureStore

logger = logging.getLogger(__name__)

_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Refusals that say nothing about the file."""


class UnreadableJobError(AdAgentError):
    """Raised when a job is there and cannot be read; `is_damaged`: for good, while rights may be given back."""

    is_damaged = False


def created_at(job_id: str) -> float:
    """When a job was made: its id begins with the milliseconds since the epoch (UUID version 7)."""
    return int(job_id.replace("-", "")[:12], 16) / 1000


class JobStore(PictureStore):
    """The jobs of one data folder, and its pictures. Several servers may share it; each job has one owner."""

    def __init__(self, root: Path) -> None:
        """Make the folders.

        Raises:
            AdAgentError: the data folder cannot be written, or a newer version has written it.
        """
        super().__init__(root)
        self.over: dict[str, JobState] = {}
        """Jobs that are known to be over, which never change again."""
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)  # photos are not for the machine's other users
            self.make_folders()
            self.clear_names()
        except OSError as error:
            if is_disk_full(error):
                raise AdAgentError(ErrorCode.STORAGE_FULL, say("jobs.disk_full_at_start", folder=root)) from error
            raise _unwritable(Path(error.filename or root), error.strerror) from error
        for folder in (root, self.jobs, self.active, self.steps, self.assets, self.locks):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise _unwritable(folder, say("jobs.folder_of_another"))
        self.claim_format()

    @telling_trouble
    def create(self, job: Job, inputs: dict[str, bytes], layers: dict[str, Path]) -> None:
        """Put a new job on disk, all of it or nothing.

        Args:
            job: the job; its owner is recorded.
            inputs: the original bytes of its pictures by field name.
            layers: files to take over from another job, by their name here.

        Raises:
            DataFolderError: the disk is full, or the data folder gone or not writable.
        """
        folder = self.jobs / job.id
        self.make_folders()
        try:
            write_atomically(self.active / job.id, job.owner.encode(), durable=False)  # first: no folder without one
            folder.mkdir(mode=0o700)
            (folder / "inputs").mkdir(mode=0o700)
            for name, data in inputs.items():
                write_atomically(folder / "inputs" / name, data)
            for name, source in layers.items():
                _link(source, folder / name)
            self.save(job)
            sync_folder(self.jobs)
            with contextlib.suppress(OSError):  # it only saves looking for the newest job
                write_atomically(self.root / "latest", job.id.encode(), durable=False)
        except BaseException:
            self.forget_marker(job.id)
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def save(self, job: Job, *, durable: bool = True) -> None:
        """Write the job's state; without `durable` it outlives any process but not a power cut.

        Raises:
            FileNotFoundError: the job's folder is gone; the other jobs' are not.
            OSError: it cannot be written now.
        """
        path = self.jobs / job.id / "job.json"
        try:
            write_atomically(path, job.model_dump_json(by_alias=True).encode(), durable=durable)
        except FileNotFoundError as error:
            if self.jobs.is_dir():
                raise
            raise NotADirectoryError(errno.ENOTDIR, "the data folder is gone", str(self.root)) from error
        if job.status.is_terminal:
            self.forget_marker(job.id)
        elif durable:
            write_atomically(self.active / job.id, job.owner.encode(), durable=False)

    def load(self, job_id: str) -> Job:
        """The job as it stands on disk.

        Raises:
            AdAgentError: there is no such job.
            UnreadableJobError: it is there, but cannot be read.
            DataFolderError: the data folder is gone.
            OSError: this process has too many files open, or too little memory.
        """
        folder = self.folder(job_id)
        try:
            if os.path.islink(folder):  # noqa: PTH114  # it leads anywhere; this raises nothing
                raise FileNotFoundError
            content = read_small(folder / "job.json", max_bytes=MAX_DOCUMENT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            if not self.jobs.is_dir():
                self.job_ids()  # tells why, unless it can be made again
            raise AdAgentError(
                ErrorCode.NOT_FOUND,
                say("jobs.no_such_job", job_id=job_id),
                job_id=job_id,
                field="job_id",
                fix=Fix(tool="list_jobs", arguments={}),
            ) from None
        except OSError as error:
            if error.errno in _OF_THE_PROCESS:
                raise
            raise self._unreadable(job_id, say("jobs.unreadable_refused", reason=error.strerror)) from error
        try:
            job = Job.model_validate_json(content)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False, include_context=False)
            logger.error("job %s is unreadable: %s", job_id, faults[:5])  # its words are not for the log
            is_cut = faults[0]["type"] == "json_invalid"
            what = say("jobs.unreadable_damaged" if is_cut else "jobs.unreadable_foreign")
            raise self._unreadable(job_id, what, is_damaged=True) from None
        if job.id != job_id:
            raise self._unreadable(job_id, say("jobs.unreadable_of_another", job_id=job.id[:64]), is_damaged=True)
        if job.status.is_terminal:
            self.over[job_id] = job.status
        return job

    def shown(self, job_id: str) -> Job:
        """Like `load`, but a job that cannot be read is shown as one that failed, with what is wrong and the way on.

        Raises:
            AdAgentError: as `load`, for all that is not the trouble of this one job.
        """
        try:
            return self.load(job_id)
        except UnreadableJobError as error:
            return Job(
                id=job_id,
                status=JobState.FAILED,
                request=GenerateRequest(),
                engine=EngineName.DRAFT,
                steps=(),
                error=error.info,
                created_at=min(created_at(job_id), time.time()),
            )

    def _unreadable(self, job_id: str, what: Text, *, is_damaged: bool = False) -> UnreadableJobError:
        held = [name for name in LAYER_NAMES if self.layer(job_id, name) is not None]
        if held:
            told = say("jobs.job_unreadable_pictures", job_id=job_id, what=what, held=held, last=held[-1])
        else:
            told = say("jobs.job_unreadable", job_id=job_id, what=what)
        error = UnreadableJobError(ErrorCode.ENGINE_FAILED, told, job_id=job_id)
        error.is_damaged = is_damaged
        return error

    @telling_trouble
    def job_ids(self) -> list[str]:
        """Every stored job, newest first; what else lies in the folder is nobody's business here.

        Raises:
            DataFolderError: the data folder is gone or cannot be read.
        """
        self.make_folders()
        found = (entry for entry in os.scandir(self.jobs) if JOB_ID.fullmatch(entry.name))
        return sorted((entry.name for entry in found if entry.is_dir(follow_symlinks=False)), reverse=True)

    def latest_id(self) -> str | None:
        """The newest job, or None while there is none.

        Raises:
            DataFolderError: the data folder is gone or cannot be read.
        """
        noted = self.read_name(self.root / "latest") or ""
        if JOB_ID.fullmatch(noted) and self._is_stored(noted):
            return noted
        return next(filter(self._is_stored, self.job_ids()), None)

    @telling_trouble
    def active_jobs(self) -> dict[str, str]:
        """The owners of the jobs that are not over, by job id; an empty text where the marker cannot be read.

        Raises:
            DataFolderError: the data folder is gone or cannot be read.
        """
        self.make_folders()
        entries = [entry for entry in os.scandir(self.active) if JOB_ID.fullmatch(entry.name)]
        marked = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        return {job_id: self.read_name(self.active / job_id) or "" for job_id in marked}

    def forget_marker(self, job_id: str) -> None:
        """Drop a job's marker: it is over, or has no folder. One that stays is seen through when it is read."""
        with contextlib.suppress(OSError):
            (self.active / job_id).unlink(missing_ok=True)

    def _is_stored(self, job_id: str) -> bool:
        return is_regular_file(self.jobs / job_id / "job.json")

    def remove(self, job_id: str) -> None:
        """Delete a job that is over, with all its pictures.

        Raises:
            OSError: some of it cannot be deleted.
        """
        folder = self.folder(job_id)
        with contextlib.suppress(AdAgentError, OSError):
            picture = self.load(job_id).finished.get(1, {}).get("step1", "")
            if SHA256.fullmatch(picture):
                (self.steps / picture).unlink(missing_ok=True)
        self.over.pop(job_id, None)
        self.forget_marker(job_id)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.is_dir() and not folder.is_symlink():
            raise PermissionError(errno.EACCES, "not all of it could be deleted", str(folder))

    def copy_out(self, job_id: str, folder: Path) -> Notice | None:
        """Copy the finished ad into a folder of the user's; what its job has to tell when that failed."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            picture = (self.folder(job_id) / "final.png").read_bytes()
            write_atomically(folder / f"ad-{job_id}.png", picture, durable=False)
        except OSError as error:
            logger.warning("the ad was not copied to %s: %s", folder, error, extra={"job_id": job_id})
            return notice("copy_failed", say("jobs.copy_failed", folder=folder, reason=error.strerror))
        return None


def _unwritable(folder: Path, why: Text | str | None) -> AdAgentError:
    """The refusal of a data folder, with the remedy for who runs the server."""
    if sys.platform == "win32":
        return invalid(say("jobs.folder_unwritable", folder=folder, reason=why))
    return invalid(say("jobs.folder_unwritable_chown", folder=folder, reason=why, user=os.getuid()))


def _link(source: Path, target: Path) -> None:
    """Take a file over; files are only ever replaced, never rewritten, so sharing its bytes is safe."""
    try:
        os.link(source, target)
    except OSError:
        write_atomically(target, source.read_bytes())
