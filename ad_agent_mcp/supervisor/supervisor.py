"""Has a worker at all times: starts it early, replaces a dead one, notices a silent one."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import TaskGroup

from ..config import EngineChoice, Settings
from ..contract.messages import Command, Event, JobDone, JobFailed, Ready, StepResult
from ..contract.texts import Text, say
from .process import WorkerDiedError, WorkerProcess

logger = logging.getLogger(__name__)

RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pause before the next start, by how many workers in a row died without finishing anything."""


class Supervisor:
    """The worker of one server, whichever process that is now. Owned by the job service."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self.ready: Ready | None = None
        """The first word of the worker, while it lives."""
        self.restarts = 0
        self._settings = settings
        self._command = command
        self._worker: WorkerProcess | None = None
        self._deaths_in_a_row = 0

    async def keep(
        self,
        tasks: TaskGroup,
        *,
        on_ready: Callable[[], Awaitable[None]],
        on_event: Callable[[Event], Awaitable[None]],
        on_death: Callable[[Text, bool], Awaitable[None]],
    ) -> None:
        """Run until cancelled.

        Args:
            tasks: where the worker's stderr is passed on from.
            on_ready: a worker lives; it may be sent commands.
            on_event: what it said.
            on_death: how it died, and whether it had been ready; none lives until the next `on_ready`.
        """
        while True:
            how, was_ready = say("worker.ended"), False
            try:
                async with WorkerProcess.spawn(self._settings, tasks, self._command) as (worker, ready):
                    self._worker, self.ready, was_ready = worker, ready, True
                    logger.info("worker %d is ready, on %s: %s", ready.pid, ready.device, ready.note or ready.engine)
                    if self.engine_warning is not None:
                        logger.warning("%s", self.engine_warning.in_(self._settings.lang or "en"))
                    await on_ready()
                    async for event in worker.events():
                        if isinstance(event, StepResult | JobDone | JobFailed):
                            self.trust()
                        await on_event(event)
            except WorkerDiedError as death:
                how = death.text
            except Exception as error:  # the receive loop outlives whatever one event, or one start, did to it
                logger.exception("the worker could not be followed")
                how = say("worker.not_followed", reason=type(error).__name__)
            self._worker = self.ready = None
            logger.warning("the worker died: %s", how)
            await on_death(how, was_ready)
            await anyio.sleep(RESTART_DELAYS_S[min(self._deaths_in_a_row, len(RESTART_DELAYS_S) - 1)])
            self._deaths_in_a_row += 1
            self.restarts += 1

    @property
    def is_failing(self) -> bool:
        """Whether there is no worker because one after the other dies."""
        return self.ready is None and self._deaths_in_a_row > 1

    @property
    def engine_warning(self) -> Text | None:
        """Why jobs run on the CPU or not at all, if nobody asked for that."""
        if self.ready is None or self._settings.engine is EngineChoice.DRAFT:
            return None
        if self.ready.refusal is not None:
            return say("worker.refused", refusal=self.ready.refusal)
        return say("worker.engine", note=self.ready.note) if self.ready.device == "cpu" and self.ready.note else None

    @property
    def silent_s(self) -> float:
        """Seconds since the worker said, or was told, something; 0 without a worker."""
        return time.monotonic() - self._worker.heard_at if self._worker is not None else 0.0

    async def send(self, command: Command) -> bool:
        """Give the worker a command; False while there is none. One that dies now is noticed by `on_death`."""
        if self._worker is None:
            return False
        self._worker.heard_at = time.monotonic()
        await self._worker.send(command)
        return True

    def trust(self) -> None:
        """The worker did what it was told: the next one need not wait."""
        self._deaths_in_a_row = 0

    def kill(self) -> None:
        """End the worker at once; a fresh one follows."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = self.ready = None  # nothing more is given to it
