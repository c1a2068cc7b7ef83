"""The pictures in the data folder: jobs' layers with what they show, step 1 by its content, uploads.

Knows where a job's folder is, not how the job stands. A file counts only where it really lies: never a link.
"""

import logging
import re
from pathlib import Path

from pydantic import ValidationError

from ..contract.document import Document, read_document
from ..contract.errors import AdAgentError, ErrorCode, Fix, invalid
from ..contract.messages import Inputs
from ..contract.schemas import LAYER_NAMES
from ..contract.texts import say
from ..files import is_regular_file, read_small, sha256_of, write_atomically
from .data_folder import DataFolder, telling_trouble

logger = logging.getLogger(__name__)

STEP1_LAYERS = ("product", "cutout", "background", "shadow", "step1", "matte")
MAX_DOCUMENT_BYTES = 8 << 20
"""More than any job's state or layout: larger files are not read."""
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHA256 = re.compile(r"[0-9a-f]{64}")
ASSET_ID = re.compile(r"[0-9a-f]{32}")


class PictureStore(DataFolder):
    """The pictures of one data folder."""

    def folder(self, job_id: str) -> Path:
        """The job's folder, whether or not it exists.

        Raises:
            AdAgentError: `job_id` is not the id of a job.
        """
        if not JOB_ID.fullmatch(job_id):
            raise invalid(
                say("jobs.not_an_id", given=repr(job_id[:64])),
                field="job_id",
                fix=Fix(tool="list_jobs", arguments={}),
            )
        return self.jobs / job_id

    def layer(self, job_id: str, name: str) -> Path | None:
        """The file of one layer, or None while there is none, or no layer has this name."""
        path = self.folder(job_id) / f"{name}.png"
        return path if name in LAYER_NAMES and self._is_own_file(path) else None

    def picture(self, job_id: str, name: str) -> Path | None:
        """The file of one layer as an input: the product's original, and what was given while there is no layer."""
        given = self.folder(job_id) / "inputs" / f"{name}_image"
        layer = self.layer(job_id, name)
        is_given = name in LAYER_NAMES and is_regular_file(given)
        return given if is_given and (name == "product" or layer is None) else layer

    @telling_trouble
    def inputs(self, job_id: str, first_step: int) -> Inputs:
        """The pictures with which a worker begins at `first_step`.

        Raises:
            DataFolderError: the job's folder is gone or cannot be looked at: it would seem to hold no pictures.
        """
        folder = self.folder(job_id)
        product, given = folder / "inputs" / "product_image", folder / "inputs" / "step1_image"
        is_given = is_regular_file(given)
        step1 = given if is_given else self.layer(job_id, "step1")
        inputs = Inputs(
            product=product if is_regular_file(product) else None,
            step1=step1 if first_step > 1 else None,
            step2=self.picture(job_id, "step2") if first_step == 3 else None,
            has_step1_layers=first_step > 1 and not is_given and None not in (step1, self.layer(job_id, "cutout")),
        )
        (folder / "inputs").lstat()  # last: it may go at any moment
        return inputs

    def document(self, job_id: str) -> Document | None:
        """The job's ad as a document, or None before its first step is finished, or when it cannot be read."""
        try:
            path = self.folder(job_id) / "layout.json"
            return read_document(read_small(path, max_bytes=MAX_DOCUMENT_BYTES))
        except (OSError, ValidationError):
            return None

    @telling_trouble
    def forget_step(self, job_id: str, step: int) -> None:
        """A step is to be made again: what is on disk of it no longer counts as finished.

        Raises:
            DataFolderError: the disk is full, or the data folder gone or not writable.
        """
        document = self.document(job_id)
        if document is not None and step in document.finished:
            finished = {done: files for done, files in document.finished.items() if done != step}
            changed = document.model_copy(update={"finished": finished}).model_dump_json(by_alias=True, indent=1)
            write_atomically(self.folder(job_id) / "layout.json", changed.encode())

    def step1_files(self, job_id: str) -> dict[str, Path]:
        """What another job needs to take over this one's step 1, by file name."""
        folder = self.folder(job_id)
        names = [f"{name}.png" for name in STEP1_LAYERS] + ["layout.json", "inputs/product_image"]
        return {name: folder / name for name in names if is_regular_file(folder / name)}

    # step 1 pictures by content

    def remember_step1(self, sha256: str, job_id: str) -> None:
        """Make the layers of a step 1 findable by its picture; a full disk costs only that."""
        try:
            if SHA256.fullmatch(sha256):
                write_atomically(self.steps / sha256, job_id.encode(), durable=False)
        except OSError as error:
            logger.warning("step 1 of job %s will not be recognized: %s", job_id, error)

    def find_step1(self, sha256: str) -> str | None:
        """The job whose step 1 is the file with this hash, if its layers are still there."""
        try:
            job_id = self.read_name(self.steps / sha256) or ""
            path = self.layer(job_id, "step1")
            is_same = path is not None and sha256_of(path.read_bytes()) == sha256  # a redone step has another picture
            return job_id if is_same and self.layer(job_id, "cutout") else None
        except (OSError, AdAgentError):
            return None

    # uploaded pictures

    @telling_trouble
    def add_asset(self, data: bytes) -> str:
        """Keep an uploaded picture.

        Returns:
            Its id: the same bytes have the same id.

        Raises:
            DataFolderError: the disk is full, or the data folder gone or not writable.
        """
        asset_id = sha256_of(data)[:32]
        path = self.assets / asset_id
        self.make_folders()
        if not self._is_own_file(path):
            write_atomically(path, data)
        return asset_id

    def asset(self, asset_id: str) -> Path:
        """The file of an uploaded picture.

        Raises:
            AdAgentError: there is none with that id.
        """
        path = self.assets / asset_id
        if not ASSET_ID.fullmatch(asset_id) or not self._is_own_file(path):
            raise AdAgentError(ErrorCode.NOT_FOUND, say("jobs.no_upload", asset=asset_id[:64]))
        return path

    def _is_own_file(self, path: Path) -> bool:
        """Whether `path` is a file that lies where it seems to: not a link, nor behind one inside the data folder."""
        return is_regular_file(path) and path.resolve() == self.root.resolve() / path.relative_to(self.root)
