"""What an ad is, and how an engine is to work on it: the parts of a request that outlive the call.

Knows neither the call they came with nor jobs. Validation here is about shape; whether a file exists or a font covers
a word is the server's business.
"""

import unicodedata
from enum import StrEnum
from typing import Annotated, cast

from pydantic import ConfigDict, Field, WithJsonSchema, field_validator

from .record import Record
from .texts import TextError, say
from .words import LOST_CHARACTER, canonical, mended

ImageReference = Annotated[str, Field(min_length=1)]
"""Base64, a `data:` URI, an `ad://` URI of this server, or a path inside an allowed folder."""

ProductBox = Annotated[
    tuple[int, int, int, int],
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}),
]
MAX_WORDS = 200
"""Characters of an ad's words, counted after composition: macOS writes one Hangul syllable as three."""
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
Prompt = Annotated[str, Field(max_length=2000)]


class CompositionMode(StrEnum):
    """How letters and picture meet."""

    OVERLAY = "overlay"
    BLEND = "blend"
    BEHIND = "behind"


class TextPosition(StrEnum):
    """Where the words go."""

    TOP = "top"
    CENTER = "center"
    BOTTOM = "bottom"
    AUTO = "auto"


class Ad(Record):
    """The ad: its pictures, its words, its scene, and how they meet."""

    model_config = ConfigDict(allow_inf_nan=False)

    product_image: Annotated[
        ImageReference | None,
        Field(description="Photo: file path, ad:// URI, data: URI or base64. Needed for start_step 1"),
    ] = None
    product_box: Annotated[
        ProductBox | None, Field(description="[x, y, w, h] px: where the product is in the photo")
    ] = None
    text_content: Annotated[
        str | None,
        Field(description="The ad's words, any language; a line break is \\n"),
        WithJsonSchema({"anyOf": [{"type": "string", "maxLength": MAX_WORDS}, {"type": "null"}]}),
    ] = None
    bg_prompt: Annotated[
        Prompt,
        Field(
            description="The scene, in English. Empty: a clean studio. The draft engine has studio, wood, water, "
            "night, marble, gradient; colours, day or dusk"
        ),
    ] = ""
    bg_negative_prompt: Prompt = "blurry, low quality, distorted"
    bg_composition_prompt: Annotated[Prompt | None, Field(description="Product in scene; null: bg_prompt")] = None
    bg_composition_negative_prompt: Prompt = "floating, disconnected, unrealistic shadows"
    step1_image: Annotated[ImageReference | None, Field(description="Step 1 picture to reuse, maybe edited")] = None
    step2_image: Annotated[ImageReference | None, Field(description="Step 2 lettering (RGBA) to reuse")] = None
    text_model_prompt: Annotated[
        Prompt,
        Field(
            description="Look of the letters, in English. The draft engine has balloon, gold, rose gold, chrome, "
            "candy, neon, wood, stone, flat; any colour"
        ),
    ] = "3D render of Gold foil balloon text, inflated, shiny metallic texture"
    negative_prompt: Prompt = "floor, ground, dirt, debris, ugly, low quality"
    font_name: Annotated[str, Field(max_length=200, description="A name from `fonts`")] = "NanumSquare/NanumSquareB.ttf"
    composition_mode: Annotated[
        CompositionMode, Field(description="Letters on top, mixed into the scene, or behind the product")
    ] = CompositionMode.OVERLAY
    text_position: Annotated[
        TextPosition, Field(description="auto: the largest free area. From step 1 on the product makes room")
    ] = TextPosition.TOP
    composition_prompt: Annotated[Prompt | None, Field(description="Style of the blend")] = None
    composition_negative_prompt: Prompt = "floating, disconnected, bad integration"
    width: Annotated[int, Field(ge=256, le=2048)] = 1024
    height: Annotated[int, Field(ge=256, le=2048)] = 1024
    product_lock: Annotated[bool, Field(description="Never change the product's pixels")] = True

    @field_validator("text_content", mode="before")
    @classmethod
    def _said_in_other_types(cls, words: object) -> object:
        """A number is its digits, a list its lines."""
        lines = cast(list[object], words) if isinstance(words, list) else [words]
        is_words = all(isinstance(line, str | int | float) and not isinstance(line, bool) for line in lines)
        return "\n".join(str(line) for line in lines) if is_words else cast(object, words)

    @field_validator("text_content")
    @classmethod
    def _readable_text(cls, text: str | None) -> str | None:
        """Canonical Hangul (NFC), plain line breaks; blank means none.

        Length and characters are judged as `words.mended` will set them, which is left to whoever can say so.
        """
        if text is None:
            return None
        words = mended(text).text or ""
        if LOST_CHARACTER in words:
            raise TextError(say("contract.words_lost"))
        if len(words) > MAX_WORDS:
            raise TextError(say("contract.words_too_long", most=MAX_WORDS, count=len(words)))
        for character in words:
            category = unicodedata.category(character)
            if character != "\n" and (category in ("Cc", "Cs", "Co", "Cn") or character in BIDI_CONTROLS):
                raise TextError(say("contract.words_control_character", code=ord(character)))
        return canonical(text).strip() or None

    @field_validator("product_box")
    @classmethod
    def _box_has_area(cls, box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if box is not None and (min(box) < 0 or box[2] < 1 or box[3] < 1):
            raise TextError(say("contract.box_without_area"))
        return box


class Knobs(Record):
    """How much work an engine puts into the ad, and how far it may go."""

    model_config = ConfigDict(allow_inf_nan=False)

    composition_strength: Annotated[float, Field(ge=0, le=1)] = 0.4
    composition_steps: Annotated[int, Field(ge=1, le=100)] = 28
    composition_guidance_scale: Annotated[float, Field(ge=0, le=20)] = 3.5
    strength: Annotated[float, Field(ge=0, le=1, description="How far the scene is painted over round the product")] = (
        0.6
    )
    guidance_scale: Annotated[float, Field(ge=0, le=20)] = 3.5
    num_inference_steps: Annotated[int | None, Field(ge=1, le=100, description="Of the scene; null: the preset's")] = (
        None
    )
    seed: Annotated[int | None, Field(ge=0, le=2**32 - 1, description="null: any. Another one, another ad")] = None
