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
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from ..config import Settings
from ..supervisor.process import WORKER_COMMAND
from .envelope import RefusedMessageError, read_message, too_long
from .server import open_app

logger = logging.getLogger(__name__)

LAST_WORDS_S = 2.0
"""How long a client that has closed stdin is given to read what was said before."""
_CHUNK_BYTES = 1 << 16
_LOOP_IS_OVER = (RuntimeError, CancelledError, anyio.BrokenResourceError, anyio.ClosedResourceError)

_Received = SessionMessage | RefusedMessageError


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
    received_in, received = anyio.create_memory_object_stream[_Received]()
    messages_in, messages = anyio.create_memory_object_stream[SessionMessage]()
    answers_in, answers = anyio.create_memory_object_stream[SessionMessage](math.inf)
    token = current_token()

    def deliver(what: _Received | None) -> None:
        if what is not None:
            anyio.from_thread.run(received_in.send, what, token=token)
        else:
            anyio.from_thread.run_sync(received_in.close, token=token)

    async def take(answers_in: MemoryObjectSendStream[SessionMessage]) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the server has ended
            async with messages_in, answers_in:
                async for what in received:
                    if isinstance(what, SessionMessage):
                        await messages_in.send(what)
                        continue
                    logger.info("a message was refused: %s", what)
                    if what.answer is not None:
                        await answers_in.send(SessionMessage(what.answer))

    async def give() -> None:
        async for answer in answers:
            lines.put(answer.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        lines.put(b"")

    def tell(failure: OSError | None) -> None:
        anyio.from_thread.run_sync(end, failure, token=token)

    def end(failure: OSError | None) -> None:
        if failure is not None:
            logger.info("the client does not listen any more: %s", failure.strerror)
            messages_in.close()
        said.set()

    said = anyio.Event()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(wire_in, limit_bytes, deliver), daemon=True, name="stdin").start()
    threading.Thread(target=_write, args=(wire_out, lines, tell), daemon=True, name="stdout").start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, answers_in.clone())
        tasks.start_soon(give)
        yield messages, answers_in
        with anyio.move_on_after(LAST_WORDS_S):
            await said.wait()
        tasks.cancel_scope.cancel()


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


def _read(descriptor: int, limit_bytes: int, deliver: Callable[[_Received | None], None]) -> None:
    """Thread body: deliver what each line holds, and None when there are no more."""
    with suppress(*_LOOP_IS_OVER):
        for line in _lines(descriptor, limit_bytes):
            try:
                if len(line) > limit_bytes:
                    raise too_long(line, limit_bytes)
                received: _Received = SessionMessage(read_message(line))
            except RefusedMessageError as refusal:
                received = refusal
            deliver(received)
        deliver(None)


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


def _write(descriptor: int, lines: queue.SimpleQueue[bytes], tell: Callable[[OSError | None], None]) -> None:
    """Thread body: write each line until an empty one, then tell how that went; OSError: nobody listens any more."""
    failure = None
    try:
        while line := lines.get():
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        failure = error
    with suppress(*_LOOP_IS_OVER):
        tell(failure)
