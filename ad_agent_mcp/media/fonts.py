"""The fonts a request may name, which characters they cover, and what stands in where they do not.

Pillow and the standard library. Knows nothing about jobs.
"""

import difflib
import functools
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel

from ..contract.errors import invalid
from ..contract.texts import say
from .encode import encode_picture

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


class FontInfo(BaseModel):
    """One font a request may name."""

    name: str
    path: str
    family: str
    style: str
    hangul: bool


def bundled_font_root() -> Path:
    """The folder of the fonts that come with the product: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "fonts"
    return inside if inside.is_dir() else package.parent / "fonts"


class FontCatalog:
    """The bundled fonts and those under some folders, by name: the path relative to its folder, with forward slashes.

    The folders are read on first use and remembered; may be used from several threads. Where two folders
    hold the same name, the first wins, and the bundled one before all.
    """

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._roots = (bundled_font_root(), *folders)

    @functools.cached_property
    def _listed(self) -> dict[str, tuple[FontInfo, Path]]:
        found: dict[str, tuple[FontInfo, Path]] = {}
        for root in self._roots:
            for name, path in _font_files(root):
                info = None if name in found else _read_info(name, path)
                if info is not None:
                    found[name] = info, path
        return dict(sorted(found.items()))

    def fonts(self) -> list[FontInfo]:
        """Every readable font, by name."""
        return [info for info, _ in self._listed.values()]

    def name_of(self, called: str) -> str:
        """The listed font that is meant by `called`: a name, file name or family as people write it, or its beginning.

        Raises:
            AdAgentError: `invalid_request`; it fits no listed font, or several.
        """
        if called in self._listed:
            return called
        wanted = _plain(PurePath(called).with_suffix("").as_posix() if called.lower().endswith(SUFFIXES) else called)
        names = {name: _names_of(info) for name, (info, _) in self._listed.items()}
        whole = [name for name, plain in names.items() if wanted in plain]
        fit = whole or [name for name, plain in names.items() if any(one.startswith(wanted) for one in plain)]
        if len(fit) == 1 and wanted:
            return fit[0]
        alike = {one: name for name, plain in names.items() for one in plain}
        nearest = [alike[one] for one in difflib.get_close_matches(wanted, alike, n=9, cutoff=0.4)]
        likely = fit if wanted else list[str]()
        near = list(dict.fromkeys([*likely, *nearest]))[:3] or list(self._listed)[:3]
        shown = repr(called[:200])
        told = say("media.no_font_but", called=shown, near=near) if near else say("media.no_font", called=shown)
        raise invalid(told, field="font_name")

    def path_of(self, name: str) -> Path:
        """The file of the font `name`.

        Raises:
            AdAgentError: as `name_of`.
        """
        return self._listed[self.name_of(name)][1]

    def sample(self, name: str) -> bytes:
        """A PNG that shows the font `name`: its family, and a few letters in it as far as it has them.

        Raises:
            AdAgentError: as `path_of`.
        """
        info, path = self._listed[name := self.name_of(name)]
        words = _SAMPLE_WORDS if info.hangul else "Hamburg ABC 123"
        caption = ImageFont.truetype(str(self._candidates(_HANGUL_NAME, name)[0]), _SAMPLE_PX // 2)
        letters = ImageFont.truetype(str(path), _SAMPLE_PX)
        width = max(caption.getlength(f"{info.family} {info.style}"), letters.getlength(words))
        picture = Image.new("L", (int(width) + _SAMPLE_PX, round(2.9 * _SAMPLE_PX)), 255)
        draw = ImageDraw.Draw(picture)
        margin = _SAMPLE_PX // 2
        draw.text((margin, 0.9 * _SAMPLE_PX), f"{info.family} {info.style}", fill=110, font=caption, anchor="ls")
        draw.text((margin, 2.2 * _SAMPLE_PX), words, fill=0, font=letters, anchor="ls")
        return encode_picture(picture, "png")

    def uncovered(self, text: str, name: str) -> list[str]:
        """The characters of `text` that neither the font `name` nor any fallback covers, each once, in order.

        Raises:
            AdAgentError: as `path_of`.
        """
        name = self.name_of(name)
        needed = (character for character in dict.fromkeys(text) if not _is_ignorable(character))
        return [character for character in needed if self._font_for(character, name) is None]

    def runs(self, text: str, name: str) -> list[tuple[str, Path]]:
        """One line of `text` as pieces, each with the file of the font that draws it.

        White space, joiners and marks stay with the piece before them. A line with right-to-left letters is
        drawn by one font where one covers it all, because a piece is shaped by itself.

        Raises:
            AdAgentError: as `path_of`.
        """
        named = self.path_of(name := self.name_of(name))
        if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
            for path in self._fallbacks(name):
                if all(_is_ignorable(character) or _covers(path, character) for character in text):
                    return [(text, path)]
        runs: list[tuple[str, Path]] = []
        for character in text:
            last = runs[-1][1] if runs else None
            if _is_ignorable(character):
                path = last or named
            elif last is not None and unicodedata.combining(character) and _covers(last, character):
                path = last
            else:
                path = self._font_for(character, name) or named
            if path == last:
                runs[-1] = (runs[-1][0] + character, path)
            else:
                runs.append((character, path))
        return runs

    def _fallbacks(self, name: str) -> list[Path]:
        """The font `name`, then all others, the likeliest first."""
        return self._candidates(name, FALLBACK_NAME, _HANGUL_NAME, _RARE_HANGUL_NAME, *self._listed)

    def _candidates(self, *names: str) -> list[Path]:
        return list(dict.fromkeys(self._listed[name][1] for name in names if name in self._listed))

    def _font_for(self, character: str, name: str) -> Path | None:
        return next((path for path in self._fallbacks(name) if _covers(path, character)), None)


def _font_files(root: Path) -> Iterator[tuple[str, Path]]:
    if not root.is_dir():
        logger.warning("font folder %s does not exist", root)
    inside = root.resolve()
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.resolve().is_relative_to(inside):
            yield path.relative_to(root).as_posix(), path.absolute()
        else:
            logger.warning("font %s leads out of its folder and is not listed", path)


def _plain(text: str) -> str:
    """The letters and digits of a font's name, by which people know it."""
    return "".join(character for character in unicodedata.normalize("NFKC", text).casefold() if character.isalnum())


