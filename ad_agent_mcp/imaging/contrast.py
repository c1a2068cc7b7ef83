"""How legible letters are on a picture, and what helps: another lightness, a scrim, an outline.

Luminance and contrast ratio as WCAG 2.2 defines them.
"""

from typing import NamedTuple

import numpy as np

from .picture import Flags, Floats, Matte, Picture, blur, dilate, erode, floats, tinted

MIN_RATIO = 3.0
"""What WCAG asks of large text."""
_RING_PX = 3
"""What touches a letter decides whether its edge is seen."""
_REACH_PX = 6
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


class Legibility(NamedTuple):
    """`worst`: 5th percentile of the local contrast ratio; `is_light`: letters lighter than what is around."""

    worst: float
    is_light: bool


def legibility(picture: Picture, letters: Matte, *, front: Matte | None = None) -> Legibility | None:
    """How well letters stand out from what touches them.

    Args:
        picture: RGB with the letters in it.
        letters: their coverage; body and rim are compared along every edge.
        front: coverage of what lies over the letters and belongs neither to them nor to their ground.

    Returns:
        None when no letter is solid enough to measure.
    """
    if front is not None:
        letters = floats(letters * (1 - front))
    solid = letters > 0.9
    # Thin strokes have no inside left when eroded; then their whole body counts.
    inner = erode(solid, 1)
    body = inner if inner.sum() > 0.3 * solid.sum() else solid
    ring = dilate(letters > 0.02, _RING_PX) & ~dilate(letters > 0.02, 1)
    if front is not None:
        ring &= ~dilate(front > 0.02, 1)
    if not body.any() or not ring.any():
        return None
    values = luminance(picture)
    weight = blur(floats(body), _REACH_PX)
    beside = ring & (weight > 0.01)
    if not beside.any():
        return None
    body_values = blur(floats(values * body), _REACH_PX)[beside] / weight[beside]
    ratios = ratio(body_values, values[beside])
    return Legibility(float(np.percentile(ratios, 5)), bool(np.median(body_values) >= np.median(values[beside])))


def relit(letters: Picture, *, towards_light: bool, amount: float) -> Picture:
    """RGBA `letters` mixed with white, or multiplied towards black, by `amount` (0-1); alpha stays."""
    rgb = letters[..., :3].astype(np.float32)
    rgb = rgb + (255 - rgb) * amount if towards_light else rgb * (1 - amount)
    result = letters.copy()
    result[..., :3] = np.clip(rgb + 0.5, 0, 255)
    return result


def scrim(letters: Matte, *, font_size_px: float, opacity: float, is_dark: bool) -> Picture:
    """A soft halo of `letters` to lie under them, dark or light: RGBA, densest at the letters."""
    halo = blur(floats(dilate(letters > 0.1, max(1, round(0.06 * font_size_px)))), 0.16 * font_size_px)
    peak = max(float(halo.max()), 1e-6)
    return tinted(floats(np.clip(halo / peak * 1.2, 0, 1) * opacity), (12, 12, 14) if is_dark else (255, 255, 255))


def outline(letters: Matte, around: Picture, *, font_size_px: float, is_dark: bool) -> Picture:
    """A solid rim round `letters` to lie under them, in a very dark or light tone of what is `around`: RGBA."""
    grown: Flags = dilate(letters > 0.3, max(_RING_PX + 1, round(0.045 * font_size_px)))
    mean = around.reshape(-1, 3).mean(axis=0)
    red, green, blue = mean * 0.22 if is_dark else 255 - (255 - mean) * 0.08
    return tinted(floats(np.clip(blur(floats(grown), 0.8), 0, 1)), (int(red), int(green), int(blue)))
