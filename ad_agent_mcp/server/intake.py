"""From a request to a job that can run: resume, references, pictures, fonts. Refuses before anything is stored."""

import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import Settings
from ..contract.errors import AdAgentError, Fix, invalid
from ..contract.schemas import GenerateRequest, Notice
from ..files import sha256_of
from ..imaging.decode import PictureInfo, PictureLimits, check_picture
from ..imaging.fonts import FontCatalog
from .job import Job, steps_to_run
from .references import ReferenceReader
from .store import JobStore

logger = logging.getLogger(__name__)

PICTURE_FIELDS = ("product_image", "step1_image", "step2_image")
CONTROL_FIELDS = ("start_step", "resume_job_id", "pause_after_step", "wait_seconds", "test_mode")
_STEP2_FIELDS = ("text_content", "text_model_prompt", "negative_prompt", "font_name")
MIN_CANVAS, MAX_CANVAS = 256, 2048


@dataclass
class Prepared:
    """A request on its way to how it will run.

    Attributes:
        request: in the end with `ad://` URIs under the new job for references, and a seed.
        inputs: original bytes of its pictures by field name.
        layers: files to take over from another job, by file name.
        notices: what the caller set that will have no effect.
    """

    request: GenerateRequest
    inputs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    layers: dict[str, Path] = field(default_factory=dict[str, Path])
    notices: list[Notice] = field(default_factory=list[Notice])


