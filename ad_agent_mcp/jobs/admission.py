"""From a request to a job that can run: resume, references, pictures, fonts. Refuses before anything is stored."""

import random
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Settings
from ..contract.arguments import read_arguments
from ..contract.call import Call, GenerateRequest
from ..contract.errors import AdAgentError, Fix, invalid
from ..contract.fields import GENERATE, first_step, inherited
from ..contract.notices import notice
from ..contract.schemas import Notice
from ..contract.texts import say
from ..contract.words import mended
from ..files import sha256_of
from ..media.decode import PictureInfo, PictureLimits, check_picture
from ..media.fonts import FontCatalog
from .image_refs import ReferenceReader
from .job import Job, steps_to_run
from .lookup import find_job_id
from .resume import resumed
from .store import JobStore

MIN_CANVAS, MAX_CANVAS = 256, 2048


@dataclass
class Prepared:
    """A request on its way to how it will run.

    Attributes:
        request: in the end with `ad://` URIs under the new job for references, and a seed.
        given: what the caller set, in this call or in those that it goes on from.
        inputs: original bytes of its pictures by field name.
        layers: files to take over from another job, by file name.
        notices: what the caller set that will have no effect.
    """

    request: GenerateRequest
    given: frozenset[str]
    inputs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    layers: dict[str, Path] = field(default_factory=dict[str, Path])
    notices: list[Notice] = field(default_factory=list[Notice])


