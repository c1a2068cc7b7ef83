"""The stdio server: one client, which started us and whose closed stdin ends us."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

import anyio

from ..config import Settings
from .app import App, open_app
from .worker_process import WORKER_COMMAND

logger = logging.getLogger(__name__)


async def serve_stdio(settings: Settings, *, command: Sequence[str] = WORKER_COMMAND) -> None:
    """Serve until stdin closes, or SIGTERM or SIGINT comes; `command` starts a worker."""
    async with open_app(settings, command=command) as app, anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            tasks.start_soon(_end_on_signal, app)
        await app.server.run_stdio_async()
        tasks.cancel_scope.cancel()


async def _end_on_signal(app: App) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            logger.info("ending on %s", number.name)
            await app.service.close()
            # Not an orderly return: the thread that reads stdin cannot be interrupted. The worker ends with its stdin.
            os._exit(0)
