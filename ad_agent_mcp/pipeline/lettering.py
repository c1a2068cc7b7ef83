"""How large words are set, where their picture lies on the canvas, and which of its pixels are which glyph.

Follows from the layers and the document alone, so that a stored job can be measured again.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ..contract.ad import TextPosition
from ..contract.document import Box, Words
from ..imaging.contrast import Legibility, legibility
from ..imaging.picture import Flags, Matte, Picture, Window, box_of, coverage, floats, tinted
from ..imaging.placement import Spot, clear_of, find_spots, ink_of, is_banner, letters_at, text_area
from ..imaging.typesetting import SetText, Typesetter
from ..media.fonts import FontCatalog

MIN_LETTER_SHARE = 0.02
"""Smaller letters, as a share of the canvas's shorter side, cannot be read."""
PADDING_SHARE = 0.3
"""Empty rim of the lettering picture, in font sizes: room for an extrusion or a glow."""
_MIN_SIZE_SHARE = 0.04
_MAX_SIZE_SHARE = 0.17
_MAX_BEHIND_SHARE = 0.24
_MAX_BESIDE_SHARE = 0.2
_MEASURE_PX = 48
_MIN_CELL_SHARE = 0.45
"""Narrower characters are judged with the next one, in font sizes."""


@dataclass(frozen=True)
class Glyphs:
    """The `words` of a lettering picture, set anew: `mask` has its size, each of `cells` holds a character or two.

    `letter_px` is the height of a capital or a syllable.
    """

    words: Words
    typesetter: Typesetter
    mask: Flags
    cells: tuple[Box, ...]
    letter_px: int


@dataclass(frozen=True)
class Placed:
    """Letters on the canvas.

    Attributes:
        picture: RGBA, the lettering picture as it was painted.
        glyphs: its words, or None when it is not known which they are.
        letters: RGBA on the canvas, behind nothing yet.
        faces: the letters without extruded sides, or None as `glyphs`.
        cells: the boxes of their glyphs.
        font_size_px: on the canvas.
        where: their place.
    """

    picture: Picture
    glyphs: Glyphs | None
    letters: Picture
    faces: Flags | None
    cells: tuple[Box, ...]
    font_size_px: float
    where: Spot

    def in_front_of(self, product: Matte | None) -> Picture:
        """The letters as they are laid over the picture: their glow passes behind a product that they do not touch."""
        if product is None or self.where.is_behind or ((coverage(self.letters) > 0.5) & (product > 0.5)).any():
            return self.letters
        return clear_of(self.letters, product)

    def legibility(self, picture: Picture, letters: Picture, front: Matte | None, window: Window) -> Legibility | None:
        """How well these letters, as they are in `letters`, stand out in `picture`; all of it cut to `window`.

        Args:
            picture: RGB with the letters in it.
            letters: RGBA.
            front: the product's coverage, which is before letters that go behind it.
            window: rows and columns of the canvas.
        """
        faces = None if self.faces is None else self.faces[window]
        front = front if self.where.is_behind else None
        return legibility(picture, coverage(letters), faces=faces, front=front, font_size_px=self.font_size_px)

    def hidden_shares(self, product: Matte) -> tuple[float, float]:
        """How much of all letters, and of the glyph that suffers most, lies under `product`; 0-1."""
        matte = coverage(self.letters)
        hidden = matte * product
        shares = [float(hidden.sum() / max(1.0, float(matte.sum())))]
        for x, y, width, height in self.cells:
            part = np.s_[max(0, y) : y + height, max(0, x) : x + width]
            shares.append(float(hidden[part].sum() / max(1.0, float(matte[part].sum()))))
        return shares[0], max(shares)


def set_words(
    text: str,
    typesetter: Typesetter,
    canvas: tuple[int, int],
    product: Matte | None,
    *,
    position: TextPosition,
    is_behind: bool,
) -> SetText:
    """`text` as large as its room on `canvas` (width, height) lets it be; see `text_area`."""
    area = text_area(canvas, product, position=position, is_behind=is_behind)
    lines, size_px = typesetter.fit(
        text,
        (area[2], area[3]),
        # Behind a product a second line would lose its middle.
        max_lines=1 if is_behind else 8,
        min_size_px=round(_MIN_SIZE_SHARE * min(canvas)),
    )
    largest = _MAX_BEHIND_SHARE if is_behind else _MAX_BESIDE_SHARE if is_banner(canvas) else _MAX_SIZE_SHARE
    size_px = min(size_px, round(largest * min(canvas)))
    return typesetter.draw(lines, size_px, padding_px=max(4, round(PADDING_SHARE * size_px)))


