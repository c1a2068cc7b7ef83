"""`ad-agent-mcp models list | fetch | prepare`: the diffusion engine's models on this machine."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from ..config import Settings
from ..contract.errors import invalid
from ..contract.texts import Text, say
from ..files import FileLock
from ..models.catalog import preset_named
from ..models.download import fetch
from ..models.library import INSTALL, ROLES, ModelLibrary, State, remedy
from ..models.preset import Preset
from .shell import shown


def list_models(settings: Settings, preset_name: str | None) -> int:
    """Show every component of a preset.

    Returns:
        0, or 1 when the preset cannot run as things are.
    """
    preset, library = _chosen(settings, preset_name)
    console = Console()
    about = say("commands.models_of", preset=preset.name, title=preset.title, folder=library.models_dir)
    console.print(shown(about), soft_wrap=True, markup=False)
    sources = _table("source", "from", "licence", "commercial", "on_disk", "to_download")
    for source in preset.sources:
        standing = library.standing(preset, source.role)
        mine = bool(library.overrides.get(source.role))
        use = shown(say("commands.commercial_yes" if source.is_commercial else "commands.commercial_no"))
        if mine:
            licence = (shown(say("commands.licence_yours")), "")
        else:
            licence = (escape(source.terms), use if source.is_commercial else f"[red]{use}[/]")
        coming = f"{source.download_gb:.1f} GB" if standing.state is State.ABSENT and not mine else ""
        sources.add_row(
            source.role, escape(standing.location.name), *licence, f"{standing.size_bytes / 1e9:.1f} GB", coming
        )
    console.print(sources, "")
    states = library.states(preset)
    components = _table("component", "source", "state")
    for component in preset.components:
        components.add_row(component.name, component.role, shown(say(f"commands.state_{states[component.name]}")))
    console.print(components)
    if set(states.values()) == {State.PREPARED}:
        return 0
    console.print(f"\n{shown(remedy(preset, states.values()))}", soft_wrap=True)
    return 1


def fetch_models(settings: Settings, preset_name: str | None, roles: Sequence[str]) -> int:
    """Download the sources of a preset; `roles` names some of them, none means all.

    Raises:
        AdAgentError: a source cannot be had; says what to do.
    """
    preset, library = _chosen(settings, preset_name)
    if unknown := set(roles) - set(ROLES):
        raise invalid(say("commands.no_source", names=sorted(unknown), known=ROLES))
    for source in preset.sources:
        if roles and source.role not in roles:
            continue
        if not library.overrides.get(source.role):
            known = {"repo": source.repo, "terms": source.terms, "url": source.licence_url}
            terms = say(
                "commands.licence_line" if source.is_commercial else "commands.licence_line_restricted", **known
            )
            Console().print(shown(terms), soft_wrap=True, markup=False)
        with _alone(library), _bar(say("commands.fetching", name=source.role)) as tell:
            fetch(library, preset, source.role, progress=tell)
    return 0


def prepare_models(settings: Settings, preset_name: str | None, names: Sequence[str]) -> int:
    """Prepare the components of a preset; `names` names some of them, none means all.

    Raises:
        AdAgentError: a source is not there, or the disk is full; says what to do.
    """
    preset, library = _chosen(settings, preset_name)
    if unknown := set(names) - {component.name for component in preset.components}:
        raise invalid(say("commands.no_component", preset=preset.name, names=sorted(unknown)))
    try:
        from ..engines.diffusion.prepare import prepare
    except ImportError as error:
        raise invalid(say("commands.not_installed", name=error.name, install=INSTALL)) from None
    for component in preset.components:
        if not names or component.name in names:
            with _alone(library), _bar(say("commands.preparing", name=component.name)) as tell:
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
        raise invalid(say("commands.models_locked", folder=library.models_dir))
    try:
        yield
    finally:
        lock.release()


def _table(*names: str) -> Table:
    return Table(*(shown(say(f"commands.head_{name}")) for name in names), show_edge=False)


@contextmanager
def _bar(title: Text) -> Generator[Callable[[int, int], None]]:
    """A progress bar, and what moves it; several threads may."""
    columns = (TextColumn("{task.description:<26}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task(shown(title), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
        if progress.tasks[0].total is None:
            progress.update(task, completed=1, total=1)
