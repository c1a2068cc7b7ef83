"""Servers in this process, with a worker of the test's choice."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from ad_agent_mcp.config import Settings
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.mcp_api.server import App, open_app


@contextlib.asynccontextmanager
async def app_with(settings: Settings, command: Sequence[str], **changes: Any) -> AsyncIterator[App]:
    """A server whose workers are started by `command`."""
    async with open_app(settings.model_copy(update=changes), command=command) as app:
        yield app


async def settled(app: App, job: Job, *, seconds: float = 30) -> Job:
    """Follow a job until it rests."""

    async def ignore(_: Job) -> None: ...

    with anyio.fail_after(seconds):
        while True:
            job = await app.service.wait(job.id, 5, on_change=ignore, every_s=0.01)
            if job.status.is_terminal or job.waiting_for:
                return job


async def running(app: App) -> None:
    """Until the worker has begun with a job."""
    with anyio.fail_after(20):
        while app.service.current is None or app.service.current.stage is None:
            await anyio.sleep(0.01)


async def others_go_on() -> None:
    """Until every other task has gone on as far as it can: many turns of the event loop and of its threads."""
    for _ in range(50):
        await anyio.to_thread.run_sync(int)


def meanwhile(tasks: TaskGroup, function: Callable[[], Awaitable[Any]]) -> None:
    """Called in a thread that the server waits for: start `function` beside it, and let it go as far as it can."""
    anyio.from_thread.run_sync(tasks.start_soon, function)
    anyio.from_thread.run(others_go_on)
