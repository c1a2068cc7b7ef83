"""The fonts a request may name, which characters they cover, and what stands in where they do not.

Pillow and the standard library; fontTools is imported when coverage is first asked for, because it is slow
to import. Knows nothing about jobs.
"""

import difflib
import io
import logging
import os
import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..contract.errors import invalid
from ..contract.schemas import FontInfo

logger = logging.getLogger(__name__)

SUFFIXES = (".ttf", ".otf", ".ttc")
FALLBACK_NAME = "DejaVu/DejaVuSans-Bold.ttf"
_HANGUL_NAME = "NanumSquare/NanumSquareB.ttf"
_RARE_HANGUL_NAME = "NanumGothic/NanumGothicExtraBold.ttf"
"""Has the syllables beyond the everyday 2,350 that display fonts leave empty."""
_EVERYDAY_HANGUL = "가한쫙힝"
_SAMPLE_WORDS = "가나다라 마바사 ABC 123"
_SAMPLE_PX = 48
_PROBE_SIZE_PX = 24
_NONCHARACTER = "\uffff"


def bundled_font_root() -> Path:
    """The folder of the fonts that come with the product: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "fonts"
    return inside if inside.is_dir() else package.parent / "fonts"


class FontCatalog:
    """The fonts under some folders, by name: the path relative to its folder, with forward slashes.

    The folders are read on first use and remembered; may be used from several threads. Where two folders
    hold the same name, the first wins.
    """

    def __init__(self, roots: Iterable[Path] | None = None) -> None:
        """`roots`: the folders, in order of precedence; by default the bundled one alone."""
        self._roots = tuple(roots) if roots is not None else (bundled_font_root(),)
        self._lock = threading.RLock()
        self._fonts: dict[str, FontInfo] | None = None
        self._paths: dict[str, Path] = {}
        self._coverage: dict[Path, frozenset[int]] = {}
        self._probes: dict[Path, ImageFont.FreeTypeFont] = {}
        self._inked: dict[tuple[Path, str], bool] = {}

    @classmethod
    def with_user_folders(cls, folders: Iterable[Path]) -> "FontCatalog":
        """The bundled fonts and those under `folders`."""
        return cls((bundled_font_root(), *folders))

    def fonts(self) -> list[FontInfo]:
        """Every readable font, by name."""
        return list(self._listed().values())

    def path_of(self, name: str) -> Path:
        """The file of the font `name`.

        Raises:
            AdAgentError: `invalid_request`; no listed font has this name.
        """
        listed = self._listed()
        if name not in listed:
            near = difflib.get_close_matches(name, listed, n=3, cutoff=0.4) or list(listed)[:3]
            hint = f" Nearest: {', '.join(near)}." if near else ""
            raise invalid(f"There is no font {name[:200]!r}.{hint} `fonts` lists all.", field="font_name")
        return self._paths[name]

    def sample(self, name: str) -> bytes:
        """A PNG that shows the font `name`: its family, and a few letters in it as far as it has them.

        Raises:
            AdAgentError: as `path_of`.
        """
        path, info = self.path_of(name), self._listed()[name]
        words = _SAMPLE_WORDS if info.hangul else "Hamburg ABC 123"
        caption = ImageFont.truetype(str(self._paths.get(_HANGUL_NAME, path)), _SAMPLE_PX // 2)
        letters = ImageFont.truetype(str(path), _SAMPLE_PX)
        width = max(caption.getlength(f"{info.family} {info.style}"), letters.getlength(words))
        picture = Image.new("L", (int(width) + _SAMPLE_PX, round(2.9 * _SAMPLE_PX)), 255)
        draw = ImageDraw.Draw(picture)
        margin = _SAMPLE_PX // 2
        draw.text((margin, 0.9 * _SAMPLE_PX), f"{info.family} {info.style}", fill=110, font=caption, anchor="ls")
        draw.text((margin, 2.2 * _SAMPLE_PX), words, fill=0, font=letters, anchor="ls")
        data = io.BytesIO()
        picture.save(data, "PNG")
        return data.getvalue()

    def uncovered(self, text: str, name: str) -> list[str]:
        """The characters of `text` that neither the font `name` nor any fallback covers, each once, in order.

        Raises:
            AdAgentError: as `path_of`.
        """
        self.path_of(name)
        missing: dict[str, None] = {}
        for character in text:
            if not _is_ignorable(character) and self._font_for(character, name) is None:
                missing[character] = None
        return list(missing)

    def runs(self, text: str, name: str) -> list[tuple[str, Path]]:
        """One line of `text` as pieces, each with the file of the font that draws it.

        White space, joiners and marks stay with the piece before them. A line with right-to-left letters is
        drawn by one font where one covers it all, because a piece is shaped by itself.

        Raises:
            AdAgentError: as `path_of`.
        """
        named = self.path_of(name)
        if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
            for path in self._candidates(name):
                if all(_is_ignorable(character) or self._covers(path, character) for character in text):
                    return [(text, path)] if text else []
        runs: list[tuple[str, Path]] = []
        for character in text:
            last = runs[-1][1] if runs else None
            is_mark = unicodedata.combining(character) > 0
            if last is not None and (_is_ignorable(character) or (is_mark and self._covers(last, character))):
                path = last
            else:
                path = named if _is_ignorable(character) else self._font_for(character, name) or named
            if path == last:
                runs[-1] = (runs[-1][0] + character, path)
            else:
                runs.append((character, path))
        return runs

    def _covers(self, path: Path, character: str) -> bool:
        with self._lock:
            if path not in self._coverage:
                self._coverage[path] = _code_points(path)
            if ord(character) not in self._coverage[path]:
                return False
            # Korean fonts list every syllable, and leave most of the rare ones empty.
            if (path, character) not in self._inked:
                if path not in self._probes:
                    self._probes[path] = ImageFont.truetype(str(path), _PROBE_SIZE_PX)
                self._inked[path, character] = _has_ink(self._probes[path], character)
            return self._inked[path, character]

    def _candidates(self, name: str) -> list[Path]:
        listed = self._listed()
        order = [name, FALLBACK_NAME, _HANGUL_NAME, _RARE_HANGUL_NAME, *listed]
        return list(dict.fromkeys(self._paths[one] for one in order if one in listed))

    def _font_for(self, character: str, name: str) -> Path | None:
        return next((path for path in self._candidates(name) if self._covers(path, character)), None)

    def _listed(self) -> dict[str, FontInfo]:
        with self._lock:
            if self._fonts is None:
                found: dict[str, FontInfo] = {}
                for root in self._roots:
                    for name, path in _font_files(root):
                        info = None if name in found else _read_info(name, path)
                        if info is not None:
                            found[name] = info
                            self._paths[name] = path
                self._fonts = dict(sorted(found.items()))
            return self._fonts


def _font_files(root: Path) -> list[tuple[str, Path]]:
    if not root.is_dir():
        logger.warning("font folder %s does not exist", root)
        return []
    inside = root.resolve()
    files: list[tuple[str, Path]] = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() not in SUFFIXES:
                continue
            if not path.resolve().is_relative_to(inside):
                logger.warning("font %s leads out of its folder and is not listed", path)
                continue
            files.append((path.relative_to(root).as_posix(), path.absolute()))
    return sorted(files)


def _read_info(name: str, path: Path) -> FontInfo | None:
    try:
        font = ImageFont.truetype(str(path), _PROBE_SIZE_PX)
        family, style = font.getname()
        missing = _drawn(font, _NONCHARACTER)
        hangul = all(_has_ink(font, syllable) and _drawn(font, syllable) != missing for syllable in _EVERYDAY_HANGUL)
    except (OSError, ValueError) as error:
        logger.warning("font %s cannot be used: %s", path, error)
        return None
    return FontInfo(name=name, path=name, family=family or path.stem, style=style or "Regular", hangul=hangul)


def _drawn(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    picture = Image.new("L", (2 * _PROBE_SIZE_PX, 2 * _PROBE_SIZE_PX))
    ImageDraw.Draw(picture).text((0, 0), character, fill=255, font=font)
    return picture.tobytes()


def _has_ink(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return font.getmask(character).getbbox() is not None


def _code_points(path: Path) -> frozenset[int]:
    from fontTools.ttLib import TTFont, TTLibError  # pyright: ignore[reportMissingTypeStubs]

    try:
        with TTFont(path, fontNumber=0, lazy=True) as font:
            return frozenset(font.getBestCmap() or ())
    except (TTLibError, OSError, KeyError, ValueError) as error:
        logger.warning("the coverage of font %s cannot be read: %s", path, error)
        return frozenset()


def _is_ignorable(character: str) -> bool:
    """Whether no glyph is needed: white space, format characters, variation selectors."""
    return character.isspace() or unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F
