"""Commands as they arrive: jobs to run, and the ids the server wants stopped.

Read by a thread of its own, so that a cancel is seen while the main thread is inside a model. A set of ids
has neither race of a shared flag: a cancel may overtake its job, or come after it.
"""

import os
import queue
from typing import BinaryIO

from ..contract.errors import Cancelled
from ..contract.messages import (
    COMMAND,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    CancelJob,
    Command,
    Shutdown,
    StartJob,
    UnloadModels,
)

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

    def read(self, stream: BinaryIO) -> None:
        """Thread body. A closed or torn stream means that the server is gone: the process ends at once.

        Every file is written atomically, so nothing is lost by not saying goodbye.
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
        finally:  # whatever ended the stream, a worker that cannot hear is of no use
            os._exit(0)


def _read_command(stream: BinaryIO) -> Command | None:
    header = stream.read(FRAME_HEADER.size)
    if len(header) < FRAME_HEADER.size:
        return None
    (size,) = FRAME_HEADER.unpack(header)
    if size > MAX_FRAME_BYTES:
        return None
    body = stream.read(size)
    return COMMAND.validate_json(body) if len(body) == size else None