def _names_of(font: FontInfo) -> set[str]:
    """What people may call a font, plain: its name, its file's, its family, and that with its style."""
    path = PurePath(font.name).with_suffix("")
    return {_plain(name) for name in (path.as_posix(), path.name, font.family, f"{font.family} {font.style}")}


def _read_info(name: str, path: Path) -> FontInfo | None:
    try:
        family, style = _probe(path).getname()
        hangul = all(_covers(path, syllable) for syllable in _EVERYDAY_HANGUL)
    except (OSError, ValueError) as error:
        logger.warning("font %s cannot be used: %s", path, error)
        return None
    return FontInfo(name=name, path=name, family=family or path.stem, style=style or "Regular", hangul=hangul)


@functools.cache
def _probe(path: Path) -> ImageFont.FreeTypeFont:
    # Without shaping, a character is its own glyph or the one for missing characters.
    return ImageFont.truetype(str(path), _PROBE_SIZE_PX, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _covers(path: Path, character: str) -> bool:
    drawn = _drawn(path, character)
    # Korean fonts list every syllable, and leave most of the rare ones empty.
    return any(drawn) and drawn != _drawn(path, _NONCHARACTER)


def _drawn(path: Path, character: str) -> bytes:
    picture = Image.new("L", (3 * _PROBE_SIZE_PX, 3 * _PROBE_SIZE_PX))
    at = (_PROBE_SIZE_PX, 2 * _PROBE_SIZE_PX)
    ImageDraw.Draw(picture).text(at, character, fill=255, font=_probe(path), anchor="ls")
    return picture.tobytes()


def _is_ignorable(character: str) -> bool:
    """Whether no glyph is needed: white space, format characters, variation selectors."""
    return character.isspace() or unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F