class Intake:
    """Prepares requests. Everything here blocks on disk and decoding: call it in a thread."""

    def __init__(self, settings: Settings, store: JobStore, reader: ReferenceReader, fonts: FontCatalog) -> None:
        self._store = store
        self._reader = reader
        self._fonts = fonts
        self._limits = PictureLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
        )

    def prepare(self, request: GenerateRequest, job_id: str) -> Prepared:
        """Check a request and gather what it needs.

        Args:
            request: as given; `model_fields_set` tells what the caller set.
            job_id: the id that the job will have.

        Raises:
            AdAgentError: it cannot run as it stands; the message says what to change.
        """
        earlier = self._earlier(request.resume_job_id) if request.resume_job_id else None
        given = request.model_fields_set
        draft = Prepared(_resumed(request, earlier) if earlier else request)
        request = draft.request
        if request.start_step == 1:
            self._take_product(draft, earlier)
        else:
            self._take_step1(draft, earlier)
        if request.start_step == 3 and request.text_content:
            self._take_step2(draft, earlier)
        _report_unused(draft, given, earlier)
        if "font_name" in request.model_fields_set:
            self._fonts.path_of(request.font_name)
        if request.text_content and request.start_step <= 2:
            self._check_words(request)
        changes: dict[str, Any] = {
            name: f"ad://jobs/{job_id}/{name.removesuffix('_image')}.png" for name in draft.inputs
        }
        if draft.request.seed is None:
            changes["seed"] = random.SystemRandom().randrange(2**32)
        draft.request = draft.request.model_copy(update=changes)
        return draft

    def _earlier(self, job_id: str) -> Job:
        try:
            return self._store.load(job_id)
        except AdAgentError as error:
            error.info = error.info.model_copy(update={"field": "resume_job_id"})
            raise

    def keep(self, content: bytes) -> dict[str, str | int]:
        """Store an uploaded picture.

        Returns:
            Its `uri`, by which it is referred to, `sha256`, `width` and `height` in pixels.

        Raises:
            AdAgentError: it is no picture that is accepted, or the disk is full.
        """
        info = check_picture(content, self._limits, field="body")
        uri = f"ad://assets/{self._store.add_asset(content)}"
        return {"uri": uri, "sha256": sha256_of(content), "width": info.width, "height": info.height}

    def changed(self, job: Job, changes: dict[str, Any]) -> GenerateRequest:
        """The request of a paused job with some fields changed, to redo its last finished step.

        Raises:
            AdAgentError: a field is unknown, out of range, a picture, or belongs to an earlier step.
        """
        from_step = job.last_finished
        for name in changes:
            if name in (*PICTURE_FIELDS, *CONTROL_FIELDS, "width", "height"):
                raise invalid(
                    f"{name} cannot be changed while redoing a step; start a new job with resume_job_id instead.",
                    field=name,
                    fix=Fix(tool="generate", arguments={"resume_job_id": job.id, name: changes[name]}),
                )
            if (step := _step_of(name)) < from_step:
                raise invalid(
                    f"{name} belongs to step {step}, which is finished; to change it, call generate with resume_job_id "
                    f"and start_step {step}.",
                    field=name,
                    fix=Fix(
                        tool="generate", arguments={"resume_job_id": job.id, "start_step": step, name: changes[name]}
                    ),
                )
        try:
            request = GenerateRequest.model_validate({**job.request.model_dump(), **changes})
        except ValidationError as error:
            raise invalid_arguments(error) from error
        if request.text_content:
            self._check_words(request)
        elif job.request.text_content and from_step > 1:
            raise invalid("text_content cannot be removed here; stop the job to keep the picture as it is.")
        return request

    def _take_product(self, draft: Prepared, earlier: Job | None) -> None:
        reference = draft.request.product_image
        if reference is None:
            raise invalid(
                "product_image is missing: start_step 1 needs a photo of the product (a file path, an ad:// URI, a "
                "data: URI or base64).",
                field="product_image",
            )
        if earlier and reference == earlier.request.product_image:
            reference = f"ad://jobs/{earlier.id}/product.png"
        info = self._take(draft, "product_image", reference)
        box = draft.request.product_box
        if box is not None and (box[0] >= info.width or box[1] >= info.height):
            raise invalid(
                f"product_box {list(box)} lies outside the photo, which is {info.width} x {info.height} pixels.",
                field="product_box",
            )

    def _take_step1(self, draft: Prepared, earlier: Job | None) -> None:
        """Step 1's picture: as given, or an earlier job's; its layers too where it is one we painted."""
        request = draft.request
        reference = request.step1_image
        if reference is None:
            if earlier is None or self._store.picture(earlier.id, "step1") is None:
                raise invalid(
                    f"step1_image is missing: start_step {request.start_step} builds on step 1's picture. Give it, or "
                    "a resume_job_id whose step 1 is finished.",
                    field="step1_image",
                )
            reference = f"ad://jobs/{earlier.id}/step1.png"
        info = self._take(draft, "step1_image", reference)
        source = self._store.find_step1(sha256_of(draft.inputs["step1_image"]))
        if source is not None:
            draft.layers = self._store.step1_files(source)
            del draft.inputs["step1_image"]
        if not (MIN_CANVAS <= info.width <= MAX_CANVAS and MIN_CANVAS <= info.height <= MAX_CANVAS):
            raise invalid(
                f"step1_image is {info.width} x {info.height} pixels; the ad takes its size from it, and sides may be "
                f"{MIN_CANVAS} to {MAX_CANVAS}. Resize it first.",
                field="step1_image",
            )
        size = {"width": info.width, "height": info.height}
        if any(name in request.model_fields_set and getattr(request, name) != value for name, value in size.items()):
            draft.notices.append(
                Notice(
                    code="size_ignored",
                    message=f"The ad is {info.width} x {info.height}, the size of step 1's picture; "
                    "width and height had no effect.",
                )
            )
        draft.request = request.model_copy(
            update={**size, "step1_image": f"ad://jobs/{source}/step1.png" if source else reference}
        )

    def _take_step2(self, draft: Prepared, earlier: Job | None) -> None:
        request = draft.request
        reference = request.step2_image
        if reference is None:
            if earlier is None or self._store.picture(earlier.id, "step2") is None:
                raise invalid(
                    "step2_image is missing: start_step 3 needs the lettering of step 2. Give it, or start at step 2.",
                    field="step2_image",
                    fix=Fix(tool="generate", arguments={**small(request), "start_step": 2}),
                )
            if request.text_content != earlier.request.text_content:
                raise invalid(
                    "New words need new lettering: step 2's picture still holds the old ones. Use start_step 2.",
                    field="text_content",
                    fix=Fix(
                        tool="generate",
                        arguments={"resume_job_id": earlier.id, "start_step": 2, "text_content": request.text_content},
                    ),
                )
            reference = f"ad://jobs/{earlier.id}/step2.png"
        self._take(draft, "step2_image", reference)

    def _take(self, draft: Prepared, name: str, reference: str) -> PictureInfo:
        data = self._reader.read(reference, field=name)
        info = check_picture(data, self._limits, field=name)
        draft.inputs[name] = data
        return info

    def _check_words(self, request: GenerateRequest) -> None:
        missing = self._fonts.uncovered(request.text_content or "", request.font_name)
        if missing:
            named = " ".join(f"{character!r} (U+{ord(character):04X})" for character in missing[:8])
            raise invalid(
                f"text_content: no installed font has {named}. Leave it out, or add a font that has it to "
                "AD_AGENT_FONT_DIRS.",
                field="text_content",
            )


