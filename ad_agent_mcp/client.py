"""A person's way to an ad: an MCP client of our own server, with progress bars.

`generate` and `demo` are this client with other arguments; what it does any MCP client can do.
"""

import base64
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import BlobResourceContents, CallToolResult, TextContent
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .files import write_atomically

STEPS = {"step1": "1 scene", "step2": "2 lettering", "final": "3 composition"}
WAIT_SECONDS = 50
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
    Console().print("Making an ad from the example photo, over MCP and on the CPU...")
    photo = example_photo()
    with tempfile.TemporaryDirectory(prefix="ad-agent-demo-") as data:
        settings = {"AD_AGENT_DATA_DIR": data, "AD_AGENT_IMAGE_ROOTS": str(photo.parent)}
        return make_ad({**DEMO_REQUEST, "product_image": str(photo)}, folder, settings=settings)


def make_ad(arguments: Mapping[str, Any], folder: Path, *, settings: Mapping[str, str]) -> int:
    """Start the server, call `generate`, follow the job and write its pictures into `folder`.

    Args:
        arguments: those of the tool `generate`.
        folder: gets `step1.png`, `step2.png` and `final.png`, as far as there are such steps.
        settings: environment variables for the server, over this process's own.

    Returns:
        The exit code: 0 when the job completed, or waits for approval.
    """
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(
        TextColumn("step {task.description:<14}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[stage]}"),
        TimeElapsedColumn(),
        console=console,
    ) as display:
        bars = [display.add_task(name, total=100, stage="") for name in STEPS.values()]
        result = anyio.run(partial(_make, dict(arguments), folder, settings, display, bars))
    state = _state(result)
    if result.is_error or state.get("status") not in ("completed", "pending"):
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        console.print(f"No ad was made. {text}", style="red", markup=False)
        return 1
    for warning in state["warnings"]:
        console.print(f"Note: {warning['message']}", style="yellow", markup=False)
    if state["waiting_for"]:
        console.print(f"The job waits for approval. Go on with: ad-agent-mcp generate --resume {state['job_id']}")
    console.print("Done:")
    for name in STEPS:
        if state[f"{name}_result"]:
            print(f"  {folder / name}.png")  # a plain line, so that terminals make it clickable
    return 0


def example_photo() -> Path:
    """The product photo that comes with the package, or lies beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "examples" / "product.png"
    return inside if inside.is_file() else package.parent / "examples" / "product.png"


async def _make(
    arguments: dict[str, Any], folder: Path, settings: Mapping[str, str], display: Progress, bars: list[TaskID]
) -> CallToolResult:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "ad_agent_mcp"],
        env={**os.environ, "AD_AGENT_LOG_LEVEL": "WARNING", **settings},
    )

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        for index, bar in enumerate(bars):
            low, high = (0, 33, 66, 100)[index : index + 2]
            share = max(0.0, min(100.0, 100 * (progress - low) / (high - low)))
            display.update(bar, completed=share, stage=(message or "") if 0 < share < 100 else "")

    async with Client(server) as client:
        result = await client.call_tool(
            "generate", {**arguments, "wait_seconds": WAIT_SECONDS}, progress_callback=on_progress
        )
        while (state := _state(result)).get("status") in ("pending", "running") and not state["waiting_for"]:
            waiting = {"job_id": state["job_id"], "wait_seconds": WAIT_SECONDS}
            result = await client.call_tool("status", waiting, progress_callback=on_progress)
        for name, bar in zip(STEPS, bars, strict=True):
            if uri := state.get(f"{name}_result"):
                display.update(bar, completed=100, stage="")
                write_atomically(folder / f"{name}.png", await _download(client, uri), durable=False)
        return result


def _state(result: CallToolResult) -> dict[str, Any]:
    return cast(dict[str, Any], result.structured_content or {})


async def _download(client: Client, uri: str) -> bytes:
    """A picture of any size, range by range."""
    data = b""
    while True:
        contents = (await client.read_resource(f"{uri}?offset={len(data)}")).contents[0]
        chunk = base64.b64decode(contents.blob) if isinstance(contents, BlobResourceContents) else b""
        if not chunk:
            return data
        data += chunk
