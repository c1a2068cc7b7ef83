"""What a prompt wants of letters: one of a few styles, and its colours.

A style is one entry of `styles.json`. Knows nothing about pixels, words or jobs.
"""

import colorsys
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...contract.texts import Text, say
from ...imaging.picture import Floats, floats
from . import surfaces
from .palette import (
    ADJECTIVES,
    COLOUR_WORDS,
    Colour,
    adjective_before,
    colour_of,
    colours_in,
    places_of,
    rgb_of,
    shift_of,
    shifted,
)
from .surfaces import Glyphs

Tones = tuple[tuple[float, Colour | Floats], ...]
"""Colours at lightness 0 to 1."""


@dataclass(frozen=True)
class Style:
    """How letters look.

    Attributes:
        words: English and Korean words that ask for it.
        tones: its colours where the prompt names none.
        height: the surface in pixels over the mask; None is flat.
        finish: lightness, 0-1, of a surface with the normal (right, up, towards the eye).
        depth: extrusion downwards, in stroke radii.
        tilt: how far faces lean towards the sky at the top of a line and the ground at its foot.
        grain: added to the lightness.
        glow: reach of the light round the letters, in stroke radii.
    """

    words: tuple[str, ...]
    tones: Tones
    height: Callable[[Glyphs, np.random.Generator], Floats] | None = None
    finish: Callable[[Floats, Floats, Floats], Floats] = surfaces.matte
    depth: float = 0.0
    tilt: float = 0.0
    grain: Callable[[Glyphs, np.random.Generator], Floats] | None = None
    glow: float = 0.0


class Wish(NamedTuple):
    """What of a prompt letters can follow.

    Attributes:
        style: how they are made.
        tones: their colours from dark to light.
        said: both by name, for the caller.
        unheeded: the prompt's words without effect, in order.
    """

    style: Style
    tones: Tones
    said: Text
    unheeded: tuple[str, ...] = ()


class _Tint(NamedTuple):
    """A colour or metal that a prompt asks for: where, by which name, and how an adjective moves it."""

    at: int
    said: str
    metal: str | None
    rgb: Colour
    shift: tuple[float, float]


def wish_of(prompt: str) -> Wish:
    """The style and colours that `prompt` asks for, English or Korean; gold balloons when it asks for nothing.

    What it says it does not want does not count, and a colour after "but" counts more than one before it.
    """
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", prompt.lower())
    text = _BARE_CODE.sub(r"#\1", _BARE_RGB.sub(r"rgb(\1,\2,\3)", text))
    refused = [found[0] for found in _NEGATED.finditer(text)]
    text = _NEGATED.sub(lambda found: " " * len(found[0]), text)
    tints = _tints(text)
    places = {name: places_of(style.words, text) for name, style in STYLES.items()}
    wanted = [name for name in STYLES if places[name] and not (name == "flat" and _IS_SOLID.search(text))]
    tint = tints[0] if tints else None
    if wanted:
        name = wanted[0]
    elif tint is None:
        name = "balloon"
    elif tint.metal or places_of(_MERE_METAL, text):
        name = "chisel"
    else:
        name = "plain" if _IS_SOLID.search(text) else "flat"
    style = STYLES[name]
    adjective = None if tint or not wanted else adjective_before(text, min(places[name]))
    if tint is None:
        is_refused = style.tones is METALS["gold"][1] and any(places_of(METALS["gold"][0], part) for part in refused)
        tones = _moved(METALS["chrome"][1] if is_refused else style.tones, shift_of(adjective))
    elif tint.metal and not style.glow:
        tones = _moved(METALS[tint.metal][1], tint.shift)
    else:
        tones = _tones_of(tint.rgb, is_light=style.glow > 0)
    said = tint.said if tint else adjective
    used = [word for word in (*(tint.said.split() if tint else ()), adjective) if word]
    told = say(f"styles.{name}")
    if said:
        told = say("engines.style", style=told, colour=said)
    return Wish(style, tones, told, _unheeded(text, tints, places[name].values(), used))


