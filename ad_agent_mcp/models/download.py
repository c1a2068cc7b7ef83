# pyright: basic
"""Downloading models from the hub: only what a preset needs, file by file, each going on where it was cut off.

The hub's own library keeps nothing of a file that was cut off. So a file is written here, under a name that the next
attempt finds again, and is given its own name when it is whole. Knows nothing about what is done with the files.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..contract.errors import AdAgentError, ErrorCode
from ..contract.texts import Text, say
from ..files import is_disk_full
from .library import INSTALL, UNFINISHED, Location, MissingFilesError, ModelLibrary, unavailable, wanted_files
from .preset import Preset

Progress = Callable[[int, int], None]
"""Told the bytes that are here, which never become fewer, and the bytes wanted."""


def fetch(library: ModelLibrary, preset: Preset, role: str, *, progress: Progress) -> Path:
    """Bring the files that `preset` needs of a source, one after the other; what was cut off goes on.

    For one process at a time.

    Returns:
        The folder with the files.

    Raises:
        AdAgentError: `model_unavailable` or `storage_full`, with what to do.
        ValueError: the source's setting makes no sense.
    """
    location = library.locate(preset, role)
    components = [component for component in preset.components if component.role == role]
    try:
        for component in components:
            library.fingerprint(location, component)
        return location.folder
    except FileNotFoundError as missing:
        if location.repo is None:
            raise unavailable(say("models.not_such_model", name=location.folder, missing=missing)) from None
        repo = location.repo
    if library.offline:
        raise unavailable(say("models.offline", name=location.name))
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] -- the one it raises
    except ImportError:
        raise unavailable(say("models.needs_hub_library", install=INSTALL)) from None
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        info = HfApi().model_info(repo, revision=location.revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or ()}
        names = sorted({name for component in components for name in wanted_files(files, component)})
        library.pin(location, str(info.sha))
        location = library.locate(preset, role)
        for path in (location.folder.parent.parent / "blobs").glob(f"*{UNFINISHED}"):
            path.unlink()  # the hub's library leaves what was cut off, and uses none of it again
        sizes = {name: files[name].size or 0 for name in names}
        missing = [name for name in names if not (location.folder / name).is_file()]
        coming = sum(sizes[name] - _size(_part(location, name)) for name in missing)
        if coming > (free := shutil.disk_usage(library.models_dir).free):
            told = say("models.no_room_for", folder=library.models_dir, coming=coming / 1e9, free=free / 1e9)
            raise AdAgentError(ErrorCode.STORAGE_FULL, told)
        wanted = sum(sizes.values())
        here = wanted - sum(sizes[name] for name in missing)
        most = 0

        def tell(of_file: int) -> None:
            nonlocal most
            most = max(most, min(here + of_file, wanted))
            progress(most, wanted)

        for name in missing:
            _bring(location, name, size=sizes[name], lfs=files[name].lfs, tell=tell)
            here += sizes[name]
    except MissingFilesError as missing:
        raise unavailable(say("models.not_such_model", name=location.name, missing=missing)) from None
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise AdAgentError(ErrorCode.STORAGE_FULL, say("models.no_room", folder=library.models_dir)) from error
        raise unavailable(_explain(error, location, preset, constants.ENDPOINT)) from error
    progress(wanted, wanted)
    return location.folder


def _explain(error: Exception, location: Location, preset: Preset, hub: str) -> Text:
    """What went wrong with the hub, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    published = preset.source(location.role)
    is_gated = isinstance(error, GatedRepoError) or (published.is_gated and published.repo == location.repo)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if is_gated and status in (401, 403, 404):
        return say("models.gated", repo=location.repo, page=f"{hub}/{location.repo}")
    setting = f"AD_AGENT_{location.role.upper()}_MODEL"
    if isinstance(error, RevisionNotFoundError):
        return say("models.no_revision", repo=location.repo, revision=repr(location.revision), setting=setting)
    if isinstance(error, RepositoryNotFoundError):
        return say("models.no_repository", repo=location.repo, hub=hub, setting=setting)
    if status is not None:
        return say("models.hub_refused", hub=hub, status=status, repo=location.repo)
    return say("models.hub_unreachable", hub=hub, reason=type(error).__name__, setting=setting)


def _part(location: Location, name: str) -> Path:
    """What is here of a file that is not whole; the folder is one commit's, so it is always of the same file."""
    return location.folder / f"{name}{UNFINISHED}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _bring(location: Location, name: str, *, size: int, lfs: Any, tell: Callable[[int], None]) -> None:
    """Download the rest of a file. One that was begun earlier is checked, because a power cut may have spoilt it."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    part = _part(location, name)
    part.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(str(location.repo), name, revision=location.revision)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # so that an offset means the same on both sides
    while True:
        begun = _size(part) if _size(part) <= size else 0
        with part.open("ab") as file:
            file.truncate(begun)
            http_get(
                url, file, resume_size=begun, headers=headers, expected_size=size or None, tqdm_class=_silent_bar(tell)
            )
            os.fsync(file.fileno())
        if not begun or lfs is None or _sha256(part) == lfs.sha256:
            break
        part.unlink()
    part.replace(location.folder / name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _silent_bar(tell: Callable[[int], None]) -> type:
    """A progress bar of the hub's kind that shows nothing, and tells how many bytes of its file are here."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, initial: int = 0, name: str = "", **kwargs: Any) -> None:
            self.here = initial
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.here += int(n or 0)
            tell(self.here)

    return Bar
