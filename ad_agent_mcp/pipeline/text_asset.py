"""Step 2: the words set in their font, and the letters painted."""

from ..contract.ad import CompositionMode
from ..contract.document import Lettering, Words
from ..contract.errors import invalid
from ..contract.stages import Stage
from ..contract.texts import say
from ..engines.draft.lettering import paint_letters
from ..imaging.picture import Picture
from ..imaging.typesetting import SetText, Typesetter, has_shaping, needs_shaping
from . import checks
from .checks import call_of
from .lettering import MIN_LETTER_SHARE, glyphs_of, larger_setting, letter_height, set_words
from .workspace import Workspace, crop, pad


def make_text_asset(workspace: Workspace, text: str) -> None:
    """Run step 2 for the words `text`: writes `step2` and reports the step.

    Raises:
        AdAgentError: `invalid_request`; the font is not listed, no font covers a character, or nothing is drawn.
        Cancelled: the job is to stop.
    """
    report = workspace.events.open_stage(Stage.TEXT_LAYOUT)
    missing = workspace.fonts.uncovered(text, workspace.request.font_name)
    if missing:
        raise invalid(say("pipeline.no_glyphs", characters=" ".join(missing)), field="text_content")
    if not has_shaping():
        _do_without_shaping(workspace, text)
    workspace.find_product(report)
    words = _set(workspace, text)
    if not words.lines:
        raise invalid(say("pipeline.words_invisible"), field="text_content")
    report.iteration(1, 1)

    size = (words.mask.shape[1], words.mask.shape[0])
    font_name = workspace.request.font_name
    told = Words(content=text, font_name=font_name, font_size_px=words.font_size_px, lines=words.lines)
    mask, seed = pad(words.mask, is_empty=True), workspace.seed_for(Stage.TEXT_PAINT)
    report = workspace.events.open_stage(Stage.TEXT_PAINT)
    painted = workspace.engine.paint_text(mask, request=workspace.request, seed=seed, report=report)
    if workspace.is_planned(Stage.TEXT_CUT_OUT):
        report = workspace.events.open_stage(Stage.TEXT_CUT_OUT)
        painted = workspace.engine.cut_out_text(painted, mask, report=report)
        if not _is_whole(workspace, crop(painted, size), told):
            painted = paint_letters(mask, workspace.request.text_model_prompt, seed=seed)
    workspace.write({"step2.png": crop(painted, size)})
    lettering = Lettering(words=told, size=size, sha256=workspace.written["step2"])
    workspace.document = workspace.document.with_words(lettering)
    workspace.finish_step(2)


def _is_whole(workspace: Workspace, letters: Picture, words: Words) -> bool:
    """Whether painted letters are still the words; warns when they are not."""
    overlap = checks.glyph_overlap(letters, glyphs_of(words, workspace.fonts, letters.shape[:2]))
    if overlap >= checks.GLYPH_LIMIT:
        return True
    told = say("pipeline.text_drawn", overlap=overlap, limit=checks.GLYPH_LIMIT)
    workspace.events.notice("text_drawn", told)
    return False


def _do_without_shaping(workspace: Workspace, text: str) -> None:
    """Say what is lost; refuse scripts whose letters would be wrong.

    Raises:
        AdAgentError: `invalid_request`.
    """
    install = say("pipeline.install_fribidi")
    if needs_shaping(text):
        raise invalid(say("pipeline.needs_shaping", install=install), field="text_content")
    workspace.events.notice("shaping_limited", say("pipeline.shaping_limited", install=install))


def _set(workspace: Workspace, text: str) -> SetText:
    """The words in the room that their place has; says so when they come out too small to read."""
    request, canvas = workspace.request, workspace.canvas
    is_behind = request.composition_mode is CompositionMode.BEHIND
    typesetter = Typesetter(workspace.fonts, request.font_name)
    product, position = workspace.product_matte, request.text_position
    words = set_words(text, typesetter, canvas, product, position=position, is_behind=is_behind)
    least = MIN_LETTER_SHARE * min(canvas)
    height = letter_height(text, typesetter, words.font_size_px)
    if words.lines and height < least:
        fewer = max(1, int(len(text) * (height / least) ** 2))
        again = larger_setting(text, typesetter, workspace.step1, product, job_id=workspace.job.job_id)
        told = say("pipeline.text_small", height=height, least=least, fewer=fewer)
        if again:
            told = say("pipeline.text_larger", what=told, call=call_of(again))
        workspace.events.notice("text_small", told)
    return words
