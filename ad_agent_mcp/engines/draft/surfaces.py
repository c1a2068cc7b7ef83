"""What painted letters are made of: their surface over a glyph mask, how light it is, and its grain.

A height gives pixels over the mask; a finish the lightness, 0-1, of a normal (right, up, towards the eye); a grain
what is added to it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from ...imaging.picture import Flags, Floats, blur, floats, resize


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


def inflated(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
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


def foil(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
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
    # A seam closer than a hemisphere: steeper sides, darker rims.
    return 1.3 * inflated(glyphs, rng) + blur(floats(bumps), 0.06 * radius)


def chiselled(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """A flat face with a straight bevel."""
    bevel = 0.40 * glyphs.radius
    return blur(floats(np.minimum(blur(glyphs.distance, 0.06 * glyphs.radius), bevel)), 0.05 * glyphs.radius)


def rounded(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """A flat face with a rounded edge."""
    share = np.clip(blur(glyphs.distance, 0.06 * glyphs.radius) / (0.5 * glyphs.radius), 0, 1)
    return floats(0.45 * glyphs.radius * np.sqrt(np.maximum(0, 1 - (1 - share) ** 2)))


def _noise(shape: tuple[int, ...], cell_px: float, rng: np.random.Generator, stretch: float = 1.0) -> Floats:
    """Smooth values around 0.5 that change within `cell_px`, `stretch` times slower sideways."""
    grid = (int(shape[0] / cell_px) + 3, int(shape[1] / cell_px / stretch) + 3)
    return floats(cv2.resize(floats(rng.random(grid)), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC))


def _step(values: Floats, low: float, high: float) -> Floats:
    share = np.clip((values - low) / (high - low), 0, 1)
    return floats(share * share * (3 - 2 * share))


def _patch(x: Floats, y: Floats, at: tuple[float, float], half: tuple[float, float], soft: float) -> Floats:
    """A softbox in mirror space."""
    return floats(
        (1 - _step(abs(x - at[0]), half[0] - soft, half[0] + soft))
        * (1 - _step(abs(y - at[1]), half[1] - soft, half[1] + soft))
    )


def mirror(right: Floats, up: Floats, toward: Floats) -> Floats:
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


def gloss(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Glossy plastic: soft body light, light shining through at the foot, clean window highlights."""
    body = 0.36 + 0.20 * (-0.40 * right + 0.72 * up) + 0.12 * toward + 0.12 * _step(-up, 0.35, 0.9) * toward
    x, y = 2 * toward * right, 2 * toward * up
    value = body - 0.26 * (1 - _step(toward, 0.05, 0.5))
    value = value + 0.80 * _patch(x, y, (-0.28, 0.72), (0.44, 0.15), 0.06)
    return floats(value + 0.26 * _patch(x, y, (0.74, -0.40), (0.07, 0.32), 0.06))


def tube(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Lit gas in glass: white in the middle, the colour at the edge."""
    return floats(0.5 * _step(toward, 0.15, 0.75) + 0.5 * _step(toward, 0.84, 0.995))


def matte(right: Floats, up: Floats, toward: Floats) -> Floats:
    """A dull surface under light from the upper left."""
    light = np.maximum(0, -0.46 * right + 0.72 * up + 0.52 * toward)
    return floats(0.10 + 0.92 * light**1.2 + 0.25 * light**16)


def satin(right: Floats, up: Floats, toward: Floats) -> Floats:
    """Painted, hardly shining: a face towards the eye has its colour as it is."""
    return floats(0.5 + 0.22 * (-0.46 * right + 0.72 * up) - 0.20 * (1 - toward))


def brushed(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """Fine level scratches."""
    return floats(0.05 * (_noise(glyphs.inside.shape, 2.0, rng, stretch=40) - 0.5))


def fibres(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """Year rings cut lengthwise, with fine fibres."""
    shape, radius = glyphs.inside.shape, glyphs.radius
    rows = np.arange(shape[0], dtype=np.float32)[:, None] / (0.75 * radius)
    rings = rows + 3.2 * _noise(shape, 2.6 * radius, rng, stretch=3) + 0.5 * _noise(shape, 0.6 * radius, rng, stretch=6)
    saw = rings % 1.0
    fibre = _noise(shape, 0.07 * radius + 1, rng, stretch=22) - 0.5
    return floats(0.30 * (saw * saw * (1 - _step(floats(saw), 0.9, 1.0)) - 0.35) * -1 + 0.22 * fibre)


def speckle(glyphs: Glyphs, rng: np.random.Generator) -> Floats:
    """Grains of several sizes."""
    shape, radius = glyphs.inside.shape, glyphs.radius
    fine = _noise(shape, 2.2, rng) - 0.5
    return floats(
        0.16 * fine + 0.16 * (_noise(shape, 0.35 * radius, rng) - 0.5) + 0.12 * (_noise(shape, 1.4 * radius, rng) - 0.5)
    )