def _tints(text: str) -> list[_Tint]:
    """The colours and metals that `text` asks for, the one that counts first."""
    start = max((found.end() for found in _BUT.finditer(text) if _all_tints(text[found.end() :])), default=0)
    tints = [tint._replace(at=tint.at + start) for tint in _all_tints(text[start:])]
    exact = [tint for tint in tints if tint.said[0] == "#" or "(" in tint.said]
    others = [tint for tint in tints if tint not in exact]
    return [*exact, *others]


def _all_tints(text: str) -> list[_Tint]:
    tints = {colour.at: _Tint(colour.at, colour.said, None, colour.rgb, (0.0, 1.0)) for colour in colours_in(text)}
    for metal, (words, tones) in METALS.items():
        for at in places_of([word for word in words if word not in _MERE_METAL], text):
            if any(other.metal for other in tints.values() if other.at <= at < other.at + 9 and other.at != at):
                continue  # "rose gold" is one
            adjective = adjective_before(text, at)
            shift = shift_of(adjective)
            said = f"{adjective} {metal}" if adjective else metal
            if at not in tints or not tints[at].metal:
                tints[at] = _Tint(at, said, metal, shifted(colour_of(tones[3][1]), shift), shift)
    if not tints and (mere := places_of(_MERE_METAL, text)):
        return [_Tint(min(mere), "chrome", "chrome", colour_of(METALS["chrome"][1][3][1]), (0.0, 1.0))]
    return [tints[at] for at in sorted(tints)]


def _moved(tones: Tones, shift: tuple[float, float]) -> Tones:
    """`tones` made darker or lighter; the last highlight stays, and so do they shine."""
    return (*((at, shifted(colour_of(rgb), shift)) for at, rgb in tones[:-1]), tones[-1])


def _unheeded(text: str, tints: list[_Tint], style_words: Iterable[str], used: list[str]) -> tuple[str, ...]:
    """Words of `text` that neither the style nor its colour follows, without those that say nothing."""
    heeded = {*style_words, *used, *(word for phrase in style_words for word in phrase.split())}
    first = tints[0].at if tints else -1
    spare = {tint.at for tint in tints[1:] if not _says_again(text, tints[0], tint)}
    result: dict[str, None] = {}
    for found in re.finditer(r"#[0-9a-f]+|(?:rgb|hsl)a?\([^()]*\)|[a-z]+|[가-힣]+", text):
        word = found[0]
        is_tint = found.start() not in spare and any(
            tint.at <= found.start() < tint.at + len(tint.said) for tint in tints if tint.at not in spare
        )
        is_known = (
            word in heeded or word in _SAYS_NOTHING["english"].split() or word in ADJECTIVES or word in _MERE_METAL
        )
        is_known |= any(
            word.startswith(known) for known in (*_SAYS_NOTHING["korean"].split(), *style_words) if known >= "가"
        )
        if found.start() != first and not is_tint and not is_known:
            result[word] = None
    return tuple(result)


def _says_again(text: str, first: _Tint, second: _Tint) -> bool:
    """Whether `second` only repeats `first`: the same metal, or its kind of colour ("emerald green")."""
    if first.metal or second.metal:
        return first.metal == second.metal
    (hue, _, strength), (other, _, other_strength) = (colorsys.rgb_to_hls(*tint.rgb) for tint in (first, second))
    apart = abs(hue - other)
    is_alike = min(apart, 1 - apart) < _SAME_HUE and min(strength, other_strength) >= _NO_HUE
    return len(text[first.at : second.at].split()) == 1 and (is_alike or max(strength, other_strength) < _NO_HUE)


