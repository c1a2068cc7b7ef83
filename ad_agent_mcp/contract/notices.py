"""What a caller is told of a job that goes on, and how what is stored is shown in a language."""

import contextlib
from typing import Final, TypeVar

from .errors import ErrorInfo
from .schemas import Notice
from .texts import Language, Text, shortened

_Told = TypeVar("_Told", ErrorInfo, Notice)

NOTICES: Final = {
    "behind_unreadable": "letters behind the product would be hidden, and stand elsewhere",
    "blend_reduced": "a blend was partly taken back, so that the words can be read",
    "check_missed": "a check of the finished ad failed although every remedy was tried",
    "copy_failed": "the ad was not copied to AD_AGENT_OUTPUT_DIR; it is kept with its job",
    "cutout_uncertain": "the product may be cut out badly: look at the cutout",
    "lettering_simplified": "part of text_model_prompt had no effect on the drawn letters",
    "memory_rung": "the GPU's memory ran out, and a pass was tried again with less",
    "no_text": "there are no words, so step 1's picture is the ad",
    "not_compiled": "the models run uncompiled, and slower",
    "not_supported": "the engine has no use for these arguments",
    "pass_skipped": "a pass would have had no iteration",
    "preset_steps": "a preset of few steps ran with numbers of its own",
    "product_unverified": "step 1's picture is no stored result, so the product cannot be compared with its photo",
    "product_upscaled": "the product is small in its photo and was enlarged",
    "prompt_not_english": "a prompt holds Hangul, which the models do not read",
    "prompt_truncated": "a prompt is longer than its model reads",
    "scene_simplified": "the draft engine painted one of its own scenes; told with the words that it followed",
    "shaping_limited": "the script needs a shaping library that is not installed",
    "size_ignored": "width and height had no effect: step 1's picture decides",
    "text_contrast_remedy": "letters or picture were changed, so that the words can be read",
    "text_drawn": "painted letters were not the words, and drawn ones took their place",
    "text_mended": "damage that the words took on their way was undone",
    "text_position_unused": "the words could not go where text_position says",
    "text_small": "the words come out too small to be read",
    "text_suspicious": "the words were kept, but look damaged",
    "text_unverified": "step2_image is no stored result, so its letters cannot be checked",
    "unused_argument": "an argument speaks of a step that the job does not run",
}
"""The codes of `warnings`, each with when it comes."""


def notice(code: str, text: Text) -> Notice:
    """The notice `code` that says `text`."""
    return Notice(code=code, message=text.en, text=text)


def shown_in(language: Language, told: _Told) -> _Told:
    """`told` as a client sees it: its message in `language`, without what it was made from.

    What has no text, or one that this version does not know, is shown as it was stored, in English.
    """
    message = told.message
    if told.text is not None and language != "en":
        with contextlib.suppress(LookupError, ValueError):
            message = shortened(told.text.in_(language))
    return told.model_copy(update={"message": message, "text": None})
