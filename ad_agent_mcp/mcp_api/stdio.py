"""The stdio server: one client, which started us and whose closed stdin ends us.

The client's lines are read, and ours are written, by two threads that may wait for it as long as it likes: the event
loop never does, and being daemons they keep no process alive.
"""

import logging
import math
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage

from ..config import Settings
from ..supervisor.process import WORKER_COMMAND
from .envelope import RefusedMessageError, read_message, too_long
from .server import open_app

logger = logging.getLogger(__name__)

LAST_WORDS_S = 2.0
"""How long a client that has closed stdin is given to read what was said before."""
_CHUNK_BYTES = 1 << 16
_LOOP_IS_OVER = (RuntimeError, CancelledError, anyio.BrokenResourceError, anyio.ClosedResourceError)


async def serve_stdio(settings: Settings, *, command: Sequence[str] = WORKER_COMMAND) -> None:
    """Serve until stdin closes, or SIGTERM or SIGINT comes; `command` starts a worker."""
    async with open_app(settings, command=command) as app, anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            tasks.start_soon(_end_on_signal, tasks.cancel_scope)
        low = app.server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # the SDK's own stdio drops bad lines
        async with _client(settings.max_message_bytes) as (messages, answers):
            await low.run(messages, answers, low.create_initialization_options())
        tasks.cancel_scope.cancel()


async def _end_on_signal(everything: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            logger.info("ending on %s", number.name)
            everything.cancel()


@asynccontextmanager
async def _client(
    limit_bytes: int,
) -> AsyncGenerator[tuple[MemoryObjectReceiveStream[SessionMessage], MemoryObjectSendStream[SessionMessage]]]:
    """The client's messages, and where ours go, which never waits; what is no message is answered here.

    Args:
        limit_bytes: a longer line is no message.
    """
    wire_in, wire_out = _claim()
    messages_in, messages = anyio.create_memory_object_stream[SessionMessage]()
    answers_in, answers = anyio.create_memory_object_stream[SessionMessage](math.inf)
    unwritten: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    said = anyio.Event()
    token = current_token()

    def read() -> None:
        """Thread body: pass on the message of each line, or answer that it is none."""
        with suppress(*_LOOP_IS_OVER):
            for line in _lines(wire_in, limit_bytes):
                try:
                    if len(line) > limit_bytes:
                        raise too_long(line, limit_bytes)
                    message = SessionMessage(read_message(line))
                except RefusedMessageError as refusal:
                    logger.info("a message was refused: %s", refusal)
                    if refusal.answer is not None:
                        unwritten.put(_written(refusal.answer))
                else:
                    anyio.from_thread.run(messages_in.send, message, token=token)
            anyio.from_thread.run_sync(messages_in.close, token=token)

    def write() -> None:
        """Thread body: write what there is until it is nothing, or until nobody listens."""
        with suppress(*_LOOP_IS_OVER):
            try:
                while rest := memoryview(unwritten.get()):
                    while rest:
                        rest = rest[os.write(wire_out, rest) :]
            except OSError as error:
                logger.info("the client does not listen any more: %s", error.strerror)
                anyio.from_thread.run_sync(messages_in.close, token=token)
            anyio.from_thread.run_sync(said.set, token=token)

    async def give() -> None:
        async for answer in answers:
            unwritten.put(_written(answer.message))
        unwritten.put(b"")

    for body, name in ((read, "stdin"), (write, "stdout")):
        threading.Thread(target=body, daemon=True, name=name).start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give)
        yield messages, answers_in
        with anyio.move_on_after(LAST_WORDS_S):
            await said.wait()
        tasks.cancel_scope.cancel()


def _written(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"


def _claim() -> tuple[int, int]:
    """Descriptors of the client's pipes, for us alone: who else reads stdin or prints meets nothing, or stderr."""
    nothing = os.open(os.devnull, os.O_RDWR)
    wire = os.dup(0), os.dup(1)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    if sys.platform != "win32":
        for descriptor in wire:
            os.set_blocking(descriptor, True)
    sys.stdout = sys.stderr
    return wire


def _lines(descriptor: int, limit_bytes: int) -> Iterator[bytes]:
    """Lines with something in them; of one beyond the limit only the start, one byte too long."""
    line = bytearray()
    with suppress(OSError):  # the client is gone, however it went
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            *ends, begun = chunk.split(b"\n")
            for end in ends:
                line += end[: limit_bytes + 1 - len(line)]
                if line.strip():
                    yield bytes(line)
                line.clear()
            line += begun[: limit_bytes + 1 - len(line)]
    if line.strip():
        yield bytes(line)