def _tones_of(colour: Colour, *, is_light: bool = False) -> Tones:
    """A scale through `colour`: its shadows keep the hue; of light itself even the darkest tone shines."""
    base = floats(colour)
    if is_light:
        base = base - 0.85 * float(base.min())
        base = base / max(float(base.max()), 0.05)
    pale = float(base.min())
    shadow, half = (0.62, 0.85) if is_light else (0.16 + 0.34 * pale, 0.52 + 0.24 * pale)
    # White in a dull colour's highlights would be what is seen of it: they are of its own hue.
    light = base + (1 - base) * (0.5 if is_light else 0.5 * float(base.max()) ** 2)
    light = np.maximum(light, np.minimum(1.0, base * 1.5))
    return (0.0, base * shadow), (0.25, base * half), (0.5, base), (0.78, light), (1.0, (1.0, 1.0, 1.0))


def _scale(steps: list[tuple[float, str]]) -> Tones:
    return tuple((at, rgb_of(code)) for at, code in steps)


def _style(told: dict[str, Any]) -> Style:
    """An entry of `styles.json`. Its colours are those of a metal, of a scale, or through one colour."""
    if "metal" in told:
        tones = METALS[told["metal"]][1]
    else:
        tones = _scale(told["tones"]) if "tones" in told else _tones_of(rgb_of(told["colour"]), is_light="glow" in told)
    surface = {part: getattr(surfaces, told[part]) for part in ("height", "finish", "grain") if part in told}
    sizes = {size: told[size] for size in ("depth", "tilt", "glow") if size in told}
    return Style(tuple(told["words"]), tones, **surface, **sizes)


_DATA = json.loads(Path(__file__).with_name("styles.json").read_text("utf-8"))
METALS = {name: (tuple[str, ...](told["words"]), _scale(told["tones"])) for name, told in _DATA["metals"].items()}
"""Words that ask for a metal, and its tones."""
_MERE_METAL = ("metal", "metallic", "메탈", "금속")
"""Beside a colour they only say that it shines."""
STYLES = {name: _style(told) for name, told in _DATA["styles"].items()}
"""What a prompt can ask for, in the order in which it is looked for."""
_SAYS_NOTHING: dict[str, str] = _DATA["says_nothing"]

_BARE_CODE = re.compile(r"\b(?:0x|hex(?: ?code)?[ :=]*#?)([0-9a-f]{6})\b")
_BARE_RGB = re.compile(r"\brgb[ :=]+(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})\b")
_SAME_HUE = 38 / 360
_NO_HUE = 0.2
_IS_SOLID = re.compile(r"\b3 ?d\b|입체")
_BUT = re.compile(r"\bbut\b|\bhowever\b|\bno[,;:]|\b(?:make|turn) (?:it|them)\b|[-=]>|→|인데|지만")


def _one_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_MATERIALS = {
    *(word for words, _ in METALS.values() for word in words),
    *(word for style in STYLES.values() for word in style.words),
}
_ENGLISH = _one_of({*COLOUR_WORDS[0], *(word for word in _MATERIALS if word.isascii())})
_KOREAN = _one_of({*COLOUR_WORDS[1], *(word for word in _MATERIALS if not word.isascii())})
_NEGATED = re.compile(
    rf"\b(?:not|no|non|never|without|avoid|instead of|rather than|anything but|isn'?t|don'?t|do not)\b"
    r"(?:\s+(?:a|an|any|the|in|of|be|use|want|make|it|them|letters|text|words|"
    rf"{_one_of(word for word in ADJECTIVES if word.isascii())}))*"
    rf"(?:\s+(?:{_ENGLISH})\b)+(?:\s+(?:or|nor)\s+(?:{_ENGLISH})\b)*"
    rf"|(?<![가-힣])(?:{_KOREAN})[가-힣]*?(?:\s+(?!(?:{_one_of(COLOUR_WORDS[1])}))[가-힣]+?)??"
    r"\s*(?:말고|아닌|아니고|아니라|없이|대신|빼고|제외|금지|싫)[가-힣]*"
)
"""What a prompt does not want."""
