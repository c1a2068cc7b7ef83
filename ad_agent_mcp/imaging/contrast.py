"""How legible letters are on a picture, and what helps: another lightness, a scrim, a rim.

Luminance and contrast ratio as WCAG 2.2 defines them.
"""

from typing import NamedTuple

import numpy as np

from ..contract.document import Box
from .picture import Flags, Floats, Matte, Picture, blur, box_of, dilate, erode, floats, tinted

MIN_RATIO = 3.0
"""What WCAG asks of large text."""
_RING_PX = 3
"""What touches a letter decides whether its edge is seen."""
_REACH_PX = 6.0
_OWN_COVERAGE = 0.35
"""Where letters or their glow cover more than this, it is not their ground that is seen."""
_LINEAR = np.where(
    np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)
_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)


def luminance(rgb: Picture) -> Floats:
    """Relative luminance in [0, 1] of uint8 colours (..., 3)."""
    return floats(_LINEAR[rgb] @ _WEIGHTS)


def ratio(one: Floats | float, other: Floats | float) -> Floats:
    """Contrast ratio, 1-21, of relative luminances."""
    return floats((np.maximum(one, other) + 0.05) / (np.minimum(one, other) + 0.05))


_SCRIM_PAD = 0.3
"""What lies round letters like what lies under them, in font sizes."""
_NEAR_BORDER, _SCRIM_FADE = 0.4, 0.38
"""Shares of the canvas: how near a border is that a scrim reaches, and over how much it fades elsewhere."""
_DEEP = 34.0
"""Brightest channel of a very dark tone."""


class Legibility(NamedTuple):
    """`worst`: 5th percentile of the local contrast ratio; `is_light`: letters lighter than what is around."""

    worst: float
    is_light: bool


def legibility(
    picture: Picture,
    letters: Matte,
    *,
    faces: Flags | None = None,
    front: Matte | None = None,
    font_size_px: float = 0.0,
) -> Legibility | None:
    """How well letters stand out from what touches them.

    Shading, reflections and bevels belong to a letter's look, so its tone is the mean over a part of a glyph;
    every pixel of the ground beside it counts by itself.

    Args:
        picture: RGB with the letters in it.
        letters: their coverage, with extruded sides and glow.
        faces: their faces alone; by default all that is solid.
        front: coverage of what lies over the letters and belongs neither to them nor to their ground.
        font_size_px: on `picture`; a fifth of it is the part of a glyph whose tone is taken.

    Returns:
        None when no letter is solid enough to measure.
    """
    body = letters > 0.9 if faces is None else faces & (letters > 0.5)
    if front is not None:
        letters = floats(letters * (1 - front))
        body &= front < 0.1
    # Thin strokes have no inside left when eroded; then their whole body counts.
    inner = erode(body, 1)
    body = inner if inner.sum() > 0.3 * body.sum() else body
    ring = _ring(letters, font_size_px)
    if front is not None:
        ring &= ~dilate(front > 0.02, 1)
    reach = max(_REACH_PX, 0.2 * font_size_px)
    weight = blur(floats(body), reach)
    beside = ring & (weight > 0.01)
    if not body.any() or not beside.any():
        return None
    values = luminance(picture)
    # The mean of roots is the middle tone that an eye takes, which a few highlights do not lift.
    tones = floats(blur(floats(np.sqrt(values) * body), reach)[beside] / weight[beside]) ** 2
    ratios = ratio(tones, values[beside])
    return Legibility(float(np.percentile(ratios, 5)), bool(np.median(tones) >= np.median(values[beside])))


def _ring(letters: Matte, font_size_px: float) -> Flags:
    """The ground just outside `letters`: at their edge, or where their glow has faded."""
    solid = letters > 0.5
    touched = dilate(solid, 1)
    edge = dilate(solid, 1 + _RING_PX) & ~touched
    ground = letters < _OWN_COVERAGE
    ring = edge & ground
    if ring.sum() < 0.3 * edge.sum():
        ring = dilate(solid, 1 + max(_RING_PX, round(0.15 * font_size_px))) & ~touched & ground
    return ring


