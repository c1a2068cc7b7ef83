"""One worker process: started, spoken to, and ended. Knows nothing about jobs' state."""

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import anyio
from anyio.abc import ByteReceiveStream, Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.text import TextReceiveStream
from pydantic import ValidationError

from .. import __version__
from ..config import Settings
from ..contract.messages import (
    EVENT,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    UNREADABLE_EXIT,
    Command,
    Event,
    Ready,
    encode,
)
from ..contract.texts import Text, say

logger = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-P", "-m", "ad_agent_mcp.worker")
READY_TIMEOUT_S = 120.0
TERMINATE_GRACE_S = 1.0
MAX_LINE = 1 << 16
_VERSIONS_DIFFER = say("worker.versions_differ", version=__version__)
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_PASSED = re.compile(
    "PATH|HOME|LANG|LC_ALL|TMPDIR|LD_LIBRARY_PATH|PYTHONPATH|CC|HTTPS_PROXY|NO_PROXY|SSL_CERT_FILE|"
    "SYSTEMROOT|USERPROFILE|APPDATA|LOCALAPPDATA|TEMP|TMP|"
    "(CUDA_|NVIDIA_|HF_|OMP_|MKL_|TORCH|PYTORCH_|TRITON_|XDG_|COV).*"
)


class WorkerDiedError(Exception):
    """Raised when the worker's event stream ends; `text` says how it died, in words that callers may read."""

    def __init__(self, text: Text) -> None:
        super().__init__(text)
        self.text = text


class WorkerProcess:
    """One live worker. Made by `spawn`; a dead one is replaced, never revived."""

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the worker needs pipes")
        self._process = process
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)
        self._stderr = process.stderr
        self.heard_at = time.monotonic()
        """When the last event came, on the monotonic clock."""

    @classmethod
    @asynccontextmanager
    async def spawn(
        cls, settings: Settings, tasks: TaskGroup, command: Sequence[str] = WORKER_COMMAND
    ) -> AsyncGenerator[tuple[Self, Ready]]:
        """Start a worker and wait for its first word; it is ended when the block is left.

        Args:
            settings: handed to the worker as its environment.
            tasks: where its stderr is passed on from.
            command: what to start.

        Raises:
            WorkerDiedError: it died, or was not ready in `READY_TIMEOUT_S`, or speaks another protocol.
        """
        process = await _started(command, _environment(settings))
        try:
            worker = cls(process)
            tasks.start_soon(worker._pump_stderr)
            yield worker, await worker._first_word()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)

    async def send(self, command: Command) -> None:
        """Give the worker a command; a dead worker is noticed by `events`, not here."""
        try:
            await self._stdin.send(encode(command))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            logger.debug("the worker did not take %s", command.type)

    async def events(self) -> AsyncIterator[Event]:
        """Every event until the stream ends.

        Raises:
            WorkerDiedError: it has ended, or what came is not an event.
        """
        while True:
            yield await self._receive()

    def kill(self) -> None:
        """End the process at once; `events` then raises."""
        _signal(self._process, _KILL)

    async def _first_word(self) -> Ready:
        with anyio.move_on_after(READY_TIMEOUT_S):
            event = await self._receive()
            if isinstance(event, Ready) and event.protocol == PROTOCOL_VERSION:
                return event
            if isinstance(event, Ready):
                spoken = {"spoken": event.protocol, "known": PROTOCOL_VERSION}
                raise WorkerDiedError(say("worker.other_protocol", **spoken, versions=_VERSIONS_DIFFER))
            raise WorkerDiedError(say("worker.other_first_word", word=repr(event.type), versions=_VERSIONS_DIFFER))
        raise WorkerDiedError(say("worker.not_ready", seconds=READY_TIMEOUT_S))

    async def _receive(self) -> Event:
        try:
            (size,) = FRAME_HEADER.unpack(await self._stdout.receive_exactly(FRAME_HEADER.size))
            if size > MAX_FRAME_BYTES:
                raise WorkerDiedError(say("worker.large_frame", size=size))
            event = EVENT.validate_json(await self._stdout.receive_exactly(size))
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise WorkerDiedError(await self._post_mortem()) from None
        except ValidationError as error:
            if any(detail["type"] == "json_invalid" for detail in error.errors(include_input=False)):
                raise WorkerDiedError(say("worker.not_json")) from None
            where = [".".join(map(str, detail["loc"])) for detail in error.errors(include_input=False)[:3]]
            raise WorkerDiedError(say("worker.unknown_words", where=where, versions=_VERSIONS_DIFFER)) from None
        self.heard_at = time.monotonic()
        return event

    async def _post_mortem(self) -> Text:
        code: int | None = None
        with anyio.move_on_after(TERMINATE_GRACE_S):
            code = await self._process.wait()
        if code is None:
            return say("worker.silent")
        if code == UNREADABLE_EXIT:
            return say("worker.could_not_read", versions=_VERSIONS_DIFFER)
        if code >= 0:
            return say("worker.exited", code=code)
        return say("worker.killed_for_memory" if code == -9 else "worker.killed", signal=signal.Signals(-code).name)

    async def _pump_stderr(self) -> None:
        try:
            async for line in _lines(self._stderr):  # whole ones: our own lines go to the same place
                with contextlib.suppress(OSError, ValueError, AttributeError):  # the host may have closed our stderr
                    sys.stderr.write(f"{line}\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[str]:
    """What comes, line by line; very long ones in pieces."""
    rest = ""
    async for text in TextReceiveStream(stream, errors="replace"):
        *lines, rest = (rest + text).split("\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], ""
        for line in lines:
            yield line
    if rest:
        yield rest


async def _started(command: Sequence[str], environment: dict[str, str]) -> Process:
    with anyio.CancelScope(shield=True):  # a process half started would be nobody's
        # In a session of its own, where no signal to our group meets it while it does not ignore them yet.
        return await anyio.open_process(list(command), env=environment, start_new_session=True)
    raise AssertionError("a shielded scope is not left early")


async def _end(process: Process) -> None:
    """Close its stdin, at which a worker ends; terminate one that does not listen yet, wait, kill, wait."""
    if process.stdin is not None:
        await process.stdin.aclose()
    _signal(process, signal.SIGTERM)
    with anyio.move_on_after(TERMINATE_GRACE_S):
        await process.wait()
    _signal(process, _KILL)
    await process.aclose()


def _signal(process: Process, number: int) -> None:
    """Signal a process that has not ended; its own methods would take its exit status away from the event loop."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _environment(settings: Settings) -> dict[str, str]:
    """The worker's environment: its settings and what its libraries need, not the server's secrets."""
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    # CUDA would count the fastest GPU first, and what the driver tells of memory be another one's.
    return {**passed, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **settings.to_environment()}
