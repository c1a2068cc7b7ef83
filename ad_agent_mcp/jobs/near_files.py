"""Finding a file by a name that almost fits: another Unicode form, kind of blank, quotes or letter case.

Looks only below the folders it was made for. Knows nothing about references.
"""

import contextlib
import difflib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import unquote

from .in_place import listing

MAX_LISTED = 50_000
"""Names that one search reads, of all folders together: a huge folder holds nobody up."""
MAX_COMPARED = 2_000
"""Names of one folder that are compared letter by letter."""
_NEAREST = 3
_LIKENESS = 0.6
_QUOTES = {"'": "'", '"': '"', "`": "`", "‘": "’", "“": "”", "«": "»", "<": ">"}
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_LOOKALIKES = str.maketrans("‘’‚′`´“”„″‐‑‒–—−", "''''''" + '""""' + "------")


def spellings(text: str) -> list[str]:
    """The paths that `text` may mean, the likeliest first: as it stands, then without what was put around it.

    Blanks and line ends around a path, quotes, a file: scheme, escaped blanks and percent-escapes are taken off
    one after the other.
    """
    found = [text]
    for undo in (bare, _without_scheme, _unescaped, unquote):
        if (less := undo(found[-1])) not in ("", found[-1]):
            found.append(less)
    return found


def bare(text: str) -> str:
    """`text` without blanks, line ends and a pair of quotes around it."""
    text = text.strip().strip("\ufeff\u200b")
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def folded(name: str) -> str:
    """What two names have in common that look the same."""
    name = unicodedata.normalize("NFKC", _UNSEEN.sub("", name).translate(_LOOKALIKES)).casefold()
    return " ".join(unicodedata.normalize("NFKC", name).split())


class NearFiles:
    """One search below some folders; what it has read of them is kept for its length."""

    def __init__(self, roots: Sequence[Path]) -> None:
        """Look below `roots`."""
        self._roots = {root: Path(os.path.realpath(root)) for root in roots}
        self._left = MAX_LISTED
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def fitting(self, text: str) -> list[Path]:
        """The files that fit the path `text`, resolved; a relative path is looked for below every root."""
        found = {file: None for root, parts in self._below(text) for file in self._walk(root, parts)}
        return list(found)

    def nearest(self, text: str) -> list[str]:
        """Names of files that `text` may have meant, the nearest first, as paths that can be given."""
        name = PureWindowsPath(text).name  # knows both slashes
        near = [file for root, parts in self._below(text) for file in self._near(root, parts)]
        near = near or [file for root in self._roots.values() for file in self._near(root, [name])]
        roots = [] if os.path.isabs(text) else list(self._roots.values())  # noqa: PTH117  # it may hold a null byte
        shown = (
            next((str(file.relative_to(root)) for root in roots if file.is_relative_to(root)), str(file))
            for file in near
        )
        return list(dict.fromkeys(shown))[:_NEAREST]

    def _below(self, text: str) -> Iterator[tuple[Path, list[str]]]:
        """The roots below which the path `text` may lie, each with what follows it."""
        with contextlib.suppress(ValueError, RuntimeError):
            parts = PurePath(os.path.normpath(Path(text).expanduser())).parts
            for given, root in self._roots.items():
                if not PurePath(*parts).is_absolute():
                    yield root, list(parts)
                    continue
                for spelt in {given.parts, root.parts}:
                    if [folded(part) for part in parts[: len(spelt)]] == [folded(part) for part in spelt]:
                        yield root, list(parts[len(spelt) :])

    def _walk(self, root: Path, parts: Sequence[str]) -> list[Path]:
        if not parts:
            return []
        fit = [path for folder in self._folders(root, parts[:-1]) for path in self._named(folder, parts[-1])]
        files = (Path(os.path.realpath(path)) for path in fit)
        return [file for file in files if self._is_inside(file) and file.is_file()]

    def _near(self, root: Path, parts: Sequence[str]) -> list[Path]:
        """The files whose last name is nearest, in the folder that `parts` lead to."""
        found: list[Path] = []
        for folder in self._folders(root, parts[:-1]) if parts else []:
            wanted, names = folded(parts[-1]), self._names(folder)
            stems = (wanted, PurePath(wanted).stem)
            if not wanted:
                continue
            likely = [name for name in names if name == wanted or PurePath(name).stem in stems]
            longer = [name for name in names if name.startswith(wanted)]
            compared = itertools.islice(names, MAX_COMPARED)
            alike = difflib.get_close_matches(wanted, compared, n=_NEAREST, cutoff=_LIKENESS)
            near = [name for fold in dict.fromkeys([*likely, *longer, *alike]) for name in names[fold]]
            shown = itertools.islice((folder / name for name in near if not name.startswith(".")), 2 * _NEAREST)
            found += [path for path in shown if path.is_file()]
        return found

    def _folders(self, root: Path, parts: Sequence[str]) -> list[Path]:
        folders = [root]
        for part in parts:
            fit = [path for folder in folders for path in self._named(folder, part)]
            resolved = (Path(os.path.realpath(path)) for path in fit)
            folders = [folder for folder in resolved if self._is_inside(folder)]
        return folders

    def _named(self, folder: Path, wanted: str) -> list[Path]:
        """What has the name `wanted` in `folder`; if there is none, all that looks the same."""
        if os.path.lexists(folder / wanted):
            return [folder / wanted]
        return [folder / name for name in self._names(folder).get(folded(wanted), [])]

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """The names in `folder`, which is resolved, by what they are folded to."""
        if folder not in self._listed:
            names: list[str] = []
            with contextlib.suppress(OSError), listing(folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, self._left)]
            self._left -= len(names)
            self._listed[folder] = {}
            for name in names:
                self._listed[folder].setdefault(folded(name), []).append(name)
        return self._listed[folder]

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots.values())


def _without_scheme(text: str) -> str:
    """A file: URI as the path it stands for, percent-escapes left alone."""
    scheme = re.match(r"file:(?://(?:localhost(?=/))?)?", text, re.IGNORECASE)
    path = text[scheme.end() :] if scheme else text
    return path[1:] if re.match(r"/[A-Za-z]:[/\\]", path) else path


def _unescaped(text: str) -> str:
    """`text` as a shell would read it: a backslash before a blank or a sign is taken away."""
    return re.sub(r"\\(?=[^\w\\/])", "", text)
