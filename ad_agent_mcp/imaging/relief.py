"""Lettering styles: how a flat glyph mask becomes balloon foil, chiselled metal, candy, neon, wood or stone.

A style is one entry of `STYLES`. All but the flat one are drawn alike: a height field over the mask, the lightness
of its normals under a `finish`, and the colour of that lightness in a scale of tones. Knows nothing about words,
fonts or jobs.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .picture import Flags, Floats, Matte, Picture, blur, box_of, floats, resize, to_bytes
from .scenes.palette import Colour, named_colours, rgb_of

Tones = tuple[tuple[float, Colour], ...]
"""Colours at lightness 0 to 1."""

GLOW_ALPHA = 0.47
"""A glow never counts as a letter (alpha above 127)."""
_LEVELS = 1024
_LUT_SIDE = 512
_FINE_AREA_PX = 1_200_000
"""Larger letters have pixels enough without supersampling."""


class Glyphs(NamedTuple):
    """A magnified glyph mask.

    Attributes:
        coverage: float32 (H, W) in [0, 1].
        inside: where coverage is above a half.
        distance: float32 (H, W), pixels to the outline; 0 outside.
        radius: half the width of a typical stroke, in pixels.
    """

    coverage: Floats
    inside: Flags
    distance: Floats
    radius: float


@dataclass(frozen=True)
class Style:
    """How letters look.

    Attributes:
        words: English and Korean words that ask for it.
        colour: a metal's name, or `#rrggbb`, where the prompt names none.
        tones: its own scale where the prompt names no colour; None makes one of `colour`.
        height: the surface in pixels over the mask; None is flat.
        finish: lightness, 0-1, of a surface with the normal (right, up, towards the eye).
        depth: extrusion downwards, in stroke radii.
        tilt: how far faces lean towards the sky at the top of a line and the ground at its foot.
        grain: added to the lightness.
        glow: reach of the light round the letters, in stroke radii.
    """

    words: tuple[str, ...]
    colour: str = "gold"
    tones: Tones | None = None
    height: Callable[[Glyphs, np.random.Generator], Floats] | None = None
    finish: Callable[[Floats, Floats, Floats], Floats] | None = None
    depth: float = 0.0
    tilt: float = 0.0
    grain: Callable[[Glyphs, np.random.Generator], Floats] | None = None
    glow: float = 0.0


def paint_letters(mask: Matte, prompt: str, *, seed: int) -> Picture:
    """Letters in the style and colour that `prompt` asks for; gold balloons when it asks for nothing.

    Args:
        mask: float32 (H, W), coverage of the letters; what extrusion and glow have no room for is cut.
        prompt: English or Korean words.
        seed: of wrinkles and grain.

    Returns:
        RGBA of the same size. Alpha is `mask` on the letters' faces, solid on an extrusion below them, at most
        127 in a glow.
    """
    style, tones = style_of(prompt)
    letters = np.zeros((*mask.shape, 4), np.uint8)
    ink = box_of(mask > 0)
    if ink is None:
        return letters
    stroke = 2 * float(cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)[mask > 0.5].mean())
    reach = round(stroke * max(style.glow, 1.2 * style.depth)) + 4
    left, top = max(0, ink[0] - reach), max(0, ink[1] - reach)
    window = (slice(top, ink[1] + ink[3] + reach), slice(left, ink[0] + ink[2] + reach))
    face = np.ascontiguousarray(mask[window])
    if style.height is None or style.finish is None:
        letters[window] = _merged(face, np.broadcast_to(floats(dict(tones)[0.5]), (*face.shape, 3)))
        return letters
    letters[window] = _modelled(face, style, tones, np.random.default_rng(seed))
    return letters


def style_of(prompt: str) -> tuple[Style, Tones]:
    """The style that `prompt` asks for, and its colours from dark to light."""
    text = prompt.lower()
    metal = next((name for name, (words, _) in _METALS.items() if _has(text, words)), None)
    wanted = [
        name for name, style in STYLES.items() if _has(text, style.words) and not (name == "flat" and "3d" in text)
    ]
    taken = {word for style in STYLES.values() for word in style.words}
    colours = [colour for word, colour in named_colours(prompt) if word not in taken]
    style = STYLES[wanted[0] if wanted else "chisel" if metal else "candy" if colours else "balloon"]
    if metal is not None and not style.glow:
        return style, _METALS[metal][1]
    if colours or metal:
        return style, _tones_of(colours[0] if colours else rgb_of("#f0b43c"), is_light=style.glow > 0)
    if style.tones is not None:
        return style, style.tones
    if style.colour in _METALS:
        return style, _METALS[style.colour][1]
    return style, _tones_of(rgb_of(style.colour), is_light=style.glow > 0)


def _has(text: str, words: tuple[str, ...]) -> bool:
    # Korean words take endings; English ones must stand alone.
    return any(re.search(rf"\b{word}\b" if word.isascii() else rf"(?<![가-힣]){word}", text) for word in words)


def _tones_of(colour: Colour, *, is_light: bool) -> Tones:
    """A scale through `colour`: its shadows keep the hue; of light itself even the darkest tone shines."""
    base = floats(colour)
    if is_light:
        base = base - 0.85 * float(base.min())
        base = base / max(float(base.max()), 0.05)
    pale = float(base.min())
    shadow, half = (0.62, 0.85) if is_light else (0.16 + 0.34 * pale, 0.52 + 0.24 * pale)
    steps = (
        (0.0, base * shadow),
        (0.25, base * half),
        (0.5, base),
        (0.78, base + (1 - base) * 0.5),
        (1.0, base * 0 + 1),
    )
    return tuple((at, (float(rgb[0]), float(rgb[1]), float(rgb[2]))) for at, rgb in steps)


def _modelled(face: Matte, style: Style, tones: Tones, rng: np.random.Generator) -> Picture:
    assert style.height is not None  # noqa: S101
    scale = 2 if face.size <= _FINE_AREA_PX else 1
    size = (face.shape[1] * scale, face.shape[0] * scale)
    fine = floats(cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)) if scale > 1 else face
    coverage = floats(np.clip(blur(fine, 0.5 * scale), 0, 1))
    inside = coverage > 0.5
    distance = floats(cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    if not inside.any():
        return _merged(face, np.broadcast_to(floats(dict(tones)[0.5]), (*face.shape, 3)))
    glyphs = Glyphs(coverage, inside, distance, max(2.0, 2 * float(distance[inside].mean())))
    value = _lightness(glyphs, style, rng)
    solid = inside
    if style.depth:
        value, solid = _extruded(value, glyphs, style.depth)
    scale_of = _table(tones)
    colour = scale_of[np.clip(value * (_LEVELS - 1), 0, _LEVELS - 1).astype(np.int32)]
    weight = solid.astype(np.float32)
    small = resize(floats(np.dstack([colour * weight[..., None], weight])), (face.shape[1], face.shape[0]))
    covered = small[..., 3]
    rgb = small[..., :3] / np.maximum(covered, 1e-3)[..., None]
    # Beyond the shaded surface an edge pixel takes the colour beside it.
    near = blur(small, 1.5)
    rgb = np.where((covered > 0.2)[..., None], rgb, near[..., :3] / np.maximum(near[..., 3], 1e-3)[..., None])
    alpha = np.maximum(face, covered) if style.depth else face
    if not style.glow:
        return _merged(alpha, rgb)
    light = sum(blur(face, glyphs.radius / scale * reach) * part for reach, part in ((0.7, 0.5), (1.8, 0.45), (4, 0.4)))
    haze = GLOW_ALPHA * np.clip(floats(light), 0, 1) * _fade(face.shape)
    both = face + haze * (1 - face)
    # The letters' own edge must not lift the glow over the line between letter and glow.
    alpha = np.where(face > 0.5, both, np.minimum(both, GLOW_ALPHA + 0.02))
    mixed = (rgb * face[..., None] + scale_of[_LEVELS // 2] * (haze * (1 - face))[..., None]) / np.maximum(both, 1e-3)[
        ..., None
    ]
    return _merged(floats(alpha), mixed)


def _merged(alpha: Matte, rgb: Floats) -> Picture:
    letters = np.dstack([to_bytes(rgb), to_bytes(alpha)])
    letters[letters[..., 3] == 0] = 0
    return letters


def _lightness(glyphs: Glyphs, style: Style, rng: np.random.Generator) -> Floats:
    assert style.height is not None  # noqa: S101
    height = style.height(glyphs, rng)
    right = -floats(cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8))
    up = floats(cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8))
    if style.tilt:
        up += style.tilt * _phase(glyphs.inside)[:, None]
    length = np.sqrt(right * right + up * up + 1)
    half = np.float32((_LUT_SIDE - 1) / 2)
    value = floats(
        cv2.remap(_matcap(style.finish), (right / length + 1) * half, (1 - up / length) * half, cv2.INTER_LINEAR)
    )
    return value if style.grain is None else value + style.grain(glyphs, rng)


@functools.cache
def _matcap(finish: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
    """A ball of this finish, seen from the front."""
    axis = np.linspace(-1, 1, _LUT_SIDE, dtype=np.float32)
    right, up = np.meshgrid(axis, -axis)
    toward = np.sqrt(np.maximum(0, 1 - right**2 - up**2))
    return floats(np.clip(finish(right, up, floats(toward)), 0, 1))


def _table(tones: Tones) -> Floats:
    at = [step for step, _ in tones]
    levels = np.linspace(0, 1, _LEVELS)
    return floats(np.stack([np.interp(levels, at, [rgb[channel] for _, rgb in tones]) for channel in range(3)], axis=1))


def _phase(inside: Flags) -> Floats:
    """1 at the top of each line of letters to -1 at its foot, by row."""
    rows = np.pad(inside.any(axis=1), 1)
    edges = [int(row) for row in np.flatnonzero(rows[1:] != rows[:-1])]
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    tallest = max((end - start for start, end in spans), default=0)
    lines = [span for span in spans if span[1] - span[0] > 0.4 * tallest] or [(0, 1)]
    at = np.array(lines, np.float64).ravel()
    return floats(np.interp(np.arange(inside.shape[0], dtype=np.float32), at, np.tile([1.0, -1.0], len(lines))))


def _extruded(value: Floats, glyphs: Glyphs, depth: float) -> tuple[Floats, Flags]:
    """Faces with their sides below them: each side as light as its outline faces the light, darker with depth."""
    soft = blur(floats(glyphs.inside), 0.25 * glyphs.radius)
    right = -floats(cv2.Sobel(soft, cv2.CV_32F, 1, 0))
    down = -floats(cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    length = np.maximum(np.hypot(right, down), 1e-4)
    side = np.clip(0.20 + 0.16 * right / length - 0.08 * down / length, 0.04, 1)
    steps = max(1, round(depth * glyphs.radius))
    height, width = value.shape
    result, solid = np.zeros_like(value), glyphs.inside.copy()
    for step in range(steps, 0, -1):
        x = round(0.32 * step)
        here = glyphs.inside[: height - step, : width - x]
        np.copyto(result[step:, x:], side[: height - step, : width - x] * (1.0 - 0.6 * step / steps), where=here)
        solid[step:, x:] |= here
    np.copyto(result, value, where=glyphs.inside)
    return result, solid


def _fade(shape: tuple[int, ...]) -> Floats:
    """1 inside, 0 at the border of the picture."""
    x, y = (np.minimum(np.arange(n), np.arange(n)[::-1]) / 12.0 for n in (shape[1], shape[0]))
    return floats(np.clip(y[:, None], 0, 1) * np.clip(x[None, :], 0, 1))


# Heights


def _inflated(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """A membrane under pressure: Poisson's equation, coarse to fine, then the round profile that has it."""
    levels = [glyphs.coverage]
    while min(levels[-1].shape) > 24:
        rows, columns = levels[-1].shape
        levels.append(resize(levels[-1], (max(1, columns // 2), max(1, rows // 2))))
    kernel = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]], np.float32)
    surface = np.zeros_like(levels[-1])
    for index in range(len(levels) - 1, -1, -1):
        # Partly covered pixels at full size keep slanting edges from stepping.
        free = floats(levels[index] > 0.5) if index else _step(levels[0], 0.1, 0.9)
        surface = resize(surface, (free.shape[1], free.shape[0]))
        load = np.float32(0.25 * 4**index)
        for _ in range(20 if index else 8):
            surface = (floats(cv2.filter2D(surface, -1, kernel)) + load) * free
    return blur(floats(np.sqrt(2 * surface)), 0.035 * glyphs.radius + 0.5)


def _foil(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """Inflated, gathered in small pleats that run inwards from the seam, with a few soft dents."""
    radius, distance = glyphs.radius, glyphs.distance
    smooth = blur(distance, 0.3 * radius)
    rows, columns = np.indices(distance.shape, dtype=np.float32)
    x = columns - distance * 8 * floats(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8))
    y = rows - distance * 8 * floats(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8))
    # What is finer than a few pixels would be dirt, not pleats.
    amount = 0.14 * radius * min(1.0, max(0.0, (radius - 5) / 22))
    pleats = floats(cv2.remap(_noise(distance.shape, 0.5 * radius, rng), x, y, cv2.INTER_LINEAR))
    share = np.clip(distance / radius, 0, 1)
    dents = _noise(distance.shape, 2.4 * radius, rng)
    bumps = amount * (pleats - 0.5) * share * (1 - share) ** 2 * 4 + 0.14 * radius * (dents - 0.5) * share
    return _inflated(glyphs, rng) + blur(floats(bumps), 0.06 * radius)