class Admission:
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
        given = frozenset(request.model_fields_set)
        earlier = self._earlier(request.resume_job_id) if request.resume_job_id else None
        draft = Prepared(request, given)
        if earlier:
            draft = Prepared(resumed(request, given, earlier), given | (earlier.given & inherited()))
        if "text_content" in given:
            _mend_words(draft)
        request = draft.request
        if request.start_step == 1:
            self._take_product(draft, earlier)
        else:
            self._take_step1(draft, earlier, given)
        if request.start_step == 3 and request.text_content:
            self._take_step2(draft, earlier)
        _report_unused(draft, given, earlier)
        if request.text_content and request.start_step <= 2:
            self._check_words(request)
        changes: dict[str, Any] = {
            name: f"ad://jobs/{job_id}/{name.removesuffix('_image')}.png" for name in draft.inputs
        }
        if "font_name" in draft.given:
            changes["font_name"] = self._fonts.name_of(request.font_name)
        if draft.request.seed is None:
            changes["seed"] = _any_seed()
        draft.request = draft.request.model_copy(update=changes)
        return draft

    def _earlier(self, named: str) -> Job:
        try:
            return self._store.load(find_job_id(named, self._store, field="resume_job_id"))
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

    def changed(self, job: Job, changes: dict[str, Any]) -> Prepared:
        """The request of a paused job with some fields changed, to make its last finished step again, and notices.

        Args:
            job: as it waits.
            changes: fields with their new values; without any, the step is made again with another seed.

        Raises:
            AdAgentError: a field is unknown, out of range, a picture, or belongs to an earlier step.
        """
        from_step = job.last_finished
        if "text_content" in changes and not changes["text_content"]:
            raise _no_words_left()
        read = _read_changes(job, changes)
        given = {name: getattr(read, name) for name in read.model_fields_set}
        for name in given:
            is_of_call, anew = name in Call.model_fields, {"resume_job_id": job.id, name: changes[name]}
            if GENERATE[name].is_picture or is_of_call or name in ("width", "height"):
                raise invalid(
                    say("admission.cannot_redo", name=name),
                    field=name,
                    fix=None if is_of_call or _is_long(changes[name]) else Fix(tool="generate", arguments=anew),
                )
            if name != "seed" and (step := first_step(name)) < from_step:
                raise invalid(
                    say("admission.of_finished_step", name=name, step=step),
                    field=name,
                    fix=Fix(tool="generate", arguments={**anew, "start_step": step}),
                )
        update = given or {"seed": _any_seed()}
        draft = Prepared(job.request.model_copy(update=update), job.given.union(given))
        if "text_content" in given:
            _mend_words(draft)
        if draft.request.text_content:
            self._check_words(draft.request)
        elif job.request.text_content:
            raise _no_words_left()
        return draft

    def _take_product(self, draft: Prepared, earlier: Job | None) -> None:
        reference = draft.request.product_image
        if reference is None:
            raise invalid(say("admission.no_product"), field="product_image")
        if earlier and reference == earlier.request.product_image:
            reference = f"ad://jobs/{earlier.id}/product.png"
        info = self._take(draft, "product_image", reference)
        if draft.request.product_box is not None:
            _check_box(draft, draft.request.product_box, info)

    def _take_step1(self, draft: Prepared, earlier: Job | None, given: Set[str]) -> None:
        """Step 1's picture: as given, or an earlier job's; its layers too where it is one we painted."""
        request = draft.request
        reference = request.step1_image
        if reference is None:
            if earlier is None or self._store.picture(earlier.id, "step1") is None:
                raise invalid(say("admission.no_step1", step=request.start_step), field="step1_image")
            reference = f"ad://jobs/{earlier.id}/step1.png"
        info = self._take(draft, "step1_image", reference)
        source = self._store.find_step1(sha256_of(draft.inputs["step1_image"]))
        if source is not None:
            draft.layers = self._store.step1_files(source)
            del draft.inputs["step1_image"]
        size = {"width": info.width, "height": info.height}
        if not all(MIN_CANVAS <= side <= MAX_CANVAS for side in size.values()):
            told = say("admission.step1_size", **size, least=MIN_CANVAS, most=MAX_CANVAS)
            raise invalid(told, field="step1_image")
        if any(name in given and getattr(request, name) != value for name, value in size.items()):
            draft.notices.append(notice("size_ignored", say("admission.size_ignored", **size)))
        draft.request = request.model_copy(
            update={**size, "step1_image": f"ad://jobs/{source}/step1.png" if source else reference}
        )

    def _take_step2(self, draft: Prepared, earlier: Job | None) -> None:
        request = draft.request
        reference = request.step2_image
        if reference is None:
            if earlier is None or self._store.picture(earlier.id, "step2") is None:
                raise invalid(
                    say("admission.no_step2"),
                    field="step2_image",
                    fix=_again(draft, start_step=2),
                )
            if request.text_content != earlier.request.text_content:
                raise invalid(
                    say("admission.new_words"),
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
            raise invalid(say("admission.no_glyphs", characters=named), field="text_content")


def _check_box(draft: Prepared, box: tuple[int, int, int, int], info: PictureInfo) -> None:
    """Refuse a box that reaches outside the photo, which is what two corners look like.

    Raises:
        AdAgentError: it does; the fix holds the box that was probably meant.
    """
    x, y, right, bottom = box
    if x + right <= info.width and y + bottom <= info.height:
        return
    meant, hint = list[int](), say("admission.box_elsewhere")
    if x < right <= info.width and y < bottom <= info.height:
        meant = [x, y, right - x, bottom - y]
        hint = say("admission.box_of_corners", meant=str(meant))
    elif x < info.width and y < info.height:
        meant = [x, y, min(right, info.width - x), min(bottom, info.height - y)]
        hint = say("admission.box_inside", meant=str(meant))
    raise invalid(
        say("admission.box", box=str(list(box)), width=info.width, height=info.height, hint=hint),
        field="product_box",
        fix=_again(draft, product_box=meant) if meant else None,
    )


def _read_changes(job: Job, changes: dict[str, Any]) -> GenerateRequest:
    """Changes like the arguments of `generate`; what was probably meant comes back as the redo that it is."""
    try:
        return read_arguments("generate", GenerateRequest, changes)
    except AdAgentError as error:
        if error.info.fix is not None:
            redo = {"job_id": job.id, "action": "redo", "changes": error.info.fix.arguments}
            error.info = error.info.model_copy(update={"fix": Fix(tool="approve_step", arguments=redo)})
        raise


def _no_words_left() -> AdAgentError:
    return invalid(say("admission.no_words_left"), field="text_content")


def _any_seed() -> int:
    return random.SystemRandom().randrange(2**32)


def _mend_words(draft: Prepared) -> None:
    """Undo what happened to the words on their way, and say so."""
    words = mended(draft.request.text_content or "")
    draft.request = draft.request.model_copy(update={"text_content": words.text})
    said = (("text_mended", words.mended), ("text_suspicious", words.suspicious))
    draft.notices += [notice(code, words) for code, words in said if words is not None]


def _report_unused(draft: Prepared, given: Set[str], earlier: Job | None) -> None:
    """Tell what the caller set for steps that the job does not run; a picture among it is let go of."""
    request = draft.request
    running = steps_to_run(request)
    for name in sorted(given, key=list(GENERATE).index):
        row, value = GENERATE[name], getattr(request, name)
        is_used = not set(row.steps).isdisjoint(running) or (name == "step1_image" and request.start_step > 1)
        is_size = name in ("width", "height")  # step 1's picture decides, and tells
        if not row.steps or is_used or is_size or value == _default(name):
            continue
        if max(row.steps) < request.start_step:
            told = say("admission.unused_before", name=name, step=request.start_step)
        else:
            told = say("admission.unused_without_words", name=name)
        draft.notices.append(notice("unused_argument", told))
        if row.is_picture:
            kept = getattr(earlier.request, name) if earlier and name == "product_image" else None
            draft.request = draft.request.model_copy(update={name: kept})
    if not running:
        draft.notices.append(notice("no_text", say("admission.no_text")))


def _default(name: str) -> object:
    return GenerateRequest.model_fields[name].default


def small(request: GenerateRequest, given: Set[str]) -> dict[str, Any]:
    """What the caller set, without pictures typed in as base64."""
    dumped = request.model_dump(mode="json", include=set(given))
    return {name: value for name, value in dumped.items() if not _is_long(value)}


def _is_long(value: object) -> bool:
    return len(str(value)) >= 500


def _again(draft: Prepared, **changes: Any) -> Fix | None:
    """The call once more with changes; None where it held a picture that is too large to repeat."""
    arguments = small(draft.request, draft.given)
    is_whole = len(arguments) == len(draft.given)
    return Fix(tool="generate", arguments={**arguments, **changes}) if is_whole else None
