"""Colours for a scene or letters: from the words of a prompt, English or Korean, or from the product."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import ImageColor

from ...imaging.picture import Floats, Picture, floats

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""


class NamedColour(NamedTuple):
    """A colour in a prompt.

    Attributes:
        at: where its word begins.
        said: the word in English with its adjective.
        plain: without it.
        rgb: the colour.
    """

    at: int
    said: str
    plain: str
    rgb: Colour


class Palette(NamedTuple):
    """A scene's colours, RGB in [0, 1].

    Attributes:
        wall: where the light falls.
        shade: away from the light.
        accent: the colour itself, as strong as its name or the product has it.
        name: what decided, for the caller.
        words: the colour words found, in order; empty when the product decided.
        lift: how an adjective without a colour moves lightness, -1 (dark) to 1 (pale).
    """

    wall: Floats
    shade: Floats
    accent: Floats
    name: str
    words: tuple[str, ...] = ()
    lift: float = 0.0


_DATA = json.loads(Path(__file__).with_name("colours.json").read_text("utf-8"))
_COLOURS: dict[str, dict[str, str]] = _DATA["colours"]
"""By name, its Korean words; and its value where CSS lacks the name, or people mean another colour by it."""
_ADJECTIVES: dict[str, dict[str, Any]] = _DATA["adjectives"]
# Words of other meanings that CSS happens to use.
_NOT_COLOURS = {"peru", "snow", "linen", "rebeccapurple"}
_CSS_NAMES = {k: v for k, v in ImageColor.colormap.items() if isinstance(v, str) and k not in _NOT_COLOURS}
_NAMES = _CSS_NAMES | {name: told["rgb"] for name, told in _COLOURS.items() if "rgb" in told}
_KOREAN_NAMES = {word: name for name, told in _COLOURS.items() for word in told.get("korean", "").split()}
ADJECTIVES = {word: name for name, told in _ADJECTIVES.items() for word in (name, *told.get("korean", "").split())}
"""Adjectives of colours, and what each is in English."""
_AS_IT_IS = (0.0, 1.0)
_SHIFTS = {word: (_ADJECTIVES[name]["lift"], _ADJECTIVES[name]["chroma"]) for word, name in ADJECTIVES.items()}
"""What an adjective does: the share of the way to black (-) or white (+), and a factor on the chroma."""
_PREFIXES = {"연": _SHIFTS["연한"], "진": _SHIFTS["진한"]}
_SURFACES = {"wood", "wooden", "oak", "table", "marble", "stone", "studio", "backdrop", "background"}
_WALL_CHROMA = 54.0
_TOKEN = re.compile(
    r"#(?:[0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3})(?![0-9a-z])|(?:rgb|hsl)a?\([^()]*\)|[a-z]+|[가-힣]+|[^\w\s-]"
)
COLOUR_WORDS = frozenset({*_NAMES, "golden"}), frozenset(_KOREAN_NAMES)
"""Every word for a colour, English and Korean; prefixes and endings may be added to Korean ones."""


def named_colours(prompt: str) -> list[tuple[str, Colour]]:
    """The colours that `prompt` names, in English with their adjectives, in order, each once."""
    return [(colour.said, colour.rgb) for colour in colours_in(prompt)]


def choose_palette(prompt: str, product: Picture) -> Palette:
    """Colours of a scene for `prompt`; without a colour word they follow the product.

    Args:
        prompt: any words.
        product: RGBA; its dominant hue is taken where alpha is full.
    """
    found = colours_in(prompt)
    lift = _mood(prompt)
    if found:
        lightness, a, b = _lab(found[0].rgb)
        second = _lab(found[1].rgb) if len(found) > 1 else None
        a, b = _calmed(a, b, min(_WALL_CHROMA, 0.8 * float(np.hypot(a, b))))
        if lightness < 32:
            wall, shade = _rgb(lightness + 12, a, b), _rgb(max(5, lightness - 8), a * 0.9, b * 0.9)
        else:
            wall = _rgb(min(95, lightness + 0.28 * (96 - lightness)), a * 0.9, b * 0.9)
            shade = _rgb(*second) if second and second[0] > 30 else _rgb(lightness * 0.9, a, b)
        name = " and ".join(colour.said for colour in found[:2])
        return Palette(wall, shade, floats(found[0].rgb), name, tuple(colour.plain for colour in found), lift[0])
    lightness, chroma, hue = _dominant(product)
    if chroma < 8:
        # Neutral products: warm for dark ones, a cool deeper tone for light ones, so that both stand out.
        hue, tint = (np.radians(62), 13.0) if lightness < 60 else (np.radians(235), 20.0)
    else:
        tint = 19.0
        # Pale yellows look like khaki in the shade; a little redder they are sand.
        degrees = float(np.degrees(hue)) % 360
        hue = np.radians(degrees - 0.55 * float(np.clip(degrees - 62, 0, 40))) if degrees < 118 else hue
    wall_lightness, shade_lightness = (93.0, 82.0) if lightness < 78 else (84.0, 68.0)
    cos, sin = float(np.cos(hue)) * lift[1], float(np.sin(hue)) * lift[1]
    if lift[0] < 0:
        wall_lightness, shade_lightness = wall_lightness * (1 + lift[0]), shade_lightness * (1 + lift[0]) * 0.85
    return Palette(
        _rgb(wall_lightness, tint * 0.7 * cos, tint * 0.7 * sin),
        _rgb(shade_lightness, tint * 1.2 * cos, tint * 1.2 * sin),
        _rgb(62, max(34.0, tint) * cos, max(34.0, tint) * sin),
        "product tones",
        (),
        lift[0],
    )


def places_of(words: Iterable[str], text: str) -> dict[int, str]:
    """Where any of `words`, lower case, begins in `text`. Korean words take endings; English ones must stand alone."""
    found: dict[int, str] = {}
    for word in words:
        pattern = rf"(?<![가-힣]){word}" if "가" <= word[0] <= "힣" else rf"\b{word}\b"
        match = re.search(pattern, text)
        if match and len(word) > len(found.get(match.start(), "")):
            found[match.start()] = word
    return found


def rgb_of(code: str) -> Colour:
    """RGB in [0, 1] of `#rrggbb`."""
    return int(code[1:3], 16) / 255, int(code[3:5], 16) / 255, int(code[5:7], 16) / 255


def colour_of(values: Iterable[float | np.float32]) -> Colour:
    """Three values, such as those of an array, as plain numbers."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def scale_of(places: Sequence[float], colours: Sequence[Colour | Floats]) -> Floats:
    """1,024 colours (1024, 3) from dark to light: `colours` at `places` in [0, 1], and what lies between them."""
    levels = np.linspace(0, 1, 1024)
    return floats(np.stack([np.interp(levels, places, [rgb[k] for rgb in colours]) for k in range(3)], axis=1))


