"""Setting words: line breaks, the largest size that fits, and the flat mask of the shaped letters.

Shaping (kerning, joining, right-to-left order) is raqm's; it never changes which words there are.
"""

import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from ..contract.document import TextLine
from ..media.fonts import FontCatalog
from .picture import Matte

LINE_PITCH = 1.2
"""Distance of baselines in font sizes."""
_REFERENCE_PX = 200
_MIN_PX = 8
_FEWER_LINES_BONUS = 1.12
_KEPT_LINES_BONUS = 1.3
"""An author who breaks lines wants those lines."""


@dataclass(frozen=True)
class SetText:
    """Set words.

    Attributes:
        mask: float32 (H, W), coverage of the letters.
        lines: the lines and their ink boxes in `mask`.
        font_size_px: size of the named font.
    """

    mask: Matte
    lines: tuple[TextLine, ...]
    font_size_px: int


def has_shaping() -> bool:
    """Whether Pillow found raqm and the fribidi library it loads; without, letters are set one by one."""
    return bool(features.check_feature("raqm"))


def needs_shaping(text: str) -> bool:
    """Whether letters set one by one, left to right, would be wrong: joined, reordered or stacked scripts."""
    return any(
        unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character) in ("Mn", "Mc")
        for character in text
    )


class Typesetter:
    """Sets words in one font of a catalogue, with others standing in for characters it lacks."""

    def __init__(self, catalog: FontCatalog, font_name: str) -> None:
        """Raises `AdAgentError` (`invalid_request`) when the catalogue knows no font by `font_name`."""
        catalog.path_of(font_name)
        self._runs = functools.cache(functools.partial(catalog.runs, name=font_name))
        self._font = functools.cache(ImageFont.truetype)

    def fit(
        self, text: str, box: tuple[int, int], *, max_lines: int = 8, min_size_px: int = 0
    ) -> tuple[list[str], int]:
        """Break `text` into lines so that it can be largest.

        Args:
            text: the words; its own line breaks are kept.
            box: (width, height) in pixels that the ink must fit.
            max_lines: no further breaks are made beyond so many lines.
            min_size_px: a word is broken between its characters only where it could not be this large.

        Returns:
            The lines and the font size in pixels.
        """
        paragraphs = [" ".join(line.split()) for line in unicodedata.normalize("NFC", text).split("\n")]
        while paragraphs and not paragraphs[-1]:
            paragraphs.pop()
        lines, size = self._best([line.split(" ") for line in paragraphs], " ", box, max_lines)
        if size < min_size_px:
            loose, loose_size = self._best([_clusters(line) for line in paragraphs], "", box, max_lines)
            if loose_size > size:
                lines, size = [line.strip() for line in loose], loose_size
        return lines, max(_MIN_PX, size)

    def draw(self, lines: Sequence[str], size_px: int, *, padding_px: int) -> SetText:
        """The mask of centred `lines`, `padding_px` wider than the ink on every side."""
        # Few fonts have the letters that a decomposed syllable consists of.
        lines = [unicodedata.normalize("NFC", line) for line in lines]
        pitch = LINE_PITCH * size_px
        widths = [self._width(line, size_px) for line in lines]
        # Ink may leave the advance box (italics, marks); the slack is cropped away below.
        slack = 2 * size_px
        canvas_width = int(max(widths, default=0)) + 2 * slack
        sheet = Image.new("L", (canvas_width, int(pitch * len(lines)) + 2 * slack), 0)
        rows: list[tuple[str, tuple[int, int, int, int]]] = []
        for index, (line, width) in enumerate(zip(lines, widths, strict=True)):
            strip = Image.new("L", sheet.size, 0)
            x = (canvas_width - width) / 2
            baseline = slack + pitch * index + 0.8 * size_px
            draw = ImageDraw.Draw(strip)
            for piece, font in self._pieces(line, size_px):
                draw.text((x, baseline), piece, fill=255, font=font, anchor="ls")
                x += font.getlength(piece)
            ink = strip.getbbox()
            if ink is not None:
                sheet.paste(255, (0, 0), strip)
            rows.append((line, ink or (canvas_width // 2, int(baseline), canvas_width // 2, int(baseline))))
        if sheet.getbbox() is None:
            return SetText(np.zeros((16, 16), np.float32), (), size_px)
        left, top = min(ink[0] for _, ink in rows) - padding_px, min(ink[1] for _, ink in rows) - padding_px
        right, bottom = max(ink[2] for _, ink in rows) + padding_px, max(ink[3] for _, ink in rows) + padding_px
        mask = np.asarray(sheet.crop((left, top, right, bottom)), dtype=np.float32) / 255
        placed = tuple(
            TextLine(text=line, box=(ink[0] - left, ink[1] - top, ink[2] - ink[0], ink[3] - ink[1]))
            for line, ink in rows
        )
        return SetText(mask.astype(np.float32), placed, size_px)

    def _best(
        self, paragraphs: list[list[str]], glue: str, box: tuple[int, int], max_lines: int
    ) -> tuple[list[str], int]:
        counts = [1] * len(paragraphs)
        bonus = _KEPT_LINES_BONUS if len(paragraphs) > 1 else _FEWER_LINES_BONUS
        best: tuple[float, list[str], int] | None = None
        while True:
            split = [
                _balanced(atoms, count, glue, self._measure) for atoms, count in zip(paragraphs, counts, strict=True)
            ]
            lines = [line for part in split for line in part]
            size = self._largest(lines, box)
            score = size * bonus ** -len(lines)
            if best is None or score > best[0]:
                best = (score, lines, size)
            if len(lines) >= max_lines:
                break
            widest = [
                (max(map(self._measure, part)), index)
                for index, part in enumerate(split)
                if counts[index] < len(paragraphs[index])
            ]
            if not widest:
                break
            counts[max(widest)[1]] += 1
        return best[1], best[2]

    def _largest(self, lines: list[str], box: tuple[int, int]) -> int:
        width = max((self._measure(line) for line in lines), default=1.0) or 1.0
        by_height = box[1] / (LINE_PITCH * (len(lines) - 1) + 1.0)
        size = max(1, int(min(box[0] / width * _REFERENCE_PX, by_height)))
        while size > 1 and any(self._width(line, size) > box[0] for line in lines):
            size -= 1
        return size

    def _measure(self, text: str) -> float:
        """Width at the reference size."""
        return self._width(text, _REFERENCE_PX)

    def _width(self, text: str, size_px: int) -> float:
        return sum(font.getlength(piece) for piece, font in self._pieces(text, size_px))

    def _pieces(self, line: str, size_px: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        """The line's pieces from left to right."""
        runs = [(piece, self._font(str(path), size_px)) for piece, path in self._runs(line)]
        return runs[::-1] if _is_right_to_left(line) else runs


def _is_right_to_left(line: str) -> bool:
    directions = map(unicodedata.bidirectional, line)
    return next((direction for direction in directions if direction in ("L", "R", "AL")), "L") != "L"


def _clusters(text: str) -> list[str]:
    """Characters with the marks that belong to them."""
    clusters: list[str] = []
    for character in text:
        joins = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        if clusters and (joins or clusters[-1].endswith("\u200d")):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _balanced(atoms: list[str], count: int, glue: str, measure: Callable[[str], float]) -> list[str]:
    """`atoms` in `count` lines as even as can be: the least sum of squared widths."""
    if count <= 1:
        return [glue.join(atoms)]
    gap = measure(glue) if glue else 0.0
    edges = np.concatenate([[0.0], np.cumsum([measure(atom) + gap for atom in atoms])])
    total = len(atoms)
    cost = np.full((count + 1, total + 1), np.inf)
    cut = np.zeros((count + 1, total + 1), np.int64)
    cost[0, 0] = 0
    for lines in range(1, count + 1):
        for end in range(lines, total + 1):
            options = cost[lines - 1, :end] + (edges[end] - edges[:end] - gap) ** 2
            cut[lines, end] = np.argmin(options)
            cost[lines, end] = options[cut[lines, end]]
    result: list[str] = []
    end = total
    for lines in range(count, 0, -1):
        start = int(cut[lines, end])
        result.append(glue.join(atoms[start:end]))
        end = start
    return result[::-1]
