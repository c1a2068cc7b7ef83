"""A person's way to an ad: an MCP client of our own server, with progress bars.

`generate` and `demo` are this client with other arguments; what it does any MCP client on this machine can do.
"""

import filecmp
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, TextContent
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..config import shell_language
from ..contract.errors import ErrorInfo, invalid
from ..contract.texts import Text, say
from .shell import COMMAND, in_commands, shown, told

STEPS = ("step1", "step2", "final")
WAIT_SECONDS = 50
STOP_SECONDS = 30
"""For a stop to be answered; the server forces it long before."""
DEMO_REQUEST: dict[str, Any] = {
    "bg_prompt": "a wooden table in a cozy cafe, warm light",
    "text_content": "봄을 담은\n첫 번째 세럼",
    "text_model_prompt": "3D render of gold foil balloon text",
    "text_position": "top",
    "font_name": "BMJua/BMJUA_ttf.ttf",
    "seed": 7,
}


def run_demo(folder: Path) -> int:
    """Make an ad from the example photo, in a data folder of its own.

    Returns:
        The exit code.
    """
    Console().print(shown(say("commands.demo")))
    photo = example_photo()
    with tempfile.TemporaryDirectory(prefix="ad-agent-demo-") as data:
        settings = {"AD_AGENT_DATA_DIR": data, "AD_AGENT_IMAGE_ROOTS": str(photo.parent)}
        return make_ad({**DEMO_REQUEST, "product_image": str(photo)}, folder, settings=settings, is_kept=False)


def make_ad(arguments: Mapping[str, Any], folder: Path, *, settings: Mapping[str, str], is_kept: bool = True) -> int:
    """Start the server, call `generate`, follow the job and copy its pictures into `folder`.

    Args:
        arguments: those of the tool `generate`.
        folder: gets `step1.png`, `step2.png` and `final.png`, as far as there are such steps; with a number where
            other pictures have these names.
        settings: environment variables for the server, over this process's own.
        is_kept: whether the job is there afterwards, so that its id is worth telling.

    Returns:
        The exit code: 0 when the job completed or waits for approval, 128 and the signal's number when one stopped it.

    Raises:
        AdAgentError: `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise invalid(say("commands.out_unwritable", folder=folder))
    console = Console()
    made = _Made()
    try:
        anyio.run(partial(_make, made, dict(arguments), settings, console))
    except (MCPError, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.split(MCPError)[1] is not None:
            raise
        made.state = {**made.state, "status": None, "message": shown(say("commands.server_ended"))}
    state = made.state
    job_id = state.get("job_id")
    job = say("commands.job", job_id=job_id) if is_kept else say("commands.the_job")
    tell = partial(_tell, console)
    go_on = {"job": job, "command": f"{COMMAND} generate --resume {job_id}"}
    if made.signal is not None and state.get("status") != "completed":
        if job_id is None:
            tell(say("commands.nothing_started"))
        else:
            tell(
                say("commands.stopped_with_steps", **go_on)
                if state.get("step1_result")
                else say("commands.stopped", job=job)
            )
        return 128 + made.signal
    if state.get("status") not in ("completed", "pending"):
        error = state.get("error")
        why = told(ErrorInfo.model_validate(error)) if error else state.get("message", made.text)
        is_of_job = job_id and is_kept
        tell(
            say("commands.no_ad_of_job", job=job, why=why) if is_of_job else say("commands.no_ad", why=why), style="red"
        )
        return 1
    for warning in state["warnings"]:
        tell(say("commands.note", message=in_commands(warning["message"])), style="yellow")
    if state["waiting_for"]:
        tell(say("commands.waits", **go_on))
    tell(say("commands.done_job", job_id=job_id) if is_kept else say("commands.done"))
    for path in _copied({name: Path(file) for name, file in state["files"].items() if file}, folder):
        print(f"  {path}")  # a plain line, so that terminals make it clickable
    return 0


def _tell(console: Console, text: Text, *, style: str | None = None) -> None:
    console.print(shown(text), style=style, markup=False, soft_wrap=True)


def example_photo() -> Path:
    """The product photo that comes with the package, or lies beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "examples" / "product.png"
    return inside if inside.is_file() else package.parent / "examples" / "product.png"


