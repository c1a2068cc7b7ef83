"""What can be done for letters that are too faint on their ground, mildest first: colour, scrim, rim.

Letters that are shaded like metal, wood or light keep their look; their ground changes instead.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..contract.texts import Text, say
from .contrast import luminance, relit, rim
from .picture import Matte, Picture, blur, floats, tinted

_REMEDIES = (
    (0.15, 0.0),
    (0.3, 0.0),
    (0.4, 0.0),
    (0.0, 0.35),
    (0.3, 0.35),
    (0.0, 0.5),
    (0.3, 0.5),
    (0.5, 0.5),
    (0.0, 0.65),
    (0.4, 0.65),
    (0.0, 0.8),
    (0.0, 0.92),
    (0.5, 0.92),
)
"""How much the letters' lightness changes, and how dense a scrim is added."""
_CONTRARY = 0.5
"""So dense a scrim is also tried the other way: lighter ground under letters that were the lighter ones."""
_MAX_SHADE, _LAST_SHADE = 0.4, 0.45
_TEXTURED = 0.16


class Veil(NamedTuple):
    """How dense a scrim is, 0-1, and whether it is darker than its ground."""

    opacity: float
    is_dark: bool


class Attempt(NamedTuple):
    """`letters` over the RGBA layers `under` over a scrim; `names` say what was changed."""

    letters: Picture
    under: tuple[Picture, ...]
    names: tuple[Text, ...]
    veil: Veil | None = None


def attempts(
    letters: Picture, ground: Picture, *, font_size_px: float, light_x: float, is_light: bool, may_recolour: bool
) -> Iterator[Attempt]:
    """Letters with their shadow, then with ever stronger remedies.

    Args:
        letters: RGBA, with room around them for a shadow.
        ground: RGB near the letters, without them.
        font_size_px: on `letters`.
        light_x: where the scene's light comes from, -1 (left) to 1 (right).
        is_light: whether the letters are lighter than what is around them.
        may_recolour: whether their colour is ours to change.
    """
    solid = floats(np.where(letters[..., 3] > 127, letters[..., 3], 0)) / np.float32(255)
    glows = ((letters[..., 3] > 12) & (letters[..., 3] < 128)).sum() > 1.2 * (solid > 0).sum()

    def shadows(*, over_light: bool) -> tuple[Picture, ...]:
        opacity = 0.36 if over_light else 0.12
        return () if glows else (_drop_shadow(solid, font_size_px, light_x, opacity=opacity),)

    yield Attempt(letters, shadows(over_light=is_light), ())
    shaded = is_textured(letters)

    def attempt(amount: float, opacity: float, under: tuple[Picture, ...], *, is_lighter: bool) -> Attempt:
        changed, names = letters, ()
        if amount:
            changed = relit(letters, towards_light=is_lighter, amount=amount, is_shaded=shaded)
            names = (say("imaging.lighter_letters" if is_lighter else "imaging.darker_letters"),)
        if not opacity:
            return Attempt(changed, under, names)
        return Attempt(changed, under, (*names, say("imaging.scrim")), Veil(opacity, is_lighter))

    for amount, opacity in _REMEDIES:
        for is_lighter in (is_light, not is_light) if opacity >= _CONTRARY else (is_light,):
            # White paint would flatten what is shaded; less light on it does not.
            if not amount or (may_recolour and not (shaded and (is_lighter or amount > _MAX_SHADE))):
                yield attempt(amount, opacity, shadows(over_light=is_lighter), is_lighter=is_lighter)
    # Shading survives a mild shift of the whole better than letters survive a ground of their own tone.
    for is_lighter in (is_light, not is_light) if may_recolour else ():
        yield attempt(_LAST_SHADE, 0.92, (), is_lighter=is_lighter)
    for is_lighter in (is_light, not is_light):
        edge = rim(solid, ground, font_size_px=font_size_px, is_dark=is_lighter)
        yield attempt(0, 0.8, (edge,), is_lighter=is_lighter)._replace(
            names=(say("imaging.scrim"), say("imaging.outline"))
        )


def is_textured(letters: Picture) -> bool:
    """Whether the faces of RGBA `letters` are shaded so that one colour would flatten them."""
    tones = np.sqrt(luminance(letters[..., :3])[letters[..., 3] > 200])
    return tones.size > 0 and float(np.subtract(*np.percentile(tones, (90, 10)))) > _TEXTURED


def _drop_shadow(matte: Matte, size_px: float, light_x: float, *, opacity: float) -> Picture:
    down, right = round(0.04 * size_px), round(-0.03 * light_x * size_px)
    moved = np.roll(matte, (down, right), (0, 1))  # the rim is empty, so nothing comes back at the other side
    return tinted(floats(np.clip(blur(moved, 0.06 * size_px), 0, 1) * opacity), (18, 14, 14))
