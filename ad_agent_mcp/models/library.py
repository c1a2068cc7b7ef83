"""Where models are: on the hub, in a local folder, prepared. Knows nothing about tensors.

A source is downloaded into `<models_dir>/hub` and prepared into `<models_dir>/prepared/<source key>`, whose
`manifest.json` names the components that are whole. Whoever runs models reads the prepared folder alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs

from ..config import Settings, own_folder
from ..contract.errors import AdAgentError, ErrorCode
from ..contract.texts import Text, TextError, say
from ..files import write_atomically
from .preset import GIB, Component, Preset, Source

FORMAT = 1
"""Of the prepared files; a component prepared in another format is stale."""
INSTALL = say("models.install")
"""How the model libraries come here, in the versions that were tested."""
UNFINISHED = ".incomplete"
"""Ends the name of a file that is not whole."""
ROLES = ("flux", "sdxl", "controlnet", "segmentation")
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*?)(?:@([\w./-]+))?")
_COPIED = (".json", ".txt", ".model")
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_)?model(\.fp16)?(?:-\d{5}-of-(\d{5}))?\.safetensors")


class State(StrEnum):
    """How far a component is, the least first."""

    ABSENT = "absent"
    STALE = "stale"
    FETCHED = "fetched"
    PREPARED = "prepared"


class MissingFilesError(FileNotFoundError):
    """Raised when a source has not all the files that a component is made of; `text` names one."""

    def __init__(self, told: Text) -> None:
        super().__init__(told)
        self.text = told


@dataclass(frozen=True)
class Location:
    """Where one role's source is.

    Attributes:
        name: as it was configured, `owner/name@revision` or a path.
        repo: hub id, or None for a local folder.
        revision: the commit if it is known, else the branch; empty for a local folder.
        folder: its files, which may not be there yet.
        prepared: the folder of its prepared components, which may not be there yet.
    """

    role: str
    name: str
    repo: str | None
    revision: str
    folder: Path
    prepared: Path


@dataclass(frozen=True)
class Standing:
    """One source of a preset as it is on this machine; `state` is its least advanced component's."""

    source: Source
    location: Location
    state: State
    size_bytes: int


class ModelLibrary:
    """The models of one machine.

    Attributes:
        models_dir: where they are kept.
        offline: whether the network is not to be touched.
        overrides: by role, a hub id (`owner/name` or `owner/name@revision`) or a local folder.
    """

    def __init__(self, settings: Settings) -> None:
        cache = own_folder(lambda: platformdirs.user_cache_path("ad-agent-mcp", appauthor=False))
        self.models_dir = settings.models_dir or (cache or settings.data_dir) / "models"
        self.offline = settings.offline
        self.overrides: dict[str, str | None] = {role: getattr(settings, f"{role}_model") for role in ROLES}

    def locate(self, preset: Preset, role: str) -> Location:
        """Where the source of `role` is.

        Raises:
            ValueError: the setting is neither a hub id nor a folder.
        """
        published = preset.source(role)
        name = self.overrides.get(role) or f"{published.repo}@{published.revision}"
        folder = Path(name).expanduser().absolute()
        if folder.is_dir() or name.startswith(("/", "~", ".")):
            key = f"local-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
            return Location(role, name, None, "", folder, self.models_dir / "prepared" / key)
        if (match := _HUB_ID.fullmatch(name)) is None:
            setting = f"AD_AGENT_{role.upper()}_MODEL"
            raise TextError(say("models.no_such_source", setting=setting, name=repr(name)))
        repo = match[1]
        wanted = match[2] or (published.revision if repo == published.repo else "main")
        revision = str(_read_json(self._pins).get(f"{repo}@{wanted}", wanted))
        owner_name = repo.replace("/", "--")
        folder = self.models_dir / "hub" / f"models--{owner_name}" / "snapshots" / revision
        key = f"{owner_name}@{revision.replace('/', '--')[:12]}"
        return Location(role, name, repo, revision, folder, self.models_dir / "prepared" / key)

    def state(self, preset: Preset, component: Component) -> State:
        """How far `component` is."""
        location = self.locate(preset, component.role)
        recorded = self.manifest(location).get(component.name)
        try:
            sources = self.fingerprint(location, component)
        except FileNotFoundError:
            sources = None
        if recorded is None:
            return State.ABSENT if sources is None else State.FETCHED
        folder = location.prepared / component.name
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()} if folder.is_dir() else {}
        if recorded["format"] != FORMAT or sizes != recorded["files"]:
            return State.STALE
        return State.PREPARED if sources in (None, recorded["sources"]) else State.STALE

    def states(self, preset: Preset) -> dict[str, State]:
        """How far each component of `preset` is."""
        return {component.name: self.state(preset, component) for component in preset.components}

    def sizes(self, preset: Preset) -> dict[str, tuple[int, ...]]:
        """Bytes of each segment of the networks: as prepared, else as published."""
        sizes: dict[str, tuple[int, ...]] = {}
        for component in (component for component in preset.components if component.network):
            sizes[component.name] = tuple(int(gib * GIB) for gib in component.nominal_gib)
            if self.state(preset, component) is State.PREPARED:
                folder = self.locate(preset, component.role).prepared / component.name
                sizes[component.name] = tuple(_data_bytes(path) for path in sorted(folder.glob("*.safetensors")))
        return sizes

    def standing(self, preset: Preset, role: str) -> Standing:
        """How far a source is as a whole, and how much room it takes."""
        location = self.locate(preset, role)
        states = {self.state(preset, component) for component in preset.components if component.role == role}
        worst = min(states, key=list(State).index)
        folders = [location.prepared, *([location.folder.parent.parent] if location.repo is not None else [])]
        files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if _is_whole(path)]
        return Standing(preset.source(role), location, worst, sum(path.stat().st_size for path in files))

    def prepared(self, preset: Preset, name: str) -> Path:
        """The folder of a prepared component.

        Raises:
            AdAgentError: `model_unavailable`; it is not prepared.
        """
        component = preset.component(name)
        if (state := self.state(preset, component)) is not State.PREPARED:
            do = remedy(preset, [state])
            raise unavailable(say("models.not_prepared", name=name, preset=preset.name, state=state, remedy=do))
        return self.locate(preset, component.role).prepared / name

    def config(self, preset: Preset, name: str) -> dict[str, Any]:
        """The configuration of a prepared network.

        Raises:
            AdAgentError: `model_unavailable`; it is not prepared.
        """
        return _read_json(self.prepared(preset, name) / "config.json")

    def manifest(self, location: Location) -> dict[str, Any]:
        """What is prepared of a source: by component `format`, `files` (sizes) and `sources` (size, time)."""
        return _read_json(location.prepared / "manifest.json").get("components", {})

    def record(self, location: Location, name: str, entry: Mapping[str, Any]) -> None:
        """Note in the manifest that a component is prepared."""
        components = {**self.manifest(location), name: entry}
        content = {"source": location.name, "revision": location.revision, "components": components}
        write_atomically(location.prepared / "manifest.json", json.dumps(content, indent=1).encode())

    def source_files(self, location: Location, component: Component) -> list[Path]:
        """The files of a source that `component` is made of, configuration first.

        Raises:
            MissingFilesError: some are missing; names one.
        """
        folder = location.folder / component.subfolder
        here = [path.relative_to(location.folder).as_posix() for path in folder.glob("*")]
        return [location.folder / name for name in wanted_files(here, component)]

    def fingerprint(self, location: Location, component: Component) -> dict[str, list[int]]:
        """Size and time of each source file, by which a change of a local folder is seen."""
        stats = {path.name: path.stat() for path in self.source_files(location, component)}
        return {name: [stat.st_size, 0 if location.repo else stat.st_mtime_ns] for name, stat in stats.items()}

    def pin(self, location: Location, commit: str) -> None:
        """Keep to `commit` of a branch from now on."""
        if location.revision != commit:
            self.models_dir.mkdir(parents=True, exist_ok=True)
            pins = {**_read_json(self._pins), f"{location.repo}@{location.revision}": commit}
            write_atomically(self._pins, json.dumps(pins, indent=1).encode())

    @property
    def _pins(self) -> Path:
        return self.models_dir / "pins.json"


