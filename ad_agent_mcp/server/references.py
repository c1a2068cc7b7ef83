"""Image references: base64, `data:` and `ad://` URIs, and paths inside the allowed folders, to bytes.

A reference comes from a language model that may have been talked into anything, so a path is only ever
read below an allowed folder, only when it is a regular file, and never waits on a device or a pipe.
"""

import base64
import binascii
import contextlib
import os
import re
import stat
import sys
from pathlib import Path
from urllib.parse import unquote

import platformdirs

from ..config import Settings
from ..contract.errors import AdAgentError, ErrorCode, invalid
from .store import JobStore

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SPACE = re.compile(r"\s+")
_LOOKS_LIKE_PATH_BYTES = 4096


def image_roots(settings: Settings, store: JobStore, *, remote: bool) -> tuple[Path, ...]:
    """The folders that pictures may be read from.

    Args:
        settings: names further folders.
        store: its `inbox` is one of the local folders.
        remote: whether clients come over HTTP; then only the folders of the settings count.
    """
    if remote:
        return settings.image_roots
    user = (
        platformdirs.user_pictures_path(),
        platformdirs.user_desktop_path(),
        platformdirs.user_downloads_path(),
    )
    return (*settings.image_roots, store.inbox, *user)


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
        if reference.startswith("ad://"):
            return self._read_own(reference, field)
        if reference.startswith("data:"):
            header, comma, body = reference.partition(",")
            if not comma or not header.endswith(";base64"):
                raise invalid(f"{field}: a data: URI must be base64 (data:image/png;base64,...).", field=field)
            return self._decode(body, field)
        if re.match(r"https?://", reference, re.IGNORECASE):
            raise invalid(
                f"{field}: web addresses are not fetched. Save the picture into {self._roots_text()} and give its "
                "path, or upload it (POST /upload) and give the ad://assets/ URI.",
                field=field,
            )
        if reference.startswith("file://"):
            return self._read_path(unquote(reference.removeprefix("file://").removeprefix("localhost")), field)
        if _looks_like_path(reference):
            return self._read_path(reference, field)
        return self._decode(reference, field)

    def _decode(self, text: str, field: str) -> bytes:
        limit = (self._max_bytes + 2) // 3 * 4
        if len(text) > limit * 1.1 or len(text := _SPACE.sub("", text)) > limit:
            raise invalid(
                f"{field}: the base64 text is longer than {limit:,} characters (AD_AGENT_MAX_IMAGE_BYTES = "
                f"{self._max_bytes:,}). Give a file path, or a smaller picture.",
                field=field,
            )
        if not _BASE64.fullmatch(text):
            raise invalid(
                f"{field}: neither a path inside an allowed folder, nor an ad:// URI, nor base64. "
                f"Give the path of a picture in one of {self._roots_text()}.",
                field=field,
            )
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise invalid(
                f"{field}: the base64 text is damaged; send it again, or give a file path.", field=field
            ) from None

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
        raise AdAgentError(
            ErrorCode.NOT_FOUND,
            f"{field}: there is no picture {uri[:120]}. Pictures are ad://jobs/<job_id>/step1.png (or step2, final, "
            "product, cutout, background, shadow) and ad://assets/<id>.",
            field=field,
        )

    def _read_path(self, text: str, field: str) -> bytes:
        roots = [os.path.realpath(root) for root in self._roots]
        is_inside = False
        # What no path can be (a null byte, an unknown user's home, a name too long) is told like what is not there.
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            path = Path(text).expanduser()
            for candidate in [path] if path.is_absolute() else [root / path for root in self._roots]:
                resolved = Path(os.path.realpath(candidate))
                if any(resolved.is_relative_to(root) for root in roots):
                    is_inside = True
                    if resolved.exists():
                        return self._read_regular(resolved, field)
        if is_inside:
            raise invalid(
                f"{field}: there is no file {text[:200]!r}. Give the path of a picture in {self._roots_text()}.",
                field=field,
            )
        raise invalid(
            f"{field}: {text[:200]!r} is not a file inside an allowed folder ({self._roots_text()}). Copy the picture "
            "there, or add its folder to AD_AGENT_IMAGE_ROOTS.",
            field=field,
        )

    def _read_regular(self, path: Path, field: str) -> bytes:
        """The content of `path`, which is resolved already: a link put in its place since then is refused."""
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            raise invalid(
                f"{field}: {path.name!r} cannot be read ({error.strerror}). Give another picture.", field=field
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or _was_moved(descriptor, path):
                raise invalid(f"{field}: {path.name!r} is not a regular file. Give the path of a picture.", field=field)
            if status.st_size > self._max_bytes:
                raise invalid(
                    f"{field}: {path.name!r} has {status.st_size:,} bytes; the limit is {self._max_bytes:,} "
                    "(AD_AGENT_MAX_IMAGE_BYTES). Save it smaller, or as JPEG.",
                    field=field,
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:  # refuses a folder, so only now
                return file.read(self._max_bytes + 1)
        finally:
            os.close(descriptor)

    def _roots_text(self) -> str:
        return ", ".join(str(root) for root in self._roots) or "none; set AD_AGENT_IMAGE_ROOTS"


def _looks_like_path(reference: str) -> bool:
    if len(reference) > _LOOKS_LIKE_PATH_BYTES or "\n" in reference or "\0" in reference:
        return False
    if not _BASE64.fullmatch(reference):
        return True
    # Base64 of a JPEG begins "/9j/": only what is short, or really lies there, is taken for a path.
    return reference.startswith("/") and not reference.startswith("/9j/")


def _was_moved(descriptor: int, path: Path) -> bool:
    """Whether a folder on the way to `path` was swapped for a link after `path` was resolved (Linux)."""
    return sys.platform == "linux" and os.path.realpath(f"/proc/self/fd/{descriptor}") != str(path)
