"""A stored job's checks, made again from its files as they are now. Needs no server and no engine."""

from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from ..contract.document import PRODUCT_Z, Document, read_document
from ..contract.errors import invalid
from ..contract.schemas import Check
from ..contract.texts import Text, TextError, say
from ..imaging.picture import Picture, box_of, from_image
from ..imaging.placement import Spot
from ..media.decode import decode_picture
from ..media.fonts import FontCatalog
from . import checks
from .lettering import glyphs_of, placed_letters
from .render import render, stack


def job_folder(name: str, data_dir: Path) -> Path:
    """The folder of the job that `name` is: its path, one of its files, or its id in `data_dir`.

    Raises:
        AdAgentError: `invalid_request`; there is no job with a finished picture.
    """
    given = Path(name)
    for folder in (given.parent if given.is_file() else given, data_dir / "jobs" / given.name):
        if (folder / "layout.json").is_file():
            if (folder / "final.png").is_file():
                return folder
            raise invalid(say("pipeline.unfinished", folder=folder), field="job")
    raise invalid(say("pipeline.no_job", name=name, folder=data_dir), field="job")


def verify_job(folder: Path, fonts: FontCatalog) -> tuple[Check, ...]:
    """Measure the finished picture in `folder` again.

    What its own checks called not applicable (a product that was not locked, words that are not ours) stays so.

    Raises:
        AdAgentError: `invalid_request`; a file is missing or damaged.
        OSError: a file cannot be read.
    """
    document = _document(folder)
    final = _picture(folder / "final.png", "RGB")
    cutout = _picture(folder / "cutout.png", "RGBA") if (folder / "cutout.png").is_file() else None
    for picture in (final, cutout):
        if picture is not None and picture.shape[1::-1] != document.canvas:
            raise invalid(say("pipeline.other_size", folder=folder), field="job")
    was_judged = {check.name for check in document.checks if check.passed is not None}
    product = document.product if "product_core_identity" in was_judged else None
    source = folder / "inputs" / "product_image"
    if cutout is not None and product is not None and source.is_file():
        error_now = checks.source_error(decode_picture(source.read_bytes()), product, cutout)
        product = product.model_copy(update={"source_error": error_now})
    drawn = document.lettering
    if drawn is None or drawn.box is None or not (folder / "step2.png").is_file():
        return checks.wordless_checks(final, cutout, product)
    lettering = _picture(folder / "step2.png", "RGBA")
    words = drawn.words if "glyph_overlap" in was_judged else None
    glyphs = None if words is None else glyphs_of(words, fonts, (lettering.shape[0], lettering.shape[1]))
    where = Spot(drawn.box, drawn.scale, is_behind=drawn.z < PRODUCT_Z)
    placed = placed_letters(lettering, where, document.canvas, glyphs)
    return checks.all_checks(final, placed, cutout, product, job_id=document.job_id)


def rendering_trouble(folder: Path) -> Text | None:
    """Why the finished picture in `folder` is not the rendering of its document, in a sentence.

    Returns:
        None where it is, or where that cannot be known: version 0.1 kept no layers of its letters.

    Raises:
        AdAgentError: `invalid_request`; the document is damaged.
        OSError: `final.png` cannot be read.
    """
    document = _document(folder)
    if not document.is_drawn:
        return None
    final = _picture(folder / "final.png", "RGB")
    try:
        rendered = render(document, {layer.file: _layer(folder / layer.file) for layer in stack(document)})
    except ValueError as error:
        return say("pipeline.not_rendered", reason=error)
    if rendered.shape != final.shape:
        return say("pipeline.rendered_size")
    changed = (rendered != final).any(axis=2)
    if not changed.any():
        return None
    return say("pipeline.rendered_pixels", count=int(changed.sum()), box=str(box_of(changed)))


def _layer(path: Path) -> Picture:
    try:
        return _picture(path, "RGBA")
    except (OSError, SyntaxError, ValueError) as error:
        raise TextError(say("pipeline.layer_damaged", file=path.name)) from error


def _document(folder: Path) -> Document:
    try:
        return read_document((folder / "layout.json").read_bytes())
    except ValidationError as error:
        raise invalid(say("pipeline.document_damaged", file=folder / "layout.json"), field="job") from error


def _picture(path: Path, mode: str) -> Picture:
    with Image.open(path) as image:
        return from_image(image.convert(mode))