def _chiselled(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """A flat face with a straight bevel."""
    bevel = 0.40 * glyphs.radius
    return blur(floats(np.minimum(blur(glyphs.distance, 0.06 * glyphs.radius), bevel)), 0.05 * glyphs.radius)


def _rounded(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """A flat face with a rounded edge."""
    share = np.clip(blur(glyphs.distance, 0.06 * glyphs.radius) / (0.5 * glyphs.radius), 0, 1)
    return floats(0.45 * glyphs.radius * np.sqrt(np.maximum(0, 1 - (1 - share) ** 2)))


def _noise(shape: tuple[int, ...], cell_px: float, rng: np.random.Generator, stretch: float = 1.0) -> Floats:
    """Smooth values around 0.5 that change within `cell_px`, `stretch` times slower sideways."""
    grid = (int(shape[0] / cell_px) + 3, int(shape[1] / cell_px / stretch) + 3)
    return floats(cv2.resize(floats(rng.random(grid)), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


# Finishes


def _step(values: Floats, low: float, high: float) -> Floats:
    share = np.clip((values - low) / (high - low), 0, 1)
    return floats(share * share * (3 - 2 * share))


def _patch(x: Floats, y: Floats, at: tuple[float, float], half: tuple[float, float], soft: float) -> Floats:
    """A softbox in mirror space."""
    return floats(
        (1 - _step(abs(x - at[0]), half[0] - soft, half[0] + soft))
        * (1 - _step(abs(y - at[1]), half[1] - soft, half[1] + soft))
    )


def _mirror(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Polished metal in a studio: bright sky, a crisp dark horizon, warm floor, two softboxes."""
    x, y = 2 * toward * right, 2 * toward * up
    # The studio is turned a little, so that no upright stroke lies along its horizon.
    level = 0.94 * y - 0.34 * x
    sky = np.interp(
        level,
        [-1, -0.85, -0.6, -0.4, -0.22, -0.17, -0.05, 0.2, 0.55, 0.85, 1],
        [0.26, 0.42, 0.36, 0.22, 0.06, 0.46, 0.50, 0.56, 0.74, 0.95, 0.70],
    )
    value = sky + 0.62 * _patch(x, y, (-0.40, 0.64), (0.36, 0.13), 0.05)
    value = value + 0.30 * _step(floats(-0.5 * x + 0.86 * y), 0.80, 0.95) * (toward < 0.85)
    value = value + 0.36 * _patch(x, y, (0.78, 0.05), (0.07, 0.42), 0.05)
    value = value + 0.26 * _patch(x, y, (0.05, -0.80), (0.55, 0.09), 0.06)
    return floats(value * (0.30 + 0.70 * _step(toward, 0.08, 0.48)))


def _gloss(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Glossy plastic: soft body light, light shining through at the foot, clean window highlights."""
    body = 0.36 + 0.20 * (-0.40 * right + 0.72 * up) + 0.12 * toward + 0.12 * _step(-up, 0.35, 0.9) * toward
    x, y = 2 * toward * right, 2 * toward * up
    value = body - 0.26 * (1 - _step(toward, 0.05, 0.5))
    value = value + 0.80 * _patch(x, y, (-0.28, 0.72), (0.44, 0.15), 0.06)
    return floats(value + 0.26 * _patch(x, y, (0.74, -0.40), (0.07, 0.32), 0.06))


def _tube(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Lit gas in glass: white in the middle, the colour at the edge."""
    return floats(0.5 * _step(toward, 0.15, 0.75) + 0.5 * _step(toward, 0.84, 0.995))


def _matte(right: Floats, up: Floats, toward: Floats) -> Floats:
    """A dull surface under light from the upper left."""
    light = np.maximum(0, -0.46 * right + 0.72 * up + 0.52 * toward)
    return floats(0.10 + 0.92 * light**1.2 + 0.25 * light**16)


# Grain


def _brushed(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    return floats(0.05 * (_noise(glyphs.inside.shape, 2.0, rng, stretch=40) - 0.5))


def _fibres(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """Year rings cut lengthwise, with fine fibres."""
    shape, radius = glyphs.inside.shape, glyphs.radius
    rows = np.arange(shape[0], dtype=np.float32)[:, None] / (0.75 * radius)
    rings = rows + 3.2 * _noise(shape, 2.6 * radius, rng, stretch=3) + 0.5 * _noise(shape, 0.6 * radius, rng, stretch=6)
    saw = rings % 1.0
    fibre = _noise(shape, 0.07 * radius + 1, rng, stretch=22) - 0.5
    return floats(0.30 * (saw * saw * (1 - _step(floats(saw), 0.9, 1.0)) - 0.35) * -1 + 0.22 * fibre)


def _speckle(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    shape, radius = glyphs.inside.shape, glyphs.radius
    fine = _noise(shape, 2.2, rng) - 0.5
    return floats(
        0.16 * fine + 0.16 * (_noise(shape, 0.35 * radius, rng) - 0.5) + 0.12 * (_noise(shape, 1.4 * radius, rng) - 0.5)
    )


def _scale(*steps: tuple[float, str]) -> Tones:
    return tuple((at, rgb_of(code)) for at, code in steps)


_METALS: dict[str, tuple[tuple[str, ...], Tones]] = {
    "rose gold": (
        ("rose gold", "rose-gold", "rosegold", "pink gold", "copper", "로즈골드", "로즈 골드", "핑크골드", "구리"),
        _scale(
            (0, "#2c0d0c"), (0.22, "#7c3a34"), (0.5, "#cf8273"), (0.68, "#f0b3a4"), (0.86, "#ffe3da"), (1, "#fffaf6")
        ),
    ),
    "gold": (
        ("gold", "golden", "brass", "골드", "금색", "황금", "금박"),
        _scale((0, "#331600"), (0.2, "#8a4c08"), (0.42, "#dc981c"), (0.6, "#f9c344"), (0.8, "#ffe68e"), (1, "#fffdf0")),
    ),
    "chrome": (
        ("chrome", "silver", "steel", "metal", "metallic", "크롬", "은색", "은박", "실버", "메탈", "금속", "스틸"),
        _scale(
            (0, "#090b10"), (0.22, "#39414e"), (0.5, "#8f9aa8"), (0.68, "#c3ccd8"), (0.86, "#eef3f8"), (1, "#ffffff")
        ),
    ),
}
"""Words that ask for a metal, and its tones."""

STYLES: dict[str, Style] = {
    "flat": Style(("flat", "simple", "minimal", "2d", "플랫", "평면", "심플", "단순"), colour="#2f313b"),
    "balloon": Style(
        ("balloon", "balloons", "inflated", "foil", "풍선", "벌룬", "포일"), height=_foil, finish=_mirror
    ),
    "neon": Style(("neon", "네온"), colour="#10ccff", height=_inflated, finish=_tube, glow=7.0),
    "wood": Style(
        ("wood", "wooden", "timber", "나무", "원목", "우드", "목재"),
        tones=_scale((0, "#1d0d05"), (0.25, "#4f2a12"), (0.5, "#8f5526"), (0.75, "#c58a4b"), (1, "#f0cd95")),
        height=_rounded, finish=_matte, depth=0.8, grain=_fibres,
    ),
    "stone": Style(
        ("stone", "rock", "concrete", "marble", "granite", "돌", "석재", "바위", "콘크리트", "대리석"),
        tones=_scale((0, "#1c1b19"), (0.25, "#55524c"), (0.5, "#9b978f"), (0.75, "#d2cec5"), (1, "#fbf9f4")),
        height=_chiselled, finish=_matte, depth=0.8, grain=_speckle,
    ),
    "candy": Style(
        ("candy", "glossy", "jelly", "plastic", "gummy", "glass", "캔디", "사탕", "젤리", "유광", "광택", "플라스틱"),
        colour="#ff4079", height=_inflated, finish=_gloss,
    ),
    "chisel": Style(
        ("chisel", "chiseled", "chiselled", "bevel", "beveled", "engraved", "각인", "조각"),
        height=_chiselled, finish=_mirror, depth=0.75, tilt=0.5, grain=_brushed,
    ),
}  # fmt: skip
"""What a prompt can ask for, in the order in which it is looked for."""
