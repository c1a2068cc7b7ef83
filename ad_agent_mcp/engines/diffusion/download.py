# pyright: basic
"""Downloading models from the hub: only what a preset needs, resumable. Knows nothing about what is done with them."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ...contract.errors import AdAgentError, ErrorCode
from ...files import is_disk_full
from .library import Location, ModelLibrary, unavailable, wanted_files
from .presets import Component, Preset

Progress = Callable[[int, int], None]
"""Told the bytes that are here and the bytes wanted, from several threads."""


def fetch(library: ModelLibrary, preset: Preset, role: str, *, progress: Progress) -> Path:
    """Bring the files that `preset` needs of a source; a download that was cut off goes on.

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
            library.source_files(location, component)
        return location.folder
    except FileNotFoundError as missing:
        if location.repo is None:
            raise unavailable(f"{location.folder} is not such a model: {missing}") from None
        repo = location.repo
    if library.offline:
        raise unavailable(f"{location.name} is not here, and AD_AGENT_OFFLINE=1 forbids downloading it")
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] -- the one it raises
    except ImportError:
        raise unavailable("Downloading needs the extra: pip install 'ad-agent-mcp[diffusion]'") from None
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        info = HfApi().model_info(repo, revision=location.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = _choose(sizes, components, location)
        library.pin(location, str(info.sha))
        location = library.locate(preset, role)
        wanted = sum(sizes[name] for name in names)
        before = sum(sizes[name] for name in names if (location.folder / name).is_file())
        here = sum(path.stat().st_size for path in (location.folder.parent.parent / "blobs").glob("*"))
        if (coming := wanted - here) > (free := shutil.disk_usage(library.models_dir).free):
            raise _no_room(
                library.models_dir, f" {coming / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free."
            )
        snapshot_download(
            repo,
            revision=location.revision,
            cache_dir=library.models_dir / "hub",
            allow_patterns=names,
            tqdm_class=_bar(lambda arrived: progress(min(before + arrived, wanted), wanted)),
        )
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise _no_room(library.models_dir) from error
        raise unavailable(_explain(error, location, preset, constants.ENDPOINT)) from error
    progress(wanted, wanted)
    return location.folder


def _choose(names: Iterable[str], components: Iterable[Component], location: Location) -> list[str]:
    try:
        return sorted({name for component in components for name in wanted_files(names, component)})
    except FileNotFoundError as missing:
        raise unavailable(f"{location.name} is not such a model: {missing}") from None


def _explain(error: Exception, location: Location, preset: Preset, hub: str) -> str:
    """What went wrong with the hub, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    published = preset.source(location.role)
    page = f"{hub}/{location.repo}"
    is_gated = isinstance(error, GatedRepoError) or (published.is_gated and published.repo == location.repo)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if is_gated and status in (401, 403, 404):
        return (
            f"{location.repo} is given only to those who accept its licence: log in at {page} and accept it, make a "
            "read token under Settings > Access Tokens, then run `hf auth login` (or set HF_TOKEN) and fetch again. "
            "FLUX.1-schnell (AD_AGENT_PRESET=schnell) needs no acceptance."
        )
    setting = f"AD_AGENT_{location.role.upper()}_MODEL"
    if isinstance(error, RevisionNotFoundError):
        return f"{location.repo} has no revision {location.revision!r}; correct {setting}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{location.repo} was not found at {hub}, or is private; correct {setting}, or log in with `hf auth login`"
        )
    if status is not None:
        return f"{hub} answered {status} for {location.repo}; try again later. What has arrived is kept"
    return (
        f"{hub} cannot be reached ({type(error).__name__}); check the network and fetch again: what has arrived is "
        f"kept. Or copy the model here and set {setting} to its folder"
    )


def _no_room(folder: Path, detail: str = "") -> AdAgentError:
    return AdAgentError(
        ErrorCode.STORAGE_FULL,
        f"The disk of {folder} has not enough room.{detail} Free some, or set AD_AGENT_MODELS_DIR to another disk.",
    )


def _bar(tell: Callable[[int], None]) -> type:
    """A silent progress bar of the hub's kind that tells how many bytes are here."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, unit: str = "", name: str = "", **kwargs: Any) -> None:
            self.counts_bytes, self.here = unit == "B", 0
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if self.counts_bytes:
                self.here += int(n or 0)
                tell(self.here)

    return Bar