def invalid_arguments(error: ValidationError) -> AdAgentError:
    """A validation failure in words for an agent: every field, what is wrong with it, no library jargon."""
    problems: list[str] = []
    first: str | None = None
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "request"
        first = first or name
        value = detail.get("input")
        shown = "" if isinstance(value, str) and len(value) > 40 else f" (got {value!r})"
        message = detail["msg"].removeprefix("Value error, ")
        problems.append(f"{name}: {message[0].lower()}{message[1:]}{'' if detail['type'] == 'missing' else shown}")
    return invalid("; ".join(dict.fromkeys(problems))[:1500] + ".", field=first)


def _resumed(request: GenerateRequest, earlier: Job) -> GenerateRequest:
    """`request` with what it does not say taken from an earlier job."""
    given = request.model_fields_set
    inherited = {
        name: getattr(earlier.request, name)
        for name in earlier.request.model_fields_set - {*CONTROL_FIELDS, "step1_image", "step2_image"}
        if name not in given
    }
    inherited["start_step"] = request.start_step if "start_step" in given else _first_affected(given, earlier)
    return request.model_copy(update=inherited)


def _first_affected(given: set[str], earlier: Job) -> int:
    """The first step that a resumed job has to run when the caller did not say."""
    unfinished = earlier.remaining_steps
    changed = [_step_of(name) for name in given if name not in (*CONTROL_FIELDS, *PICTURE_FIELDS)]
    if "product_image" in given:
        changed.append(1)
    if "step1_image" in given:
        changed.append(2)
    return min([*changed, unfinished[0] if unfinished else 3])


def _step_of(name: str) -> int:
    """The first step that a request's field has an effect on."""
    if name in _STEP2_FIELDS:
        return 2
    return 3 if name == "text_position" or name.startswith("composition_") else 1


def _report_unused(draft: Prepared, given: set[str], earlier: Job | None) -> None:
    request = draft.request
    used = {"product_image": request.start_step == 1, "step1_image": request.start_step >= 2}
    used["step2_image"] = request.start_step == 3 and bool(request.text_content)
    for name, is_used in used.items():
        if getattr(request, name) is not None and not is_used and name in given:
            no_words = name == "step2_image" and not request.text_content
            why = "there are no words" if no_words else f"the job starts at step {request.start_step}"
            draft.notices.append(Notice(code="unused_argument", message=f"{name} was not used, because {why}."))
            draft.request = draft.request.model_copy(
                update={name: getattr(earlier.request, name) if earlier and name == "product_image" else None}
            )
    if not steps_to_run(request):
        draft.notices.append(
            Notice(code="no_text", message="There are no words, so the picture of step 1 is the finished ad.")
        )


def small(request: GenerateRequest) -> dict[str, Any]:
    """What the caller set, without pictures typed in as base64."""
    return {name: value for name, value in request.model_dump(mode="json").items() if len(str(value)) < 500}
