"""Colours for a scene or letters: from the words of a prompt, English or Korean, or from the product."""

import re
from typing import NamedTuple

import cv2
import numpy as np

from ..picture import Floats, Picture, floats

Colour = tuple[float, float, float]
"""RGB in [0, 1]."""


class Palette(NamedTuple):
    """A studio's colours: `wall` where the light falls, `shade` away from it, both RGB in [0, 1]."""

    wall: Floats
    shade: Floats
    name: str


COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "#d8322f": ("red", "crimson", "scarlet", "빨간", "빨강", "레드", "붉은"),
    "#f07f2e": ("orange", "tangerine", "주황", "오렌지"),
    "#f3c63a": ("yellow", "lemon", "노란", "노랑", "옐로"),
    "#5aa65a": ("green", "forest", "nature", "leaf", "leaves", "초록", "녹색", "그린", "자연", "숲"),
    "#8fd0b6": ("mint", "민트"),
    "#3f7fd6": ("blue", "ocean", "sea", "sky", "파란", "파랑", "블루", "바다", "하늘"),
    "#24365e": ("navy", "남색", "네이비"),
    "#8a63c9": ("purple", "violet", "lavender", "보라", "퍼플", "라벤더"),
    "#f0a3b8": ("pink", "rose", "blossom", "핑크", "분홍", "벚꽃"),
    "#a9774f": ("brown", "wood", "wooden", "coffee", "cafe", "chocolate", "갈색", "브라운", "나무", "커피", "카페"),
    "#e9dcc3": ("beige", "cream", "sand", "beach", "ivory", "linen", "베이지", "크림", "아이보리"),
    "#d9a93c": ("gold", "golden", "골드", "금색", "황금"),
    "#f6f4f0": ("white", "snow", "winter", "흰", "하얀", "화이트", "겨울", "눈"),
    "#b9bec6": ("grey", "gray", "silver", "concrete", "회색", "그레이", "실버", "은색"),
    "#23242b": ("black", "dark", "night", "midnight", "검은", "검정", "블랙", "어두운", "밤"),
    "#2e9ca6": ("teal", "turquoise", "cyan", "청록"),
    "#f2b8a0": ("peach", "coral", "sunset", "복숭아", "코랄", "노을"),
}


def named_colours(prompt: str) -> list[tuple[str, Colour]]:
    """The colour words of `prompt` and what they stand for, in the order in which they appear."""
    text = prompt.lower()
    found: list[tuple[int, str, Colour]] = []
    for code, words in COLOUR_WORDS.items():
        for word in words:
            # Korean words take endings; English ones must stand alone.
            pattern = rf"\b{word}\b" if word.isascii() else rf"(?<![가-힣]){re.escape(word)}"
            match = re.search(pattern, text)
            if match:
                found.append((match.start(), word, rgb_of(code)))
                break
    return [(word, colour) for _, word, colour in sorted(found)]


def studio_palette(prompt: str, product: Picture) -> Palette:
    """Colours of a studio for `prompt`; without a colour word they follow the product.

    Args:
        prompt: any words.
        product: RGBA; its dominant hue is taken where alpha is full.
    """
    named = named_colours(prompt)
    if named:
        lightness, a, b = _lab(named[0][1])
        second = _lab(named[1][1]) if len(named) > 1 else None
        if lightness < 32:
            return Palette(_rgb(lightness + 14, a, b), _rgb(max(6, lightness - 8), a * 0.9, b * 0.9), named[0][0])
        wall = _rgb(min(94, lightness + 0.45 * (96 - lightness)), a * 0.72, b * 0.72)
        shade = _rgb(*second) if second and second[0] > 30 else _rgb(lightness * 0.88, a * 0.95, b * 0.95)
        return Palette(wall, shade, named[0][0])
    lightness, chroma, hue = _dominant(product)
    if chroma < 8:
        # Neutral products: warm for dark ones, a cool deeper tone for light ones, so that both stand out.
        hue, tint = (np.radians(62), 13.0) if lightness < 60 else (np.radians(235), 20.0)
    else:
        tint = 19.0
    wall_lightness, shade_lightness = (93.0, 82.0) if lightness < 78 else (84.0, 68.0)
    cos, sin = float(np.cos(hue)), float(np.sin(hue))
    return Palette(
        _rgb(wall_lightness, tint * 0.7 * cos, tint * 0.7 * sin),
        _rgb(shade_lightness, tint * 1.2 * cos, tint * 1.2 * sin),
        "product tones",
    )


def rgb_of(code: str) -> Colour:
    """RGB in [0, 1] of `#rrggbb`."""
    return int(code[1:3], 16) / 255, int(code[3:5], 16) / 255, int(code[5:7], 16) / 255


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


def _lab(colour: Colour) -> tuple[float, float, float]:
    values = floats(cv2.cvtColor(np.array([[colour]], np.float32), cv2.COLOR_RGB2LAB))[0, 0]
    return float(values[0]), float(values[1]), float(values[2])


def _rgb(lightness: float, a: float, b: float) -> Floats:
    values = np.array([[[lightness, a, b]]], np.float32)
    return np.clip(floats(cv2.cvtColor(values, cv2.COLOR_LAB2RGB))[0, 0], 0, 1)
