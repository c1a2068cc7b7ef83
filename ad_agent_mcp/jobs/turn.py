"""Deciding alone among the servers on one data folder, for as long as a decision takes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from ..files import FileLock
from .errors import contended
from .peers import Peers

TIMEOUT_S = 10.0
"""How long a decision waits for that of another server."""
POLL_S = 0.02


@asynccontextmanager
async def turn_of(peers: Peers, timeout_s: float) -> AsyncGenerator[FileLock]:
    """The turn among the servers on this folder for the length of the block, if it was had within `timeout_s`."""
    turn, until = peers.turn(), anyio.current_time() + timeout_s
    try:
        while not await anyio.to_thread.run_sync(peers.take_turn, turn):
            if anyio.current_time() >= until:
                break
            await anyio.sleep(POLL_S)
        yield turn
    finally:
        turn.release()


@asynccontextmanager
async def deciding(peers: Peers, job_id: str) -> AsyncGenerator[None]:
    """Alone among the servers that may decide about a job no worker has, from reading its state to writing it.

    Raises:
        AdAgentError: another server does not let go of its turn.
    """
    async with turn_of(peers, TIMEOUT_S) as turn:
        if not turn.is_held:
            raise contended(job_id, TIMEOUT_S, await anyio.to_thread.run_sync(turn.read_note))
        yield
