"""Image references: base64, `data:` and `ad://` URIs, and paths inside the allowed folders, to bytes.

A reference comes from a language model that may have been talked into anything, so a path is only ever
read below an allowed folder, only when it is a regular file, and never waits on a device or a pipe.
"""

import base64
import binascii
import contextlib
import logging
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

import platformdirs

from ..config import Settings, own_folder
from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.texts import say
from .in_place import open_in_place
from .near_files import NearFiles, bare, spellings
from .store import JobStore

logger = logging.getLogger(__name__)

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")
_SPACE = re.compile(r"(?:\s|\\[rn]|\\(?=/))+")
"""White space, also as JSON writes line ends, and the backslash that it may put before a slash."""
_BARE_HEADER = re.compile(r"(?:image/[\w.+-]+;)?base64[,:]\s*", re.IGNORECASE)
"""The header of a data: URI that lost its scheme."""
_DATA_HEADER = re.compile(r'data:((?:[^,"]|"[^"]*"){0,1000}),', re.IGNORECASE)
_PICTURES_IN_BASE64 = ("iVBORw0KGgo", "/9j/", "_9j_", "UklGR", "AAAA", "R0lGOD")
"""How PNG, JPEG, WebP, AVIF and GIF begin."""
_LONGEST_NAME = 255
_LONGEST_PATH = 4096
_SURROGATE = re.compile("[\ud800-\udfff]")


def image_roots(settings: Settings, store: JobStore, *, remote: bool) -> tuple[Path, ...]:
    """The folders that pictures may be read from.

    Args:
        settings: names further folders.
        store: its `inbox` is one of the local folders.
        remote: whether clients come over HTTP; then only the folders of the settings count.
    """
    if remote:
        return settings.image_roots
    user = (platformdirs.user_pictures_path, platformdirs.user_desktop_path, platformdirs.user_downloads_path)
    return (*settings.image_roots, store.inbox, *filter(None, map(own_folder, user)))