@dataclass
class _Made:
    """What became of the call: the last state or error, the words that came with it, the signal that ended it."""

    state: dict[str, Any] = field(default_factory=dict[str, Any])
    text: str = ""
    signal: int | None = None

    def take(self, result: CallToolResult) -> None:
        self.state = cast(dict[str, Any], result.structured_content or {})
        self.text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))

    @property
    def is_going_on(self) -> bool:
        return self.state.get("status") in ("pending", "running") and not self.state["waiting_for"]


async def _make(made: _Made, arguments: dict[str, Any], settings: Mapping[str, str], console: Console) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "ad_agent_mcp"],
        env={**os.environ, "AD_AGENT_LOG_LEVEL": "WARNING", "AD_AGENT_LANG": shell_language(), **settings},
    )
    async with anyio.create_task_group() as tasks:
        following = anyio.CancelScope()  # alone, for the client works on until the job is stopped
        if sys.platform != "win32":
            tasks.start_soon(_end_on_signal, made, following)
        async with Client(server) as client:
            if made.signal is None:
                made.take(await client.call_tool("generate", arguments))
            with following:
                await _follow(client, made, console)
            if made.signal is not None and made.is_going_on:
                with anyio.move_on_after(STOP_SECONDS), suppress(MCPError):
                    made.take(await client.call_tool("stop", {"job_id": made.state["job_id"]}))
        tasks.cancel_scope.cancel()


async def _follow(client: Client, made: _Made, console: Console) -> None:
    """Wait for the job's end, which `made` then tells."""
    if not made.is_going_on:
        return
    with _bars(console) as show:

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            show(progress, message or "")

        while made.is_going_on:
            asked = {"job_id": made.state["job_id"], "wait_seconds": WAIT_SECONDS, "include_images": "none"}
            made.take(await client.call_tool("status", asked, progress_callback=on_progress))
        if made.state.get("status") == "completed":
            show(100.0, "")


async def _end_on_signal(made: _Made, following: anyio.CancelScope) -> None:
    """Leave off following at the first signal; the next one ends this process."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            made.signal = number
            following.cancel()
            return


@contextmanager
def _bars(console: Console) -> Generator[Callable[[float, str], None]]:
    """A bar for each step, and what moves them: it takes the job's percentage and what is being done."""
    with Progress(
        TextColumn("{task.description:<19}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[stage]}"),
        TimeElapsedColumn(),
        console=console,
    ) as display:
        bars = [display.add_task(shown(say(f"commands.step_{step}")), total=100, stage="") for step in STEPS]

        def show(percent: float, stage: str) -> None:
            for (low, high), bar in zip(itertools.pairwise((0, 33, 66, 100)), bars, strict=True):
                share = max(0.0, min(100.0, 100 * (percent - low) / (high - low)))
                display.update(bar, completed=share, stage=stage if 0 < share < 100 else "")

        yield show


def _copied(files: Mapping[str, Path], folder: Path) -> list[Path]:
    """Copy pictures into `folder` under their names; where other pictures have them, all get the next free number."""
    numbered = ([folder / f"{name}{ending}.png" for name in files] for ending in _endings())
    targets = next(targets for targets in numbered if all(map(_is_free_for, targets, files.values())))
    for target, file in zip(targets, files.values(), strict=True):
        if not target.exists():
            with target.open("xb") as copy, file.open("rb") as picture:  # never over what came meanwhile
                shutil.copyfileobj(picture, copy)
    return targets


def _endings() -> Iterator[str]:
    yield ""
    yield from (f"-{number}" for number in itertools.count(2))


def _is_free_for(target: Path, file: Path) -> bool:
    return not os.path.lexists(target) or (target.is_file() and filecmp.cmp(file, target, shallow=False))
