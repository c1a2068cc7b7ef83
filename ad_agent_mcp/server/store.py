"""Jobs and uploaded pictures on disk: inspectable files, safe to kill at any moment.

    jobs/<job id>/job.json, layout.json, <layer>.png, inputs/<field>
    latest                 the id of the newest job
    active/<job id>        a marker for each job that is not over; holds its owner
    steps/<sha256>         the job whose step 1 has that picture
    assets/<asset id>      uploaded pictures
    locks/                 one lock per server, one per device

What is active is found without reading the jobs that are over, so start-up does not slow down with them.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

from pydantic import ValidationError

from ..contract.errors import AdAgentError, ErrorCode, Fix, invalid
from ..contract.layout import Layout
from ..contract.messages import Inputs
from ..contract.schemas import LAYER_NAMES, JobState, Notice
from ..files import is_disk_full, sha256_of, sync_folder, write_atomically
from .job import Job

logger = logging.getLogger(__name__)

STEP1_LAYERS = ("product", "cutout", "background", "shadow", "step1")
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ASSET_ID = re.compile(r"[0-9a-f]{32}")


@contextlib.contextmanager
def _refusing_a_full_disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise AdAgentError(
            ErrorCode.STORAGE_FULL,
            "The disk that holds the data folder (AD_AGENT_DATA_DIR) is full. Free some space and call again; nothing "
            "was started.",
        ) from error


class JobStore:
    """The folder of one data directory. Several servers may share it; each job has one owner."""

    def __init__(self, root: Path) -> None:
        """Make the folders.

        Raises:
            AdAgentError: the data folder cannot be written.
        """
        self.root = root
        self.jobs = root / "jobs"
        self.active = root / "active"
        self.steps = root / "steps"
        self.assets = root / "assets"
        self.locks = root / "locks"
        self.inbox = root / "inbox"
        self.over: dict[str, JobState] = {}
        """Jobs that are known to be over, which never change again."""
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)  # photos are not for the machine's other users
            for folder in (self.jobs, self.active, self.steps, self.assets, self.locks, self.inbox):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise AdAgentError(
                    ErrorCode.STORAGE_FULL, f"The disk of the data folder {root} is full; free some space on it."
                ) from error
            raise _unwritable(Path(error.filename or root), error.strerror) from error
        for folder in (root, self.jobs, self.active, self.steps, self.assets, self.locks):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise _unwritable(folder, "it belongs to somebody else, or the disk is read-only")

    # jobs

    def folder(self, job_id: str) -> Path:
        """The job's folder, whether or not it exists.

        Raises:
            AdAgentError: `job_id` is not the id of a job.
        """
        if not _JOB_ID.fullmatch(job_id):
            raise invalid(
                f"{job_id[:64]!r} is not a job id. Job ids are UUIDs; list_jobs tells them.",
                field="job_id",
                fix=Fix(tool="list_jobs", arguments={}),
            )
        return self.jobs / job_id

    @_refusing_a_full_disk()
    def create(self, job: Job, inputs: dict[str, bytes], layers: dict[str, Path]) -> None:
        """Put a new job on disk, all of it or nothing.

        Args:
            job: the job; its owner is recorded.
            inputs: the original bytes of its pictures by field name.
            layers: files to take over from another job, by their name here.

        Raises:
            AdAgentError: the disk is full.
        """
        folder = self.jobs / job.id
        try:
            write_atomically(self.active / job.id, job.owner.encode(), durable=False)  # first: no folder without one
            (folder / "inputs").mkdir(parents=True)
            for name, data in inputs.items():
                write_atomically(folder / "inputs" / name, data)
            for name, source in layers.items():
                _link(source, folder / name)
            self.save(job)
            sync_folder(self.jobs)
            write_atomically(self.root / "latest", job.id.encode(), durable=False)
        except BaseException:
            with contextlib.suppress(OSError):
                (self.active / job.id).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def save(self, job: Job, *, durable: bool = True) -> None:
        """Write the job's state; without `durable` it outlives any process but not a power cut."""
        write_atomically(self.jobs / job.id / "job.json", job.model_dump_json(by_alias=True).encode(), durable=durable)
        marker = self.active / job.id
        if job.status.is_terminal:
            marker.unlink(missing_ok=True)
        elif durable:
            write_atomically(marker, job.owner.encode(), durable=False)

    def load(self, job_id: str) -> Job:
        """The job as it stands on disk.

        Raises:
            AdAgentError: there is no such job.
        """
        try:
            job = Job.model_validate_json((self.folder(job_id) / "job.json").read_bytes())
            if job.status.is_terminal:
                self.over[job_id] = job.status
            return job
        except FileNotFoundError:
            raise AdAgentError(
                ErrorCode.NOT_FOUND,
                f"There is no job {job_id}. list_jobs shows the stored ones.",
                job_id=job_id,
                field="job_id",
                fix=Fix(tool="list_jobs", arguments={}),
            ) from None
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)  # its words are not for the log
            logger.error("job %s is unreadable: %s", job_id, faults)
            raise AdAgentError(
                ErrorCode.NOT_FOUND, f"Job {job_id} was written by another version and cannot be read."
            ) from error

    def job_ids(self) -> list[str]:
        """Every stored job, newest first; what else lies in the folder is nobody's business here."""
        return sorted((entry.name for entry in os.scandir(self.jobs) if _JOB_ID.fullmatch(entry.name)), reverse=True)

    def latest_id(self) -> str | None:
        """The newest job, or None while there is none."""
        with contextlib.suppress(OSError):
            job_id = (self.root / "latest").read_text("utf-8")
            if (self.jobs / job_id / "job.json").is_file():
                return job_id
        return next(iter(self.job_ids()), None)

    def active_jobs(self) -> dict[str, str]:
        """The owners of the jobs that are not over, by job id."""
        found: dict[str, str] = {}
        for entry in os.scandir(self.active):
            with contextlib.suppress(OSError):
                found[entry.name] = Path(entry.path).read_text("utf-8")
        return {name: owner for name, owner in found.items() if not name.startswith(".")}

    def forget_marker(self, job_id: str) -> None:
        """Drop the marker of a job that has no folder: its server died while making it, or somebody deleted it."""
        (self.active / job_id).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Delete a job that is over, with all its pictures."""
        folder = self.folder(job_id)
        with contextlib.suppress(AdAgentError):
            picture = self.load(job_id).finished.get(1, {}).get("step1")
            if picture is not None:
                (self.steps / picture).unlink(missing_ok=True)
        self.over.pop(job_id, None)
        shutil.rmtree(folder, ignore_errors=True)

    def layer(self, job_id: str, name: str) -> Path | None:
        """The file of one layer, or None while there is none, or no layer has this name."""
        path = self.folder(job_id) / f"{name}.png"
        return path if name in LAYER_NAMES and self._is_own_file(path) else None

    def picture(self, job_id: str, name: str) -> Path | None:
        """The file of one layer as an input: the product's original, and what was given while there is no layer."""
        given = self.folder(job_id) / "inputs" / f"{name}_image"
        layer = self.layer(job_id, name)
        is_given = name in LAYER_NAMES and given.is_file()
        return given if is_given and (name == "product" or layer is None) else layer

    def inputs(self, job_id: str, first_step: int) -> Inputs:
        """The pictures with which a worker begins at `first_step`."""
        folder = self.folder(job_id)
        product, given = folder / "inputs" / "product_image", folder / "inputs" / "step1_image"
        is_given = given.is_file()
        step1 = given if is_given else self.layer(job_id, "step1")
        return Inputs(
            product=product if product.is_file() else None,
            step1=step1 if first_step > 1 else None,
            step2=self.picture(job_id, "step2") if first_step == 3 else None,
            has_step1_layers=first_step > 1 and not is_given and None not in (step1, self.layer(job_id, "cutout")),
        )

    def copy_out(self, job_id: str, folder: Path) -> Notice | None:
        """Copy the finished ad into a folder of the user's; what its job has to tell when that failed."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            picture = (self.folder(job_id) / "final.png").read_bytes()
            write_atomically(folder / f"ad-{job_id}.png", picture, durable=False)
        except OSError as error:
            logger.warning("the ad was not copied to %s: %s", folder, error, extra={"job_id": job_id})
            return Notice(
                code="copy_failed",
                message=f"The ad was not copied to {folder} ({error.strerror}); it is kept with its job. Set "
                "AD_AGENT_OUTPUT_DIR to a folder that may be written, and that has room.",
            )
        return None

    def layout(self, job_id: str) -> Layout | None:
        """What the job's layers show, or None before its first step is finished."""
        try:
            return Layout.model_validate_json((self.folder(job_id) / "layout.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @_refusing_a_full_disk()
    def forget_step(self, job_id: str, step: int) -> None:
        """A step is to be made again: what is on disk of it no longer counts as finished.

        Raises:
            AdAgentError: the disk is full.
        """
        layout = self.layout(job_id)
        if layout is not None and step in layout.finished:
            finished = {done: files for done, files in layout.finished.items() if done != step}
            document = layout.model_copy(update={"finished": finished}).model_dump_json(by_alias=True, indent=1)
            write_atomically(self.folder(job_id) / "layout.json", document.encode())

    def step1_files(self, job_id: str) -> dict[str, Path]:
        """What another job needs to take over this one's step 1, by file name."""
        folder = self.folder(job_id)
        names = [f"{name}.png" for name in STEP1_LAYERS] + ["layout.json", "inputs/product_image"]
        return {name: folder / name for name in names if (folder / name).is_file()}

    # step 1 pictures by content

    def remember_step1(self, sha256: str, job_id: str) -> None:
        """Make the layers of a step 1 findable by its picture; a full disk costs only that."""
        try:
            write_atomically(self.steps / sha256, job_id.encode(), durable=False)
        except OSError as error:
            logger.warning("step 1 of job %s will not be recognized: %s", job_id, error)

    def find_step1(self, sha256: str) -> str | None:
        """The job whose step 1 is the file with this hash, if its layers are still there."""
        try:
            job_id = (self.steps / sha256).read_text("utf-8")
            path = self.layer(job_id, "step1")
            is_same = path is not None and sha256_of(path.read_bytes()) == sha256  # a redone step has another picture
            return job_id if is_same and self.layer(job_id, "cutout") else None
        except (OSError, AdAgentError):
            return None

    # uploaded pictures

    @_refusing_a_full_disk()
    def add_asset(self, data: bytes) -> str:
        """Keep an uploaded picture.

        Returns:
            Its id: the same bytes have the same id.

        Raises:
            AdAgentError: the disk is full.
        """
        asset_id = sha256_of(data)[:32]
        path = self.assets / asset_id
        if not path.exists():
            write_atomically(path, data)
        return asset_id

    def asset(self, asset_id: str) -> Path:
        """The file of an uploaded picture.

        Raises:
            AdAgentError: there is none with that id.
        """
        path = self.assets / asset_id
        if not _ASSET_ID.fullmatch(asset_id) or not self._is_own_file(path):
            raise AdAgentError(ErrorCode.NOT_FOUND, f"There is no uploaded picture ad://assets/{asset_id[:64]}.")
        return path

    def _is_own_file(self, path: Path) -> bool:
        """Whether `path` is a file that lies where it seems to: not a link, nor behind one inside the data folder."""
        return path.is_file() and path.resolve() == self.root.resolve() / path.relative_to(self.root)


def _unwritable(folder: Path, why: str | None) -> AdAgentError:
    """The refusal of a data folder, with the remedy for who runs the server."""
    user = f" (id {os.getuid()}): `sudo chown -R {os.getuid()} {folder}`" if sys.platform != "win32" else ""
    return invalid(
        f"The data folder {folder} cannot be written ({why}). Give it to this user{user}, or set AD_AGENT_DATA_DIR to "
        "a folder that this user may write."
    )


def _link(source: Path, target: Path) -> None:
    """Take a file over; files are only ever replaced, never rewritten, so sharing its bytes is safe."""
    try:
        os.link(source, target)
    except OSError:
        write_atomically(target, source.read_bytes())
