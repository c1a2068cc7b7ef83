"""One ad from the example photo, made the way any client makes one: over MCP, through the real server."""

import base64
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import BlobResourceContents, CallToolResult, TextContent
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .files import write_atomically

STEPS = {"step1": "1 scene", "step2": "2 lettering", "final": "3 composition"}
WAIT_SECONDS = 50
TIMEOUT_S = 300
REQUEST: dict[str, Any] = {
    "bg_prompt": "a bright studio in warm peach and cream, soft morning light",
    "text_content": "봄을 담은\n첫 번째 세럼",
    "text_model_prompt": "glossy 3D letters, deep coral",
    "text_position": "top",
    "font_name": "NanumSquare/NanumSquareEB.ttf",
    "seed": 7,
}


def run_demo(folder: Path) -> int:
    """Make the ad and write `step1.png`, `step2.png` and `final.png` into `folder`.

    Returns:
        The exit code.
    """
    console = Console()
    console.print("Making an ad from the example photo, over MCP and on the CPU...")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ad-agent-demo-") as data,
        Progress(
            TextColumn("step {task.description:<14}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[stage]}"),
            TimeElapsedColumn(),
            console=console,
        ) as progress,
    ):
        bars = [progress.add_task(name, total=100, stage="") for name in STEPS.values()]
        error = anyio.run(_make, folder, Path(data), progress, bars)
    if error:
        console.print(f"The demo did not finish: {error}", style="red")
        return 1
    console.print("Done:")
    for name in STEPS:
        print(f"  {folder / name}.png")  # noqa: T201  # a plain line, so that terminals make it clickable
    return 0


def example_photo() -> Path:
    """The product photo that comes with the package, or lies beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "examples" / "product.png"
    return inside if inside.is_file() else package.parent / "examples" / "product.png"


async def _make(folder: Path, data: Path, display: Progress, bars: list[TaskID]) -> str | None:
    photo = example_photo()
    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "ad_agent_mcp"],
        env={
            **os.environ,
            "AD_AGENT_DATA_DIR": str(data),
            "AD_AGENT_IMAGE_ROOTS": str(photo.parent),
            "AD_AGENT_LOG_LEVEL": "WARNING",
        },
    )

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        for index, bar in enumerate(bars):
            low, high = (0, 33, 66, 100)[index : index + 2]
            share = max(0.0, min(100.0, 100 * (progress - low) / (high - low)))
            display.update(bar, completed=share, stage=(message or "") if 0 < share < 100 else "")

    with anyio.move_on_after(TIMEOUT_S):
        async with Client(server) as client:
            arguments = {**REQUEST, "product_image": str(photo), "wait_seconds": WAIT_SECONDS}
            result = await client.call_tool("generate", arguments, progress_callback=on_progress)
            while not result.is_error and _state(result)["status"] in ("pending", "running"):
                waiting = {"job_id": _state(result)["job_id"], "wait_seconds": WAIT_SECONDS}
                result = await client.call_tool("status", waiting, progress_callback=on_progress)
            if result.is_error or _state(result)["status"] != "completed":
                return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
            for bar in bars:
                display.update(bar, completed=100, stage="")
            for name in STEPS:
                picture = await _download(client, f"ad://jobs/{_state(result)['job_id']}/{name}.png")
                write_atomically(folder / f"{name}.png", picture, durable=False)
        return None
    return f"nothing finished within {TIMEOUT_S} s"


def _state(result: CallToolResult) -> dict[str, Any]:
    return result.structured_content or {}


async def _download(client: Client, uri: str) -> bytes:
    """A picture of any size, range by range."""
    data = b""
    while True:
        contents = (await client.read_resource(f"{uri}?offset={len(data)}")).contents[0]
        chunk = base64.b64decode(contents.blob) if isinstance(contents, BlobResourceContents) else b""
        if not chunk:
            return data
        data += chunk
