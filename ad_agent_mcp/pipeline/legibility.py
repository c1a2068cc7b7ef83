"""Placed letters made to stand out from their picture, by the mildest remedy that is enough."""

from typing import NamedTuple

import numpy as np

from ..contract.ad import CompositionMode
from ..contract.texts import Text
from ..engines.base import Picture
from ..imaging import contrast
from ..imaging.contrast import Legibility
from ..imaging.picture import Flags, Window, alpha_over, on_canvas, window_round
from ..imaging.placement import clear_of
from ..imaging.remedies import Veil, attempts
from .lettering import Placed
from .workspace import Workspace

_CLEAR_RATIO = 1.5
_WANTED_RATIO = 3.5
"""A remedy that is taken at all aims a little higher than the limit."""
_DARK_INK, _LIGHT_INK = 0.06, 0.75
_MIDDLE_LUMINANCE = 0.18
"""Black and white letters are equally legible on it."""
_UNMEASURED = 21.0
"""The ratio of letters that are too thin to be measured."""
_CANVAS: Window = np.s_[:, :]


class Laid(NamedTuple):
    """Letters as they are laid over the picture.

    Attributes:
        placed: where they lie.
        letters: RGBA on the canvas, maybe recoloured.
        under: RGBA on the canvas, what lies between them and the picture; the lowest first.
        remedies: what was changed so that they stand out.
        worst: the contrast ratio that this gives; see `Legibility`.
    """

    placed: Placed
    letters: Picture
    under: tuple[Picture, ...]
    remedies: tuple[Text, ...]
    worst: float

    @property
    def covered(self) -> Flags:
        """Every pixel that a letter, its rim, scrim or shadow touches."""
        return np.logical_or.reduce([layer[..., 3] > 0 for layer in (self.letters, *self.under)])


def made_legible(workspace: Workspace, placed: Placed) -> Laid:
    """`placed` with a shadow and, where the letters stand out too little, with a remedy."""
    site, best = _Site(workspace, placed), None
    for attempt in attempts(
        site.letters,
        site.ground,
        font_size_px=placed.font_size_px,
        light_x=workspace.light_x,
        is_light=site.has_light_letters(),
        may_recolour=workspace.words is not None,
    ):
        # A product stands before what is laid under letters.
        under = tuple(clear_of(layer, site.front) for layer in attempt.under)
        seen = site.legibility(attempt.letters, *site.veiled(attempt.veil, site.window), *under)
        worst = _UNMEASURED if seen is None else seen.worst
        if best is None or worst > best[0]:
            best = worst, attempt._replace(under=under)
        if worst >= (_WANTED_RATIO if attempt.names else contrast.MIN_RATIO):
            break
    assert best is not None  # noqa: S101  # the first attempt is the letters as they are
    worst, attempt = best
    under = (*site.veiled(attempt.veil, _CANVAS), *map(site.on_canvas, attempt.under))
    return Laid(placed, site.on_canvas(attempt.letters), under, attempt.names, worst)


class _Site:
    """What placed letters stand on, cut to the `window` that they, their shadow and their rim can touch.

    Attributes:
        letters: RGBA, as they are before any remedy.
        base: RGB, the picture without them.
        front: the product's coverage, or None.
        ground: RGB, the picture close to them.
    """

    def __init__(self, workspace: Workspace, placed: Placed) -> None:
        product, size_px = workspace.product_matte, placed.font_size_px
        letters = placed.in_front_of(product)
        if workspace.request.composition_mode is CompositionMode.BLEND:
            letters = contrast.lit_by_scene(letters, workspace.step1, light_x=workspace.light_x)
        self.window = window_round(letters, round(2.1 * size_px) + 4)
        self.letters = np.ascontiguousarray(letters[self.window])
        self.base = workspace.step1[self.window]
        self.front = None if product is None else product[self.window]
        self.ground = self.base[window_round(self.letters, round(0.5 * size_px))]
        self._placed, self._cutout, self._canvas = placed, workspace.cutout, workspace.canvas
        self._density = contrast.scrim_density(placed.where.box, workspace.canvas, font_size_px=size_px)

    def legibility(self, letters: Picture, *under: Picture) -> Legibility | None:
        """How well `letters` over the layers `under` would stand out."""
        picture = alpha_over(self.base, *under, letters)
        return self._placed.legibility(picture, letters, self.front, self.window)

    def has_light_letters(self) -> bool:
        """Whether the letters are to be the lighter ones, or their ground."""
        plain = self.legibility(self.letters)
        if plain is None or plain.worst >= _CLEAR_RATIO:
            return plain is None or plain.is_light
        own = float(np.median(contrast.luminance(self.letters[..., :3])[self.letters[..., 3] > 127]))
        if not _DARK_INK < own < _LIGHT_INK:
            return plain.is_light
        # Letters of the picture's own lightness may go either way: take the one with more room.
        return bool(np.median(contrast.luminance(self.ground)) < _MIDDLE_LUMINANCE)

    def veiled(self, veil: Veil | None, part: Window) -> tuple[Picture, ...]:
        """The scrim in a `part` of the canvas, as layers; none without a veil."""
        if veil is None:
            return ()
        layer = contrast.scrim(self._density[part], self.ground, opacity=veil.opacity, is_dark=veil.is_dark)
        if self._cutout is None:
            return (layer,)
        # The old ground shines through a product's soft edge: it takes the scrim, and the product comes over it again.
        edge = self._cutout[part].copy()
        layer[edge[..., 3] == 255] = 0
        edge[..., 3] = edge[..., 3].astype(np.uint16) * layer[..., 3] // 255
        return layer, edge

    def on_canvas(self, layer: Picture) -> Picture:
        """A `layer` of the window's size, on the canvas."""
        return on_canvas(layer, (self.window[1].start, self.window[0].start), self._canvas)
