"""The engine without models: real ads from classical image processing on a CPU. Same request and seed, same bytes."""

import numpy as np

from ...contract.ad import CompositionMode, TextPosition
from ...contract.call import GenerateRequest
from ...contract.document import Box
from ...contract.stages import EngineName, Plan
from ...contract.texts import say
from ...imaging import cutout
from ...imaging.composite import product_box, subject_x
from ...imaging.picture import alpha_over, floats, to_bytes
from ...imaging.placement import words_side
from ..base import CutOut, Matte, Picture, Scene, StageReport
from .lettering import paint_letters
from .palette import choose_palette, named_colours
from .scenes.routing import choose_scene, paint_scene, scene_name
from .scenes.setting import Setting, vignetted, with_grain
from .styles import wish_of

_SURE_CONFIDENCE = 0.75
_BLEND_OPACITY = 0.93


class DraftEngine:
    """Implements `engines.base.Engine` without weights, and remembers nothing from one call to the next."""

    name = EngineName.DRAFT
    holds_device = False

    def prepare(self, plan: Plan, request: GenerateRequest) -> None:
        """See `Engine`; nothing has to be known beforehand."""

    def cut_out(self, photo: Picture, *, product_box: Box | None, report: StageReport) -> CutOut:
        """See `Engine`."""
        cut = cutout.cut_out(photo, product_box=product_box)
        if cut.confidence < _SURE_CONFIDENCE or cut.route == "clutter":
            report.notice("cutout_uncertain", say("engines.cutout_unclear"))
        report.iteration(1, 1)
        return cut

    def paint_background(
        self, request: GenerateRequest, *, size: tuple[int, int], product: CutOut, seed: int, report: StageReport
    ) -> Scene:
        """See `Engine`."""
        rng = np.random.default_rng(seed)
        light_x = -1.0 if rng.random() < 0.7 else 1.0
        choice = choose_scene(request.bg_prompt)
        palette = choose_palette(request.bg_prompt, product.rgba)
        side, floor_y = words_side(request), choice.kind.floor_y
        if side is TextPosition.BOTTOM:
            floor_y -= 0.12  # words below the product need floor
        if choice.kind.light_z < 0 and subject_x(size, side) > 0.6:
            light_x = -1.0  # a sun behind the product's outer side would leave the picture
        subject = product_box((product.box[2], product.box[3]), size, floor_y=floor_y, side=side)
        setting = Setting(size, palette, light_x, floor_y, subject, choice.props)
        image = paint_scene(choice.kind, setting, rng)
        name = scene_name(choice, palette)
        if request.bg_prompt.strip():
            words = list(dict.fromkeys((*choice.words, *(word for word, _ in named_colours(request.bg_prompt)))))
            told = say("engines.scene_own", scene=name)
            if words:
                told = say("engines.scene_followed", scene=name, words=words)
            report.notice("scene_simplified", told)
        report.iteration(1, 1)
        kind = choice.kind
        # A podium ends before a long shadow does.
        cast = kind.cast * (0.4 if "podium" in choice.props else 1.0)
        colours = tuple(
            "#" + to_bytes(colour).tobytes().hex() for colour in (palette.wall, palette.shade, palette.accent)
        )
        return Scene(image, name.en, floor_y, light_x, kind.light_z, cast, kind.gloss, colours)

    def refine(self, image: Picture, *, seed: int, report: StageReport) -> Picture:
        """See `Engine`: a light grade of the whole."""
        graded = vignetted(floats(image) / np.float32(255), 0.07)
        graded = with_grain(graded, np.random.default_rng(seed), 0.003)
        report.iteration(1, 1)
        return to_bytes(graded)

    def paint_text(self, mask: Matte, *, request: GenerateRequest, seed: int, report: StageReport) -> Picture:
        """See `Engine`: the lettering style that `text_model_prompt` names."""
        letters = paint_letters(mask, request.text_model_prompt, seed=seed)
        wish = wish_of(request.text_model_prompt)
        if wish.unheeded:
            told = say("engines.lettering_simplified", style=wish.said, words=wish.unheeded)
            report.notice("lettering_simplified", told)
        report.iteration(1, 1)
        return letters

    def cut_out_text(self, painting: Picture, mask: Matte, *, report: StageReport) -> Picture:
        """See `Engine`; `paint_text` paints on nothing, so there is nothing to cut."""
        return painting

    def blend_text(
        self, image: Picture, letters: Picture, *, mode: CompositionMode, seed: int, report: StageReport
    ) -> Picture:
        """See `Engine`."""
        blended = _translucent(letters) if mode is CompositionMode.BLEND else letters
        report.iteration(1, 1)
        return alpha_over(image, blended)

    def unload(self) -> None:
        """See `Engine`; there is nothing to let go of."""

    def preload(self, report: StageReport) -> None:
        """See `Engine`; there is nothing to load."""

    def is_usable(self) -> bool:
        """See `Engine`."""
        return True


def _translucent(letters: Picture) -> Picture:
    """`letters` with a little of the picture shining through; the pipeline has put them into the scene's light."""
    result = letters.copy()
    result[..., 3] = np.round(floats(letters[..., 3]) * _BLEND_OPACITY)
    return result
