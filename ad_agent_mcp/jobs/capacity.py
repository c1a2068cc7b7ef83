"""Whether there is room for one more job, and one decision about that at a time.

Knows nothing about what a job is made of.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from ..contract.errors import AdAgentError
from .errors import busy, occupied
from .job import Job
from .peers import Peers
from .slot import Slot


class Capacity:
    """The places of one server: that in its slot, and `queue_size` more."""

    def __init__(self, slot: Slot, queue: list[Job], peers: Peers, *, queue_size: int) -> None:
        self.line = anyio.Lock()
        """Held by the first of the calls that wait for room; it is before all others."""
        self._accepting = anyio.Lock()
        self._slot = slot
        self._queue = queue
        self._peers = peers
        self._queue_size = queue_size

    def jobs(self) -> list[Job]:
        """The jobs that have a place here, the running one first."""
        current = self._slot.job
        return [*([current] if current else []), *self._queue]

    @asynccontextmanager
    async def accept(self) -> AsyncGenerator[None]:
        """One at a time, and to its end: a caller that goes away leaves no job half accepted."""
        async with self._accepting:
            with anyio.CancelScope(shield=True):
                yield

    async def refusal(self) -> AdAgentError | None:
        """The refusal of one more job, if there is no room for it."""
        if len(self._queue) < self._queue_size:
            return None
        if mine := self.jobs():
            return busy(mine[0], waiting=len(self._queue))
        elsewhere = await anyio.to_thread.run_sync(self._peers.device_holder)
        if elsewhere is None:
            return None
        server, holder = elsewhere
        if holder is None or holder.status.is_terminal or holder.waiting_for is not None:
            return occupied(server)
        return busy(holder, is_elsewhere=True)
