"""Commands as they arrive: jobs to run, and the ids the server wants stopped.

Read by a thread of its own, so that a cancel is seen while the main thread is inside a model. A set of ids
has neither race of a shared flag: a cancel may overtake its job, or come after it.
"""

import logging
import queue
from typing import BinaryIO

from pydantic import ValidationError

from .. import __version__
from ..contract.errors import Cancelled
from ..contract.messages import (
    COMMAND,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    UNREADABLE_EXIT,
    CancelJob,
    Command,
    Shutdown,
    StartJob,
    UnloadModels,
)

logger = logging.getLogger(__name__)

Work = StartJob | UnloadModels | None
"""What the main thread does next; None: end."""


class Inbox:
    """The commands of one worker. `read` runs in the reader thread, everything else in the main thread."""

    def __init__(self) -> None:
        self._work: queue.Queue[Work] = queue.Queue()
        self._cancelled: set[str] = set()

    def next_work(self) -> Work:
        """Wait for the next thing to do."""
        return self._work.get()

    @property
    def has_work(self) -> bool:
        """Whether `next_work` would not wait."""
        return not self._work.empty()

    def raise_if_cancelled(self, job_id: str) -> None:
        """Raise `Cancelled` when the server wants `job_id` stopped."""
        if job_id in self._cancelled:
            raise Cancelled

    def read(self, stream: BinaryIO) -> int:
        """Take commands until the server is gone, says that the worker is to end, or cannot be understood.

        Returns:
            The exit status of the process: every file is written atomically, so nothing is lost by ending at once.
        """
        try:
            while (command := _read_command(stream)) is not None:
                match command:
                    case StartJob() | UnloadModels():
                        self._work.put(command)
                    case CancelJob(job_id=job_id):
                        self._cancelled.add(job_id)
                    case Shutdown():
                        break
        except ValueError as error:
            logger.critical(
                "what the server sent cannot be read by this worker (version %s): %s", __version__, _reason(error)
            )
            return UNREADABLE_EXIT
        return 0


def _read_command(stream: BinaryIO) -> Command | None:
    """The next command; None when the stream ended after a whole one.

    Raises:
        ValueError: what came is not one.
    """
    header = stream.read(FRAME_HEADER.size)
    if not header:
        return None
    if len(header) < FRAME_HEADER.size:
        raise ValueError("it broke off in the middle of a message")
    (size,) = FRAME_HEADER.unpack(header)
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {size} bytes, where {MAX_FRAME_BYTES} are the limit")
    body = stream.read(size)
    if len(body) < size:
        raise ValueError("it broke off in the middle of a message")
    return COMMAND.validate_json(body)


def _reason(error: ValueError) -> str:
    """What is wrong and where; never the values, which are people's words."""
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, detail['loc'])) or 'message'}: {detail['msg']}" for detail in details[:3])