def mixed(colour: Floats, other: Floats, share: float) -> Floats:
    """`colour` with `share` of `other` in it."""
    return floats(colour * (1 - share) + other * share)


def turned(colour: Floats, *, lightness: float, chroma: float, degrees: float = 0.0) -> Floats:
    """`colour` turned around the hue circle, at another lightness (0-100) and chroma, as RGB."""
    _, a, b = _lab(colour)
    a, b = _calmed(a, b, chroma)
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return _rgb(lightness, a * cos - b * sin, a * sin + b * cos)


def _calmed(a: float, b: float, chroma: float) -> tuple[float, float]:
    """Lab's `a` and `b` at another chroma. A strong blue turns violet on the way in Lab, so its hue is turned back."""
    hue = float(np.degrees(np.arctan2(b, a))) % 360
    if chroma < float(np.hypot(a, b)):
        hue -= 26 * max(0.0, 1 - abs(hue - 303) / 22)
    return chroma * float(np.cos(np.radians(hue))), chroma * float(np.sin(np.radians(hue)))


def _words(prompt: str) -> list[str]:
    return [word[0] for word in _TOKEN.finditer(prompt.lower())]


def _mood(prompt: str) -> tuple[float, float]:
    """What the first adjective that stands alone does. Light is mostly a noun, and that is often soft."""
    words = _words(prompt)
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in _SHIFTS and (word not in ("light", "soft", "부드러운") or following in _SURFACES):
            return _SHIFTS[word]
    return _AS_IT_IS


def colours_in(prompt: str) -> list[NamedColour]:
    """The colours that `prompt` names by words, as `#rrggbb` or as `rgb()`, in order, each once."""
    tokens = [(word.start(), word[0]) for word in _TOKEN.finditer(prompt.lower())]
    words, found, index = [word for _, word in tokens], dict[str, NamedColour](), 0
    while index < len(words):
        at, word = tokens[index]
        pair = "".join(words[index : index + 2])
        is_pair = pair in _NAMES and word not in _SHIFTS and index + 1 < len(words)
        name, shift = (pair, _AS_IT_IS) if is_pair else _plain(word)
        said = " ".join(words[index : index + 2]) if is_pair else name or ""
        if exact := _exact(word):
            found.setdefault(word, NamedColour(at, word, word, exact))
        elif name:
            before = adjective_before(prompt, at)
            if before:
                shift, said = _SHIFTS[before], f"{before} {said}"
            found.setdefault(name, NamedColour(at, said, name, shifted(rgb_of(_NAMES[name]), shift)))
        index += 2 if is_pair else 1
    return list(found.values())


