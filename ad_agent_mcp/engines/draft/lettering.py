"""How a flat glyph mask becomes balloon foil, chiselled metal, candy, neon, wood or stone.

All styles but the flat one are drawn alike: a height field over the mask, the lightness of its normals under a
`finish`, and the colour of that lightness in a scale of tones. Knows nothing about words, fonts or jobs.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np

from ...imaging.picture import Flags, Floats, Matte, Picture, blur, box_of, floats, resize, to_bytes
from .palette import scale_of
from .styles import Style, wish_of
from .surfaces import Glyphs

_GLOW_ALPHA = 0.47
"""A glow never counts as a letter (alpha above 127)."""
_LUT_SIDE = 512
_FINE_AREA_PX = 1_200_000
"""Larger letters have pixels enough without supersampling."""


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
    style, tones = wish_of(prompt)[:2]
    letters = np.zeros((*mask.shape, 4), np.uint8)
    ink = box_of(mask > 0)
    if ink is None:
        return letters
    solid = mask > 0.5
    # The thinnest strokes of tiny letters fill no pixel.
    stroke = (
        2 * float(cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 3)[solid].mean()) if solid.any() else 0
    )
    reach = round(stroke * max(style.glow, 1.2 * style.depth)) + 4
    left, top = max(0, ink[0] - reach), max(0, ink[1] - reach)
    window = (slice(top, ink[1] + ink[3] + reach), slice(left, ink[0] + ink[2] + reach))
    face = np.ascontiguousarray(mask[window])
    table = scale_of([at for at, _ in tones], [rgb for _, rgb in tones])
    letters[window] = _painted(face, style, table, np.random.default_rng(seed))
    return letters


def _painted(face: Matte, style: Style, table: Floats, rng: np.random.Generator) -> Picture:
    """Letters that fill their picture, in the colours of `table` from dark to light."""
    middle = table[len(table) // 2]
    scale = 2 if face.size <= _FINE_AREA_PX else 1
    size = (face.shape[1] * scale, face.shape[0] * scale)
    fine = floats(cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)) if scale > 1 else face
    coverage = floats(np.clip(blur(fine, 0.5 * scale), 0, 1))
    inside = coverage > 0.5
    if style.height is None or not inside.any():
        return _merged(face, np.broadcast_to(middle, (*face.shape, 3)))
    rough = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The last bits of OpenCV's root differ with threads and memory; squares of distances are whole numbers.
    distance = np.sqrt(np.rint(floats(rough) ** 2))
    glyphs = Glyphs(coverage, inside, distance, max(2.0, 2 * float(distance[inside].mean())))
    value = _lightness(style.height(glyphs, rng), glyphs, style, rng)
    solid = inside
    if style.depth:
        value, solid = _extruded(value, glyphs, style.depth)
    colour = table[np.clip(value * (len(table) - 1), 0, len(table) - 1).astype(np.int32)]
    weight = solid.astype(np.float32)
    small = resize(floats(np.dstack([colour * weight[..., None], weight])), (face.shape[1], face.shape[0]))
    covered = small[..., 3]
    rgb = small[..., :3] / np.maximum(covered, 1e-3)[..., None]
    # Beyond the shaded surface an edge pixel takes the colour beside it.
    near = blur(small, 1.5)
    rgb = np.where((covered > 0.2)[..., None], rgb, near[..., :3] / np.maximum(near[..., 3], 1e-3)[..., None])
    alpha = np.maximum(face, covered) if style.depth else face
    if style.glow:
        return _glowing(face, rgb, middle, stroke_px=glyphs.radius / scale)
    return _merged(alpha, rgb)


def _glowing(face: Matte, rgb: Floats, light: Floats, *, stroke_px: float) -> Picture:
    """Letters in a haze of `light` that is dense at their edge and reaches far."""
    haze = sum(blur(face, reach * stroke_px) * part for reach, part in ((0.7, 0.5), (1.8, 0.45), (4, 0.4)))
    haze = _GLOW_ALPHA * np.clip(floats(haze), 0, 1) * _fade(face.shape) * (1 - face)
    alpha = face + haze
    mixed = (rgb * face[..., None] + light * haze[..., None]) / np.maximum(alpha, 1e-3)[..., None]
    # The letters' soft edge must not lift the haze over the line between letter and glow.
    return _merged(floats(np.where(face > 0.5, alpha, np.minimum(alpha, _GLOW_ALPHA + 0.02))), floats(mixed))


def _merged(alpha: Matte, rgb: Floats) -> Picture:
    letters = np.dstack([to_bytes(rgb), to_bytes(alpha)])
    letters[letters[..., 3] == 0] = 0
    return letters


def _lightness(height: Floats, glyphs: Glyphs, style: Style, rng: np.random.Generator) -> Floats:
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