def wanted_files(names: Iterable[str], component: Component) -> list[str]:
    """Which of a source's files `component` is made of, configuration first.

    Weights are taken from safetensors files alone, in half precision where that is what gets prepared.

    Args:
        names: paths in the source, with `/`.
        component: what is wanted.

    Raises:
        MissingFilesError: some are missing; says which.
    """
    prefix = f"{component.subfolder}/" if component.subfolder else ""
    here = sorted(path.name for path in map(PurePosixPath, names) if path.parent == PurePosixPath(component.subfolder))
    if not component.network:
        if found := [name for name in here if name.endswith(_COPIED)]:
            return [prefix + name for name in found]
        raise MissingFilesError(say("models.folder_empty", folder=prefix) if prefix else say("models.the_folder_empty"))
    config = [name for name in here if name == "config.json"]
    if not config and component.network != "BiRefNet":
        raise MissingFilesError(say("models.file_missing", file=f"{prefix}config.json"))
    weights = [match for name in here if (match := _WEIGHTS.fullmatch(name))]
    for variant in (".fp16", None) if component.dtype == "float16" else (None, ".fp16"):
        shards = [match for match in weights if match[1] == variant]
        if shards and len(shards) == int(shards[0][2] or 1):
            return [prefix + name for name in (*config, *(shard[0] for shard in shards))]
    pickled = any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in here)
    raise MissingFilesError(
        say("models.pickled_weights" if pickled else "models.no_whole_weights", where=prefix or component.name)
    )


def remedy(preset: Preset, states: Iterable[State]) -> Text:
    """What to do about components that are not prepared."""
    needs_fetch = State.ABSENT in states
    return say("models.fetch_and_prepare" if needs_fetch else "models.prepare", preset=preset.name)


def unavailable(said: Text) -> AdAgentError:
    """The error for a model that cannot be used as things are."""
    return AdAgentError(ErrorCode.MODEL_UNAVAILABLE, said)


def _is_whole(path: Path) -> bool:
    """Whether it is a file of its own, all of it; the hub's library has files under a second name as links."""
    return path.is_file() and not path.is_symlink() and not path.name.endswith(UNFINISHED)


def _data_bytes(path: Path) -> int:
    """How much of a safetensors file is tensors."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
