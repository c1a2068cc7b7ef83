"""The thinnest MCP clients: raw JSON-RPC over stdio and HTTP, so that what is measured is the server."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

PROTOCOL_VERSION = "2025-11-25"
HELLO = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}


class CallFailedError(Exception):
    """Raised when a request or a tool answers with an error."""


class StdioClient:
    """One server over stdio and its only client; the server is ended with the block."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, log: Path) -> None:
        self.started_at = time.perf_counter()
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(  # noqa: S603
                command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
            )
        self._asked = 0
        self.answer_bytes = 0
        """Size of the latest answer, its line's end included."""

    def __enter__(self) -> Self:
        self.request("initialize", HELLO)
        self._send({"method": "notifications/initialized"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    def kill(self) -> None:
        """SIGKILL the server; the block's end waits for it."""
        self._process.kill()

    def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask and wait for the answer; notifications on the way are dropped.

        Raises:
            CallFailedError: the server answered with an error, or is gone.
        """
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params or {}})
        while line := self._process.stdout.readline() if self._process.stdout else b"":
            answer = json.loads(line)
            if answer.get("id") == self._asked:
                self.answer_bytes = len(line)
                return result_of(answer)
        raise CallFailedError(f"the server ended during {method}")

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; its structured content.

        Raises:
            CallFailedError: the tool answered with an error.
        """
        return content_of(self.request("tools/call", {"name": tool, "arguments": arguments}))

    def _send(self, message: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self._process.stdin.flush()


def call_over_http(url: str, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool of the server at `url` in a session of its own; its structured content.

    Raises:
        CallFailedError: the tool answered with an error.
    """
    with HttpClient(url) as client:
        return client.call(tool, **arguments)


class HttpClient:
    """A session with the server at `url` over streamable HTTP, on one connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx2.Client(headers={"Accept": "application/json, text/event-stream"}, timeout=60)
        self._asked = 0

    def __enter__(self) -> Self:
        session = self._post({"id": 0, "method": "initialize", "params": HELLO}).headers.get("mcp-session-id")
        self._http.headers["MCP-Protocol-Version"] = PROTOCOL_VERSION
        if session is not None:
            self._http.headers["Mcp-Session-Id"] = session
        self._post({"method": "notifications/initialized"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; its structured content.

        Raises:
            CallFailedError: the tool answered with an error.
        """
        self._asked += 1
        params = {"name": tool, "arguments": arguments}
        answer = self._post({"id": self._asked, "method": "tools/call", "params": params})
        bodies = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
        messages = [json.loads(body) for body in bodies if body.strip()] or [answer.json()]
        return content_of(result_of(next(message for message in messages if message.get("id") == self._asked)))

    def _post(self, message: dict[str, Any]) -> httpx2.Response:
        answer = self._http.post(f"{self._url}/mcp", json={"jsonrpc": "2.0", **message})
        answer.raise_for_status()
        return answer


def result_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The result of a JSON-RPC answer.

    Raises:
        CallFailedError: it is an error.
    """
    if "error" in answer:
        raise CallFailedError(answer["error"])
    return answer["result"]


def content_of(result: dict[str, Any]) -> dict[str, Any]:
    """The structured content of a tool's result.

    Raises:
        CallFailedError: the tool failed.
    """
    if result.get("isError"):
        raise CallFailedError(result["content"])
    return result["structuredContent"]
