"""Many HTTP clients that ask for a job's status at once, while jobs are made."""

import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import httpx2

from tests.e2e.support import Place, http_server

from .client import HELLO, PROTOCOL_VERSION, CallFailedError, content_of, result_of
from .pictures import photographs
from .report import Row, summary
from .server import LARGE

CLIENTS = 64
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once: loading certificates takes longer than many calls."""


def measure_load(place: Place) -> Iterator[Row]:
    """What many clients wait for the status of a running job: at their ease, and as fast as they can."""
    job = {"product_image": photographs(place.pictures)["1 MP PNG"], **LARGE}
    place.data.mkdir(parents=True)
    with http_server(place) as url:
        for seconds, every_s in ((30.0, 1.0), (8.0, 0.0)):
            seen = anyio.run(partial(poll_together, url, job, seconds=seconds, every_s=every_s))
            pace = f"every {every_s:g} s" if every_s else "without a pause"
            what = f"{CLIENTS} HTTP clients, status {pace} for {seconds:g} s"
            figure = f"{summary(seen.times_s)}; {len(seen.times_s) / seconds:.0f} requests/s; {seen.jobs} jobs ended"
            yield Row(what, figure, "", None)
            errors = f"{len(seen.errors)} of {len(seen.times_s):,}" + (f" ({seen.errors[0]})" if seen.errors else "")
            yield Row("  their errors", errors, "0", not seen.errors)


@dataclass
class Polling:
    """What the clients saw."""

    times_s: list[float] = field(default_factory=list[float])
    errors: list[str] = field(default_factory=list[str])
    jobs: int = 0


@asynccontextmanager
async def session(url: str) -> AsyncIterator["Session"]:
    """One client with a connection of its own."""
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, verify=NO_TLS) as http:
        yield await Session(http, f"{url}/mcp").open()


class Session:
    """One MCP session over streamable HTTP."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._asked = 0

    async def open(self) -> "Session":
        """Introduce the client."""
        answer = await self._post({"id": 0, "method": "initialize", "params": HELLO})
        self._http.headers["MCP-Protocol-Version"] = PROTOCOL_VERSION
        if session_id := answer.headers.get("mcp-session-id"):
            self._http.headers["Mcp-Session-Id"] = session_id
        await self._post({"method": "notifications/initialized"})
        return self

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; its structured content.

        Raises:
            CallFailedError: the tool answered with an error.
        """
        self._asked += 1
        params = {"name": tool, "arguments": arguments}
        answer = await self._post({"id": self._asked, "method": "tools/call", "params": params})
        bodies = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
        messages = [json.loads(body) for body in bodies if body.strip()] or [answer.json()]
        return content_of(result_of(next(message for message in messages if message.get("id") == self._asked)))

    async def _post(self, message: dict[str, Any]) -> httpx2.Response:
        answer = await self._http.post(self._url, json={"jsonrpc": "2.0", **message})
        answer.raise_for_status()
        return answer


async def poll_together(url: str, job: dict[str, Any], *, seconds: float, every_s: float) -> Polling:
    """`CLIENTS` clients ask for `status` for `seconds`, each every `every_s`, while jobs of arguments `job` run."""
    seen = Polling()
    async with session(url) as maker:
        running = (await maker.call("generate", **job))["job_id"]

        async def make_jobs() -> None:
            nonlocal running
            while True:
                state = await maker.call("status", job_id=running, wait_seconds=20, include_images="none")
                if state["status"] == "failed":
                    seen.errors.append(str(state["error"]))
                if state["status"] != "running":
                    seen.jobs += 1
                    running = (await maker.call("generate", **job))["job_id"]

        async def poll(client: Session, number: int) -> None:
            await anyio.sleep(every_s * number / CLIENTS)
            while time.perf_counter() < ends_at:
                start = time.perf_counter()
                try:
                    await client.call("status", job_id=running)
                except (CallFailedError, httpx2.HTTPError) as error:
                    seen.errors.append(repr(error))
                taken_s = time.perf_counter() - start
                seen.times_s.append(taken_s)
                await anyio.sleep(max(0.0, every_s - taken_s))

        async with AsyncExitStack() as stack, anyio.create_task_group() as jobs:
            clients = [await stack.enter_async_context(session(url)) for _ in range(CLIENTS)]
            jobs.start_soon(make_jobs)
            ends_at = time.perf_counter() + seconds
            async with anyio.create_task_group() as polls:
                for number, client in enumerate(clients):
                    polls.start_soon(poll, client, number)
            jobs.cancel_scope.cancel()
        await maker.call("stop", job_id=running)
    return seen
