"""The words of an ad as they were meant: damage of the way to us is mended where it is certain, else told.

Pure; knows neither fonts nor jobs. Words that may be meant as they stand are never changed.
"""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from .texts import Text, say

LOST_CHARACTER = "\ufffd"
"""Stands for characters that could not be decoded."""
_SHOWN = 60
_ROUNDS = 4
"""Words are escaped twice now and then, hardly more often."""

_BLANKS = "\u115f\u1160\u3164\uffa0\u2800"
"""Hangul fillers and the empty Braille cell: letters and symbols by category, with nothing to see."""
_NO_WORDS = frozenset({"null", "none", "undefined"})

_INLINE = "a|abbr|b|big|code|del|em|font|i|ins|mark|s|small|span|strike|strong|sub|sup|u"
_BLOCK = "blockquote|center|div|h[1-6]|li|ol|p|pre|section|table|tbody|td|tr|ul"
_TAG = re.compile(rf"</?(?:{_INLINE}|{_BLOCK}|br|hr|img)\b[^<>]*>", re.IGNORECASE)
_BREAK = re.compile(r"[^\S\n]*<\s*/?\s*br\b[^<>]*>[^\S\n]*\n?", re.IGNORECASE)
_PAIRED = re.compile(rf"<({_INLINE}|{_BLOCK})(?:\s[^<>]*)?>((?:(?!<\1\b).)*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
_LONE = re.compile(rf"<(?:{_INLINE}|{_BLOCK}|img)\s[^<>]*=[^<>]*>|</(?:{_INLINE}|{_BLOCK})\s*>|<!--.*?-->", re.I | re.S)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&(?:amp|nbsp|quot|lt|gt)\b(?!;)")

_DRIVE = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\|^\\\\\w")
"""A Windows path has backslashes of its own."""
_LINE = re.compile(r"\\+r\\+n|\\+n|\\+r(?![a-z])")
_BYTES = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2}){2,}")
_UNICODE = re.compile(r"(?:\\+u[0-9a-fA-F]{4})+|\\+u\{[0-9a-fA-F]{1,6}\}|\\+U[0-9a-fA-F]{8}")
_WON = re.compile(r"(?:(?<=\d{3})|(?<=,\d{3}))\\(?!\d)|(?<=\d)\\(?=\s|$)|(?<![A-Za-z0-9\\:])\\(?=\d)|^\\ (?=\d)")

_MARKS = (
    re.compile(r"```\w*\n(.+?)\n?```", re.DOTALL),
    re.compile(r"(?<![\w*])\*\*\*?(?=[^\s*])([^\n]+?)(?<=[^\s*])\*\*\*?(?!\*)"),
    re.compile(r"(?<![\w_])__(?=[^\s_])([^\n]+?)(?<=[^\s_])__(?![\w_])"),
    re.compile(r"(?<![\w~])~~(?=\S)([^\n~]+?)(?<=\S)~~(?!~)"),
    re.compile(r"(?<![\w`])`([^`\n]+)`(?!`)"),
    re.compile(r"^#{1,6} +(?!\d)(\S.*)$", re.MULTILINE),
    re.compile(r"!?\[([^\]\n]+)\]\((?:https?:|mailto:|/)[^)\s]*\)"),
)
"""What Markdown puts round words; the group is the words."""

_SUSPECTS = (
    (re.compile(r"\\"), say("contract.suspect_backslash")),
    (
        re.compile(r"\$?\{+\s*[\w .-]+\s*\}+|(?<![\w%])%(?:[sd]|\(\w+\)s)(?![A-Za-z0-9])"),
        say("contract.suspect_placeholder"),
    ),
    (re.compile(r"\[object Object\]|(?<![A-Za-z])(?:NaN|null|undefined)(?![A-Za-z])"), say("contract.suspect_nothing")),
    (re.compile(r"&[A-Za-z]\w*;|&#\w+;"), say("contract.suspect_entity")),
    (_TAG, say("contract.suspect_tag")),
    (re.compile(r"</?[A-Za-z가-힣][^>]*$|<\s*$"), say("contract.suspect_lone_less")),
    (
        re.compile(r"\w\*\*\w+\*\*|\*\*\w+\*\*\w|(?<![\w*_])([*_])(?=[^\s*_])[^\n*_]+(?<=[^\s*_])\1(?![\w*_])"),
        say("contract.suspect_markdown"),
    ),
    (re.compile(r'^\{\s*"\w+"\s*:'), say("contract.suspect_json")),
    (re.compile("占쏙옙?|ï¿½"), say("contract.suspect_lost")),
    (re.compile(r"^[?\s]*\?\s*\?[?\s]*$"), say("contract.suspect_question_marks")),
)


class Words(NamedTuple):
    """`text` as it is to be set, None without any; `mended` and `suspicious` are for the caller, or None."""

    text: str | None
    mended: Text | None = None
    suspicious: Text | None = None


def mended(came: str) -> Words:
    """The words that `came` was before it was damaged on its way.

    Mended are escapes (`\\n`, `\\u00e9`), HTML entities and tags, Markdown marks, a backslash beside a price, and
    words that stand for no words. Mending what was mended changes nothing.
    """
    result, done = canonical(came), dict[str, Text]()
    for _ in range(_ROUNDS):
        before = result
        for damage, repair in _REPAIRS:
            if (changed := repair(result)) != result:
                result = changed
                done[damage.key] = damage
        if result == before:
            break
    result = canonical(result).strip(f"{_BLANKS}\u200b\ufeff \t\n\u00a0\u3000")
    if is_blank(result):
        if done:
            return Words(None, say("contract.words_unseen_after", shown=_shown(came)))
        return Words(None, say("contract.words_unseen") if came.strip() else None)
    if result.casefold() in _NO_WORDS:
        return Words(None, say("contract.words_none", shown=_shown(came)))
    damages = list(done.values())
    told = say("contract.words_mended", damages=damages, came=_shown(came), meant=_shown(result)) if done else None
    return Words(result, told, _suspicions(result))