def adjective_before(prompt: str, at: int) -> str | None:
    """The adjective, in English, that belongs to the word at `at` of `prompt`."""
    words = _words(prompt[:at])
    before = [word for word in words[-2:] if word in _SHIFTS]
    # An adjective two words away counts only over another one ("deep warm coral"), not over a colour.
    if before and (words[-1] in _SHIFTS or (words[-1].isalpha() and _plain(words[-1])[0] is None)):
        return ADJECTIVES[before[-1]]
    return None


def shift_of(adjective: str | None) -> tuple[float, float]:
    """What an adjective does to a colour; see `shifted`."""
    return _SHIFTS.get(adjective or "", _AS_IT_IS)


def _exact(word: str) -> Colour | None:
    """The colour of `#rgb`, `#rrggbb`, `rgb()` or `hsl()`."""
    if word[0] != "#" and "(" not in word:
        return None
    parts = ",".join(re.findall(r"[\d.]+%?", word)[:3])  # without an alpha
    try:
        code = ImageColor.getrgb(word[:7] if word[0] == "#" else f"{word[:3]}({parts})")
    except ValueError:
        return None
    return colour_of(min(255, max(0, level)) / 255 for level in code[:3])


def _plain(word: str) -> tuple[str | None, tuple[float, float]]:
    """The colour that one word names, and what a Korean prefix does to it."""
    if word.isascii():
        return (word if word in _NAMES else "gold" if word == "golden" else None), _AS_IT_IS
    # Korean words take endings.
    known = max((known for known in _KOREAN_NAMES if word.startswith(known)), key=len, default=None)
    if known:
        return _KOREAN_NAMES[known], _AS_IT_IS
    if word[0] in _PREFIXES and len(word) > 2:
        return _plain(word[1:])[0], _PREFIXES[word[0]]
    return None, _AS_IT_IS


def shifted(colour: Colour, shift: tuple[float, float]) -> Colour:
    """`colour` moved by a share towards white (+) or black (-), its chroma changed by a factor."""
    if shift == _AS_IT_IS:
        return colour
    lift, saturation = shift
    lightness, a, b = _lab(colour)
    # What is dark already has less far to go: dark brown is not black.
    less = 1 + lift * min(1.0, lightness / 50) if lift < 0 else 1.0
    lightness = lightness * less + max(0.0, lift) * (100 - lightness)
    chroma = saturation * float(np.hypot(a, b))
    # In the dark a colour keeps its hue and has less room for chroma.
    a, b = (a * saturation * less**0.5, b * saturation * less**0.5) if lift < 0 else _calmed(a, b, chroma)
    return colour_of(_rgb(lightness, a, b))


def _dominant(product: Picture) -> tuple[float, float, float]:
    """Median lightness, and the chroma and hue (radians) that most of the product's colour has."""
    step = max(1, max(product.shape[:2]) // 160)
    small = product[::step, ::step]
    pixels = small[small[..., 3] > 200][:, :3]
    if pixels.size == 0:
        return 60.0, 0.0, 0.0
    lab = floats(cv2.cvtColor((pixels[None].astype(np.float32) / 255), cv2.COLOR_RGB2LAB))[0]
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    hue = np.arctan2(lab[:, 2], lab[:, 1])
    histogram, edges = np.histogram(hue, bins=24, range=(-np.pi, np.pi), weights=chroma)
    peak = int(np.argmax(histogram))
    share = float(histogram[peak]) / max(1, len(pixels))
    return float(np.median(lab[:, 0])), share * 2, float((edges[peak] + edges[peak + 1]) / 2)


def _lab(colour: Colour | Floats) -> tuple[float, float, float]:
    return colour_of(floats(cv2.cvtColor(np.array([[colour]], np.float32), cv2.COLOR_RGB2LAB))[0, 0])


def _rgb(lightness: float, a: float, b: float) -> Floats:
    values = np.array([[[lightness, a, b]]], np.float32)
    return np.clip(floats(cv2.cvtColor(values, cv2.COLOR_LAB2RGB))[0, 0], 0, 1)