def letter_height(text: str, typesetter: Typesetter, size_px: int) -> int:
    """Height in pixels, at a font size, of a syllable, or of a capital where `text` has other letters than Hangul."""
    is_hangul = all("가" <= character <= "힣" for character in text if character.isalnum())
    return typesetter.draw(["한" if is_hangul else "H"], size_px, padding_px=0).mask.shape[0]


def least_scale(letter_px: int, canvas: tuple[int, int]) -> float:
    """How far letters may be scaled down on `canvas` (width, height) and still be read."""
    return MIN_LETTER_SHARE * min(canvas) / letter_px


def larger_setting(
    text: str, typesetter: Typesetter, picture: Picture, product: Matte | None, *, job_id: str
) -> dict[str, Any] | None:
    """Arguments of `generate` that set the same words large enough to be read, or None.

    Args:
        text: the words.
        typesetter: of their font.
        picture: RGB, what they stand on.
        product: its coverage.
        job_id: whose words they are.
    """
    canvas = (picture.shape[1], picture.shape[0])
    for content in dict.fromkeys((text, " ".join(text.split()))):
        for place in (TextPosition.AUTO, TextPosition.TOP, TextPosition.BOTTOM):
            words = set_words(content, typesetter, canvas, product, position=place, is_behind=False)
            letter_px = letter_height(content, typesetter, words.font_size_px)
            if letter_px < MIN_LETTER_SHARE * min(canvas):
                continue
            ink = box_of(words.mask > 0) or (0, 0, 1, 1)
            area = text_area(canvas, product, position=place, is_behind=False)
            spot = find_spots(picture, product, (ink[2], ink[3]), area=area, position=place)[0]
            if spot.scale >= least_scale(letter_px, canvas):
                arguments: dict[str, Any] = {"resume_job_id": job_id, "start_step": 2, "text_position": str(place)}
                arguments["composition_mode"] = "overlay"
                return arguments if content == text else {**arguments, "text_content": content}
    return None


def glyphs_of(words: Words, fonts: FontCatalog, shape: tuple[int, int]) -> Glyphs:
    """`words` set anew in a lettering picture of `shape` (rows, columns)."""
    typesetter = Typesetter(fonts, words.font_name)
    lines = [line.text for line in words.lines]
    anew = typesetter.draw(lines, words.font_size_px, padding_px=0).mask > 0.5
    left, top = min(line.box[0] for line in words.lines), min(line.box[1] for line in words.lines)
    mask = np.zeros(shape, np.bool_)
    part = mask[top : top + anew.shape[0], left : left + anew.shape[1]]
    part[:] = anew[: part.shape[0], : part.shape[1]]
    cells: list[Box] = []
    for line in words.lines:
        x, y, width, height = line.box
        ends = [typesetter.draw([begun], _MEASURE_PX, padding_px=0).mask.shape[1] for begun in accumulate(line.text)]
        start = 0
        for end in ends:
            from_x, to_x = (round(x + width * edge / ends[-1]) for edge in (start, end))
            if to_x - from_x >= _MIN_CELL_SHARE * words.font_size_px or (end == ends[-1] and to_x > from_x):
                cells.append((from_x, y, to_x - from_x, height))
                start = end
    letter_px = letter_height("".join(lines), typesetter, words.font_size_px)
    return Glyphs(words, typesetter, mask, tuple(cells), letter_px)


def placed_letters(picture: Picture, where: Spot, canvas: tuple[int, int], glyphs: Glyphs | None) -> Placed:
    """RGBA `picture` of letters on the canvas; `glyphs` when it is known which words they are."""
    ink = ink_of(picture)
    faces, cells, size_px = None, (where.box,), 0.6 * where.box[3]
    if glyphs is not None:
        faces = letters_at(tinted(floats(glyphs.mask), (0, 0, 0)), ink, where.box, where.scale, canvas)[..., 3] > 127
        size_px = glyphs.words.font_size_px * where.scale
        cells = tuple(
            (
                round(where.box[0] + (x - ink[0]) * where.scale),
                round(where.box[1] + (y - ink[1]) * where.scale),
                round(width * where.scale),
                round(height * where.scale),
            )
            for x, y, width, height in glyphs.cells
        )
    letters = letters_at(picture, ink, where.box, where.scale, canvas)
    return Placed(picture, glyphs, letters, faces, cells, max(12.0, size_px), where)