def lit_by_scene(letters: Picture, image: Picture, *, light_x: float) -> Picture:
    """RGBA `letters` in the colour of the light around them, a little brighter on the side that it comes from."""
    ground = blur(image, 0.05 * max(image.shape)) + 8
    tint = (ground / ground.mean(axis=2, keepdims=True)) ** 0.35
    box = box_of(letters[..., 3] > 0) or (0, 0, 1, 1)
    across = floats(np.clip((np.arange(letters.shape[1], dtype=np.float32) - box[0]) / box[2] * 2 - 1, -1, 1))
    gain = floats(1 + 0.08 * light_x * across)
    result = letters.copy()
    result[..., :3] = np.clip(letters[..., :3] * tint * gain[None, :, None] + 0.5, 0, 255)
    return result


def relit(letters: Picture, *, towards_light: bool, amount: float, is_shaded: bool = False) -> Picture:
    """RGBA `letters` mixed with white, or multiplied towards black, by `amount` (0-1); alpha stays.

    Letters that are `is_shaded` keep more of their highlights when they get darker.
    """
    rgb = letters[..., :3].astype(np.float32)
    share = amount * (1 - 0.4 * (rgb.mean(axis=2, keepdims=True) / 255) ** 3) if is_shaded else amount
    rgb = rgb + (255 - rgb) * amount if towards_light else rgb * (1 - share)
    result = letters.copy()
    result[..., :3] = np.clip(rgb + 0.5, 0, 255)
    return result


def tone_of(around: Picture, *, is_dark: bool, deep: float = _DEEP) -> tuple[int, int, int]:
    """A dark (brightest channel `deep`) or very light tone of the hue that RGB `around` has."""
    mean = around.reshape(-1, 3).mean(axis=0)
    # A deep tone is more saturated than the light one it comes from; plain black over colour looks like soot.
    mean = deep * (mean / max(float(mean.max()), 1.0)) ** 2.5 if is_dark else 255 - (255 - mean) * 0.10
    red, green, blue = np.clip(mean, 0, 255).astype(int)
    return int(red), int(green), int(blue)


def scrim_density(box: Box, canvas: tuple[int, int], *, font_size_px: float) -> Matte:
    """Where a scrim lies under letters in `box` of a `canvas` (width, height).

    It reaches to the borders that are near and fades out where the picture goes on, as light does: a cloud that
    follows the letters looks like soot.
    """
    pad_px = _SCRIM_PAD * font_size_px
    across = _reach(box[0], box[2], canvas[0], pad_px=pad_px, is_band=True)
    down = _reach(box[1], box[3], canvas[1], pad_px=pad_px, is_band=False)
    return floats(down[:, None] * across)


def _reach(start: int, length: int, whole: int, *, pad_px: float, is_band: bool) -> Floats:
    """A scrim's density along one side of the canvas, which is `whole` pixels long.

    It is full as far as a near border; as far as both only when it `is_band`, so that something of the picture stays.
    """
    at, end = np.arange(whole), start + length
    gaps = start, whole - end
    near = [gap <= _NEAR_BORDER * whole and (is_band or 2 * gap <= max(gaps)) for gap in gaps]
    before = 0 if near[0] else start - pad_px - at
    after = 0 if near[1] else at - end - pad_px
    left = np.clip(1 - np.maximum(before, after) / (_SCRIM_FADE * whole), 0, 1)
    return floats(np.broadcast_to(left * left * (3 - 2 * left), whole))


def scrim(density: Matte, around: Picture, *, opacity: float, is_dark: bool) -> Picture:
    """The ground made darker or lighter in its own hue, the deeper the denser: RGBA."""
    tone = tone_of(around, is_dark=is_dark, deep=_DEEP + 150 * (1 - opacity))
    return tinted(floats(density * (0.5 + 0.48 * opacity)), tone)


def rim(letters: Matte, around: Picture, *, font_size_px: float, is_dark: bool) -> Picture:
    """A thin soft rim round `letters` to lie under them, in a very dark or light tone of the ground: RGBA."""
    grown: Flags = dilate(letters > 0.3, max(_RING_PX + 1, round(0.03 * font_size_px)))
    return tinted(
        floats(np.clip(blur(floats(grown), 0.012 * font_size_px + 0.6), 0, 1)), tone_of(around, is_dark=is_dark)
    )
