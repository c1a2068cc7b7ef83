"""What people and agents are told, as a key and values, and the one catalogue that has the words in each language.

The text `media.animated` is the entry `animated` of `media.json` here, with its words by language. They are written
for `str.format` with named placeholders; `_Words` says what a placeholder may be besides. The catalogue is read when
the first text is shown. Knows nothing about who is told, and when.
"""

import functools
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field
from pydantic.json_schema import SkipJsonSchema

from ..record import Record

Language = Literal["en", "ko"]
MAX_TEXT_CHARS = 4000
"""The longest message that is made, stored or shown: a library's may hold megabytes, and hide all else."""
_LIEUL = 8
"""Index of ㄹ among the final consonants of Hangul; (으)로 takes it for a vowel."""
_FINALS_OF_DIGITS = {"0": 1, "1": _LIEUL, "3": 1, "6": 1, "7": _LIEUL, "8": _LIEUL}
_ENDS_IN_L = re.compile(r"(?:l|\b[A-Z]*[LR])$")
_ENDS_IN_CONSONANT = re.compile(r"(?:[mn]|ng|[aeiou][bckpt]|\b[A-Z]*[MN])$")
"""How Latin words end that Korean speaks with a final consonant, as good as spelling tells."""


def shortened(text: str) -> str:
    """`text` with so much left out of its middle that `MAX_TEXT_CHARS` remain, which is said."""
    if len(text) <= MAX_TEXT_CHARS:
        return text
    head, tail = MAX_TEXT_CHARS * 3 // 4, MAX_TEXT_CHARS // 5
    return f"{text[:head]} [... {len(text) - head - tail:,} characters left out ...] {text[-tail:]}"


MessageText = Annotated[str, AfterValidator(shortened)]
"""What is told to people and agents, wherever it comes from: made here, sent over the pipe, or read from disk."""


class Text(Record):
    """One thing to tell, not yet in a language; `str()` is in English. Made by `say`.

    A value is a number, something that stays as it is in every language (a name, a path, a library's own words),
    another text, or several of these.
    """

    key: str
    values: dict[str, "str | int | float | Text | tuple[str | int | float | Text, ...]"] = Field(
        default_factory=dict[str, Any]
    )

    @property
    def en(self) -> str:
        """In English."""
        return self.in_("en")

    def in_(self, language: Language) -> str:
        """In `language`.

        Raises:
            LookupError, ValueError: no such text is known here, or not with these values: another version made it.
        """
        return _Words(language).vformat(catalogue()[self.key][language], (), self.values)

    def __str__(self) -> str:
        return self.en

    def __hash__(self) -> int:
        return hash(self.key)  # the values may be compared, not hashed


class TextError(ValueError):
    """Raised where a value is refused and the reason is to be shown in any language."""

    def __init__(self, text: Text) -> None:
        super().__init__(text)
        self.text = text


def say(key: str, /, **values: object) -> Text:
    """The text `key` of the catalogue with `values` in its placeholders.

    An error stands for what it says; a list for its members; whatever else is no text or number, for its `str`.
    """
    return Text(key=key, values={name: _value(value) for name, value in values.items()})


def _value(value: object) -> Any:
    if isinstance(value, Exception) and isinstance(said := getattr(value, "text", None), Text):
        return said
    if isinstance(value, list | tuple):
        return tuple(_value(one) for one in cast(list[object], value))
    return value if isinstance(value, str | int | float | Text) else str(value)


def _kept(told: Text | None) -> Text | None:
    """`told` with its values as long as they are stored."""
    if told is None:
        return None
    values = {
        name: _kept(value) if isinstance(value, Text) else shortened(value) if isinstance(value, str) else value
        for name, value in told.values.items()
    }
    return told.model_copy(update={"values": values})


KeptText = Annotated[SkipJsonSchema[Text | None], AfterValidator(_kept), Field(exclude_if=lambda told: told is None)]
"""What a stored message was made from, so that it can be shown in any language. No client sees it: see `shown_in`."""


@functools.cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """Every text by its key, each with its words by language."""
    files = sorted(Path(__file__).parent.glob("*.json"))
    return {
        f"{path.stem}.{name}": words for path in files for name, words in json.loads(path.read_text("utf-8")).items()
    }


class _Words(string.Formatter):
    """Fills placeholders in one language.

    A text is shown in the language of what it stands in. Several values are joined by what follows the colon, else by
    ", ". `{name:을/를}` has the value with the Korean particle that fits its end.
    """

    def __init__(self, language: Language) -> None:
        self._language: Language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, tuple):
            return (format_spec or ", ").join(self.format_field(one, "") for one in cast(tuple[object, ...], value))
        if isinstance(value, Text):
            value = value.in_(self._language)
        if "/" in format_spec:
            return f"{value}{_particle(str(value), *format_spec.split('/'))}"
        return format(value, format_spec)


def _particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """The particle that fits `word` as it is spoken."""
    end = re.sub(r"[^\w%]+$", "", word)
    last = end[-1:]
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
    elif _ENDS_IN_L.search(end):
        final = _LIEUL
    else:
        final = _FINALS_OF_DIGITS.get(last, 0) or bool(_ENDS_IN_CONSONANT.search(end))
    is_closed = final and not (final == _LIEUL and after_vowel == "로")
    return after_consonant if is_closed else after_vowel