class ReferenceReader:
    """Turns references into the bytes they stand for."""

    def __init__(self, settings: Settings, store: JobStore, roots: tuple[Path, ...]) -> None:
        self._store = store
        self._roots = roots
        self._max_bytes = settings.max_image_bytes

    def read(self, reference: str, *, field: str) -> bytes:
        """The bytes of the picture that `reference` names; not yet decoded. Blocks on the disk.

        Raises:
            AdAgentError: it names nothing readable; the message tells what would be.
        """
        text = bare(reference)
        if text[:5].lower() == "ad://":
            return self._read_own(f"ad://{text[5:]}", field)
        if re.match("data(?::|%3A)", text, re.IGNORECASE):
            return self._decode(_body_of(text, field), field)
        if re.match(r"https?://", text, re.IGNORECASE):
            raise invalid(say("jobs.web_address", field=field, folders=self._shown_roots()), field=field)
        if len(reference) > _LONGEST_PATH:
            return self._decode(_BARE_HEADER.sub("", text, count=1), field)
        if (path := self._find(reference)) is not None:
            return self._read_regular(path, field)
        if _is_encoded_picture(text := _BARE_HEADER.sub("", text, count=1)):
            return self._decode(text, field)
        return self._read_near(reference, field)

    def _decode(self, text: str, field: str) -> bytes:
        text = unquote(text) if "%" in text else text  # base64 has none
        limit = (self._max_bytes + 2) // 3 * 4
        if len(text) > limit * 1.1 or len(text := _SPACE.sub("", text)) > limit:
            raise invalid(say("jobs.base64_too_long", field=field, characters=limit, most=self._max_bytes), field=field)
        if not _BASE64.fullmatch(text):
            raise invalid(say("jobs.no_reference", field=field, folders=self._shown_roots()), field=field)
        try:
            text = text.translate(_STANDARD_ALPHABET).rstrip("=")
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise invalid(say("jobs.base64_damaged", field=field), field=field) from None

    def _read_own(self, uri: str, field: str) -> bytes:
        kind, _, rest = uri.removeprefix("ad://").partition("/")
        job_id, _, name = rest.partition("/")
        name = name.removesuffix(".png")
        path = None
        with contextlib.suppress(AdAgentError):  # told below, as the picture it is
            if kind == "assets":
                path = self._store.asset(rest)
            elif kind == "jobs":
                path = self._store.picture(job_id, name)
        if path is not None:
            return self._read_regular(path, field)
        raise AdAgentError(ErrorCode.NOT_FOUND, say("jobs.no_own_picture", field=field, uri=uri[:120]), field=field)

    def _find(self, reference: str) -> Path | None:
        """What lies exactly where one of the spellings of `reference` says, resolved; None if nothing does."""
        for text in spellings(reference):
            for candidate in self._candidates(text):
                resolved = Path(os.path.realpath(candidate))
                if self._is_inside(resolved) and os.path.lexists(resolved):
                    return resolved
        return None

    def _candidates(self, text: str) -> list[Path]:
        """Where the path `text` may lead; what no path can be, and the home of nobody, leads nowhere."""
        if "\0" in text or _SURROGATE.search(text):
            return []
        with contextlib.suppress(RuntimeError):
            if (path := Path(text).expanduser()).is_absolute():
                return [path]
        return [root / text for root in self._roots]

    def _is_inside(self, resolved: Path) -> bool:
        return any(resolved.is_relative_to(os.path.realpath(root)) for root in self._roots)

    def _read_near(self, reference: str, field: str) -> bytes:
        """The only file that looks as `reference` does; else the refusal, which tells the nearest."""
        search = NearFiles(self._roots)
        texts = [text for text in spellings(reference) if self._candidates(text)]
        fits = next((fits for text in texts if (fits := search.fitting(text))), list[Path]())
        if len(fits) == 1:
            logger.info("%s was found by a name that looks the same", field)
            return self._read_regular(fits[0], field)
        near = [repr(name) for name in search.nearest(texts[-1])] if texts else []
        known = {"field": field, "name": repr(bare(reference)[:200]), "folders": self._shown_roots()}
        paths = (Path(os.path.realpath(path)) for text in texts for path in self._candidates(text))
        if any(self._is_inside(path) for path in paths):
            told = say("jobs.no_file_but", **known, near=near) if near else say("jobs.no_file", **known)
        elif near:
            told = say("jobs.no_allowed_file_but", **known, near=near)
        else:
            told = say("jobs.no_allowed_file", **known)
        raise invalid(told, field=field)

    def _read_regular(self, path: Path, field: str) -> bytes:
        """The content of `path`, which is resolved already: a link put in its place since then is refused."""
        try:
            descriptor = open_in_place(path)
        except OSError as error:
            raise invalid(
                say("jobs.file_unreadable", field=field, name=repr(path.name), reason=error.strerror), field=field
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise invalid(say("jobs.file_irregular", field=field, name=repr(path.name)), field=field)
            if status.st_size > self._max_bytes:
                shown = {"name": repr(path.name), "count": status.st_size, "most": self._max_bytes}
                raise invalid(say("jobs.file_too_large", field=field, **shown), field=field)
            with os.fdopen(descriptor, "rb", closefd=False) as file:  # refuses a folder, so only now
                return file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)

    def _shown_roots(self) -> object:
        return self._roots or say("jobs.no_folders")


def _body_of(uri: str, field: str) -> str:
    """The base64 of a data: URI, with or without percent-escapes and parameters."""
    uri = unquote(uri) if "%" in uri else uri
    header = _DATA_HEADER.match(uri)
    if header is None or "base64" not in (part.strip().lower() for part in header[1].split(";")):
        raise invalid(say("jobs.no_base64_uri", field=field), field=field)
    return uri[header.end() :]


def _is_encoded_picture(text: str) -> bool:
    """Whether `text`, which names no file, is base64 rather than a name, by its letters, length and beginning."""
    letters = _SPACE.sub("", text)
    is_picture = letters.startswith(_PICTURES_IN_BASE64)
    return bool(_BASE64.fullmatch(letters)) and (is_picture or (len(letters) > _LONGEST_NAME and letters[0] != "/"))
