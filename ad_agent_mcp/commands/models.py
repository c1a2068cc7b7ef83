"""`ad-agent-mcp models list | fetch | prepare`: the diffusion engine's models on this machine."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from ..config import Settings
from ..contract.errors import invalid
from ..files import FileLock
from ..models.catalog import preset_named
from ..models.download import fetch
from ..models.library import INSTALL, ROLES, ModelLibrary, State, remedy
from ..models.preset import Preset


def list_models(settings: Settings, preset_name: str | None) -> int:
    """Show every component of a preset.

    Returns:
        0, or 1 when the preset cannot run as things are.
    """
    preset, library = _chosen(settings, preset_name)
    console = Console()
    console.print(
        f"{preset.name}: {preset.title}; models are kept in {library.models_dir}", soft_wrap=True, markup=False
    )
    sources = Table("source", "from", "licence", "commercial use", "on disk", "to download", show_edge=False)
    for source in preset.sources:
        standing = library.standing(preset, source.role)
        mine = bool(library.overrides.get(source.role))
        licence = (
            ("yours to check", "") if mine else (escape(source.terms), "yes" if source.is_commercial else "[red]no[/]")
        )
        coming = f"{source.download_gb:.1f} GB" if standing.state is State.ABSENT and not mine else ""
        sources.add_row(
            source.role, escape(standing.location.name), *licence, f"{standing.size_bytes / 1e9:.1f} GB", coming
        )
    console.print(sources, "")
    states = library.states(preset)
    components = Table("component", "source", "state", show_edge=False)
    for component in preset.components:
        components.add_row(component.name, component.role, states[component.name])
    console.print(components)
    if set(states.values()) == {State.PREPARED}:
        return 0
    console.print(f"\n{remedy(preset, states.values())}", soft_wrap=True)
    return 1


def fetch_models(settings: Settings, preset_name: str | None, roles: Sequence[str]) -> int:
    """Download the sources of a preset; `roles` names some of them, none means all.

    Raises:
        AdAgentError: a source cannot be had; says what to do.
    """
    preset, library = _chosen(settings, preset_name)
    if unknown := set(roles) - set(ROLES):
        raise invalid(f"there is no source {', '.join(sorted(unknown))}; choose from {', '.join(ROLES)}")
    for source in preset.sources:
        if roles and source.role not in roles:
            continue
        if not library.overrides.get(source.role):
            note = "" if source.is_commercial else ": not for commercial use"
            Console().print(f"{source.repo}, {source.terms}{note} ({source.licence_url})", soft_wrap=True, markup=False)
        with _alone(library), _bar(f"fetch {source.role}") as tell:
            fetch(library, preset, source.role, progress=tell)
    return 0


def prepare_models(settings: Settings, preset_name: str | None, names: Sequence[str]) -> int:
    """Prepare the components of a preset; `names` names some of them, none means all.

    Raises:
        AdAgentError: a source is not there, or the disk is full; says what to do.
    """
    preset, library = _chosen(settings, preset_name)
    if unknown := set(names) - {component.name for component in preset.components}:
        raise invalid(f"preset {preset.name} has no component {', '.join(sorted(unknown))}; `models list` shows them")
    try:
        from ..engines.diffusion.prepare import prepare
    except ImportError as error:
        raise invalid(f"{error.name} is not installed: {INSTALL}") from None
    for component in preset.components:
        if not names or component.name in names:
            with _alone(library), _bar(f"prepare {component.name}") as tell:
                prepare(library, preset, component, progress=tell)
    return 0


def _chosen(settings: Settings, preset_name: str | None) -> tuple[Preset, ModelLibrary]:
    return preset_named(preset_name or settings.preset), ModelLibrary(settings)


@contextmanager
def _alone(library: ModelLibrary) -> Generator[None]:
    """Nobody else changes the models meanwhile."""
    library.models_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(library.models_dir / ".lock")
    if not lock.try_acquire():
        raise invalid(f"another process is fetching or preparing models in {library.models_dir}; wait until it is done")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _bar(title: str) -> Generator[Callable[[int, int], None]]:
    """A progress bar, and what moves it; several threads may."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
        if progress.tasks[0].total is None:
            progress.update(task, completed=1, total=1)