def canonical(text: str) -> str:
    """`text` with composed characters (NFC), plain line breaks and no tabs."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "))


def is_blank(text: str) -> bool:
    """Whether there is nothing to see: blanks, fillers, joiners and selectors only."""
    return all(
        character in _BLANKS or character.isspace() or unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp")
        or _is_selector(character)
        for character in text
    )  # fmt: skip


def _is_selector(character: str) -> bool:
    code = ord(character)
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F or code == 0x034F


def _unescaped(text: str) -> str:
    if _DRIVE.search(text):
        return text
    text = _BYTES.sub(lambda found: _decoded(bytes.fromhex(found[0].replace("\\x", ""))) or found[0], text)
    text = _UNICODE.sub(lambda found: _characters(found[0]), text)
    text = re.sub(r"[^\S\n]*(?:" + _LINE.pattern + r")[^\S\n]*", "\n", text)
    return re.sub(r"\\+([\"'])", r"\1", re.sub(r"\\+t", " ", text))


def _characters(escapes: str) -> str:
    """What `\\uXXXX` escapes stand for; themselves where that is no character to be seen."""
    codes = [int(code, 16) for code in re.findall(r"[0-9a-fA-F]{4,8}|(?<=\{)[0-9a-fA-F]+", escapes)]
    try:
        units = b"".join(chr(code).encode("utf-16-be", "surrogatepass") for code in codes)
        result = units.decode("utf-16-be")
    except ValueError:
        return escapes
    visible = (
        unicodedata.category(character) not in ("Cc", "Cn", "Co") or character in "\t\n\r" for character in result
    )
    return result if all(visible) else escapes


def _decoded(octets: bytes) -> str | None:
    """Bytes that are UTF-8, or Western letters one by one."""
    try:
        return octets.decode() if max(octets) > 0x7F or octets == b"\n" else None
    except UnicodeDecodeError:
        return octets.decode("latin-1") if min(octets) >= 0xC0 else None


def _from_percent(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        return _decoded(bytes.fromhex(found[0].replace("%", ""))) or found[0]

    return re.sub(r"(?<=[^\W\d])%20(?=[^\W\d])", " ", _PERCENT.sub(character, text))


def _from_html(text: str) -> str:
    text = _ENTITY.sub(lambda found: html.unescape(found[0]).replace("\u00a0", " "), text)
    text = _BREAK.sub("\n", text)
    for _ in range(_ROUNDS):
        text = _PAIRED.sub(_inner, text)
    return _LONE.sub("", text)


def _inner(found: re.Match[str]) -> str:
    is_block = re.fullmatch(_BLOCK, found[1], re.IGNORECASE) is not None
    after = "\n" if is_block and found.string[found.end() :].strip() else ""
    return found[2].strip() + after if is_block else found[2]


def _unmarked(text: str) -> str:
    for pattern in _MARKS:
        text = pattern.sub(r"\1", text)
    return text


def _with_won(text: str) -> str:
    return text if _DRIVE.search(text) else _WON.sub("₩", text)


def _from_json(text: str) -> str:
    """The lines of a list that came as JSON."""
    if not re.fullmatch(r'\[\s*".*"\s*\]', text.strip(), re.DOTALL):
        return text
    try:
        lines = cast(list[object], json.loads(text))
    except (ValueError, RecursionError):
        return text
    return "\n".join(map(str, lines)) if all(isinstance(line, str | int) for line in lines) else text


_REPAIRS: tuple[tuple[Text, Callable[[str], str]], ...] = (
    (say("contract.damage_json_list"), _from_json),
    (say("contract.damage_backslash_escapes"), _unescaped),
    (say("contract.damage_percent_escapes"), _from_percent),
    (say("contract.damage_html"), _from_html),
    (say("contract.damage_markdown"), _unmarked),
    (say("contract.damage_won"), _with_won),
    (say("contract.damage_byte_order_mark"), lambda words: words.replace("\ufeff", "")),
)


def _suspicions(words: str) -> Text | None:
    """What looks like damage in words that are kept, or nothing."""
    found = [
        say("contract.words_suspicion", what=what, shown=_shown(match[0]))
        for pattern, what in _SUSPECTS
        if (match := pattern.search(words))
    ]
    found += [
        say("contract.words_misread", shown=_shown(token), meant=_shown(meant)) for token, meant in _misread(words)
    ]
    return say("contract.words_suspicious", suspicions=found) if found else None


def _misread(text: str) -> Iterator[tuple[str, str]]:
    """The first word that is other text read in a wrong encoding, and what it was."""
    for token in re.findall(r"[^ \n]+", text):
        for wrong, right in (("cp1252", "utf-8"), ("latin-1", "utf-8"), ("cp949", "utf-8"), ("latin-1", "cp949")):
            try:
                meant = token.encode(wrong).decode(right)
            except UnicodeError:
                continue
            letters = [character for character in meant if not character.isascii()]
            is_hangul = all("가" <= character <= "힣" for character in letters)
            # Of EUC-KR two Western letters make a syllable; a letter and an ASCII one ("°C") may, too.
            is_paired = right == "utf-8" or 2 * len(letters) == sum(not character.isascii() for character in token)
            if (
                LOST_CHARACTER not in meant
                and letters
                and meant != token
                and (wrong == "cp1252" or (is_hangul and is_paired))
            ):
                yield token, meant
                return


def _shown(text: str) -> str:
    """`text` on one line, quoted and cut."""
    text = " / ".join(text.split("\n"))
    return f'"{text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"}"'
