"""One running job's pictures: what is in memory, what is on disk, and the document that describes them.

Knows the folder and the layer names, not what the steps do.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..contract.call import GenerateRequest
from ..contract.document import Document, Lettering, Product, Words, read_document
from ..contract.errors import invalid
from ..contract.messages import StartJob
from ..contract.schemas import LAYER_NAMES, Check
from ..contract.stages import Stage
from ..contract.texts import Text, say
from ..engines.base import Engine, Matte, Picture, StageReport
from ..files import sha256_of, write_atomically
from ..imaging.picture import encode_png, from_image, matte_of
from ..imaging.placement import safe_area
from ..media.decode import decode_picture
from ..media.encode import on_white
from ..media.fonts import FontCatalog
from .events import JobEvents
from .render import ground

ScalarT = TypeVar("ScalarT", np.uint8, np.float32)
_MULTIPLE = 16
_UNSURE_CONFIDENCE = 0.5
_MAX_PRODUCT_SHARE = 0.75


@dataclass
class Workspace:
    """Everything the steps of one job share; owned by `run_job`.

    Attributes:
        document: the ad as far as it is known: its lettering has words when it describes `letters`.
        pictures: the layers that this job has made or taken up and a later step needs, by file name.
        written: SHA-256 of the layers that clients know by name, written since the last finished step.
    """

    job: StartJob
    engine: Engine
    events: JobEvents
    fonts: FontCatalog
    document: Document
    pictures: dict[str, Picture] = field(default_factory=dict[str, Picture])
    written: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def request(self) -> GenerateRequest:
        return self.job.request

    @property
    def canvas(self) -> tuple[int, int]:
        return self.document.canvas

    @property
    def step1(self) -> Picture:
        """RGB, the canvas with the product; there when step 1 is over."""
        return self.pictures["step1.png"]

    @property
    def letters(self) -> Picture:
        """RGBA, the lettering picture; there when step 2 is over."""
        return self.pictures["step2.png"]

    @property
    def cutout(self) -> Picture | None:
        """RGBA, the product on the canvas, or None as long as it is unknown."""
        return self.pictures.get("cutout.png")

    @property
    def words(self) -> Words | None:
        """The words that `letters` are, or None where nobody knows."""
        return None if self.document.lettering is None else self.document.lettering.words

    @property
    def light_x(self) -> float:
        """Where the scene's light comes from, -1 (left) to 1 (right)."""
        return 0.0 if self.document.scene is None else self.document.scene.light_x

    @property
    def product_matte(self) -> Matte | None:
        return matte_of(self.cutout)

    @property
    def promised_product(self) -> Product | None:
        """How the product was placed, where its identity is promised and can be known."""
        return self.document.product if self.request.product_lock else None

    def is_planned(self, stage: Stage) -> bool:
        """Whether the plan has this stage."""
        return any(planned.stage is stage for planned in self.job.plan.stages)

    def seed_for(self, stage: Stage) -> int:
        """The seed of one stage, the same however the job came to it."""
        digest = hashlib.sha256(f"{self.request.seed or 0}:{stage}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def write(self, pictures: dict[str, Picture]) -> None:
        """Put `pictures` on disk, by file name.

        Raises:
            OSError: no room.
        """
        # Compression is most of the work and runs outside the interpreter's lock.
        with ThreadPoolExecutor(max_workers=4) as pool:
            encoded = dict(zip(pictures, pool.map(encode_png, pictures.values()), strict=True))
            list(pool.map(write_atomically, map(self.path, encoded), encoded.values()))
        self.pictures |= pictures
        self.written |= {name: sha256_of(encoded[f"{name}.png"]) for name in LAYER_NAMES if f"{name}.png" in encoded}

    def path(self, file: str) -> Path:
        """Where a picture lies."""
        return self.job.out_dir / file

    def describe(self, **changes: object) -> None:
        """Change these fields of the document."""
        self.document = self.document.model_copy(update=changes)

    def finish_step(self, step: int, results: tuple[Check, ...] = ()) -> None:
        """Write the document and report `step` with every layer written since the last one.

        Args:
            step: the step that is finished.
            results: the checks of the finished ad, with the last step.
        """
        files, self.written = self.written, {}
        self.describe(job_id=self.job.job_id, finished={**self.document.finished, step: files}, checks=results)
        document = self.document.model_dump_json(by_alias=True, indent=1)
        write_atomically(self.path("layout.json"), document.encode())
        needed = {"cutout.png", "step1.png", "step2.png", *(layer.file for layer in ground(self.document))}
        self.pictures = {file: picture for file, picture in self.pictures.items() if file in needed}
        self.events.step_finished(step, files, self.canvas)

    def load_earlier_steps(self) -> None:
        """Take up the pictures of the steps that the plan leaves out.

        Raises:
            AdAgentError: `invalid_request`; a picture that the plan needs is not there.
        """
        if 1 in self.job.plan.steps:
            return
        given = self.job.inputs.step1 or self.path("step1.png")
        if not given.is_file():
            raise invalid(say("pipeline.no_step1"), field="step1_image")
        step1 = from_image(on_white(decode_picture(given.read_bytes(), field="step1_image")))
        canvas = (step1.shape[1], step1.shape[0])
        self.pictures["step1.png"] = step1
        stored = self._stored()
        if stored is None or stored.canvas != canvas:
            self.describe(canvas=canvas, safe_area=safe_area(canvas))
            self.describe(step1=self.document.whole("step1"))
        else:
            self._take_up(stored)
        if given.resolve() != self.path("step1.png").resolve():
            self.write({"step1.png": step1})
        if 2 not in self.job.plan.steps and 3 in self.job.plan.steps:
            self._load_letters()

    def _stored(self) -> Document | None:
        """The document of the layers that step 1 left."""
        document = self.path("layout.json")
        if not (document.is_file() and self.path("cutout.png").is_file()):
            return None
        stored = read_document(document.read_bytes())
        # Without step 1's layers the folder can still hold what this very job guessed before it was cut off.
        is_ours = self.job.inputs.has_step1_layers or stored.product is None
        return stored if is_ours and stored.cutout is not None else None

    def _take_up(self, stored: Document) -> None:
        """Go on with the document of an earlier job, or of earlier steps of this one."""
        before, unplaced = stored.lettering, None
        if before is not None and before.words is not None and self.request.text_content is not None:
            unplaced = Lettering(words=before.words, size=before.size, sha256=before.sha256)
        finished = stored.finished if stored.job_id == self.job.job_id else {}
        self.document = stored.with_words(unplaced).model_copy(update={"finished": finished, "checks": ()})
        if not all(self.path(layer.file).is_file() for layer in ground(stored)):
            self.describe(step1=stored.whole("step1"))
        for file in {"cutout.png", *(layer.file for layer in ground(self.document))} - {*self.pictures}:
            self.pictures[file] = from_image(decode_picture(self.path(file).read_bytes()).convert("RGBA"))
        if stored.product is None:
            self._say_unverified()

    def find_product(self, report: StageReport) -> None:
        """Cut the product out of a `step1` that came without layers, if that was not done yet."""
        if self.cutout is not None:
            return
        cut = self.engine.cut_out(self.step1, product_box=None, report=_Aside(report))
        alpha = cut.rgba[..., 3]
        is_unsure = cut.confidence < _UNSURE_CONFIDENCE or (alpha > 127).mean() > _MAX_PRODUCT_SHARE
        cutout = np.zeros_like(cut.rgba) if is_unsure else np.where(alpha[..., None] > 0, cut.rgba, np.uint8(0))
        self.write({"cutout.png": cutout})
        self.describe(found=self.document.whole("cutout"))
        self._say_unverified()

    def _say_unverified(self) -> None:
        self.events.notice("product_unverified", say("pipeline.product_unverified"))

    def _load_letters(self) -> None:
        given = self.job.inputs.step2 or self.path("step2.png")
        if not given.is_file():
            raise invalid(say("pipeline.no_step2"), field="step2_image")
        data = given.read_bytes()
        image = decode_picture(data, field="step2_image")
        self.pictures["step2.png"] = from_image(image.convert("RGBA"))
        lettering = self.document.lettering
        if lettering is None or lettering.sha256 != sha256_of(data):
            self.document = self.document.with_words(None)
            is_clear = image.mode == "RGBA"
            told = say("pipeline.text_unverified" if is_clear else "pipeline.text_unverified_opaque")
            self.events.notice("text_unverified", told)
            data = encode_png(self.letters)
        if given.resolve() != self.path("step2.png").resolve():
            write_atomically(self.path("step2.png"), data)
            self.written["step2"] = sha256_of(data)


class _Aside:
    """A report for a cut-out beside a stage: it can be cancelled, and how sure it is need not be told."""

    def __init__(self, report: StageReport) -> None:
        self._report = report
        self.model_moved = report.model_moved

    def iteration(self, done: int, total: int) -> None:
        self._report.iteration(0, 1)

    def notice(self, code: str, text: Text) -> None:
        if code != "cutout_uncertain":
            self._report.notice(code, text)


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` (width, height) rounded up to what every engine can paint."""
    return -(-size[0] // _MULTIPLE) * _MULTIPLE, -(-size[1] // _MULTIPLE) * _MULTIPLE


def pad(picture: NDArray[ScalarT], *, is_empty: bool = False) -> NDArray[ScalarT]:
    """`picture` at its padded size; the new pixels repeat its border, or are zero when `is_empty`."""
    width, height = padded_size((picture.shape[1], picture.shape[0]))
    around = [(0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)][: picture.ndim]
    return np.pad(picture, around, "constant" if is_empty else "edge")


def crop(picture: Picture, size: tuple[int, int]) -> Picture:
    """The top left part of `picture` at `size` (width, height)."""
    return np.ascontiguousarray(picture[: size[1], : size[0]])
