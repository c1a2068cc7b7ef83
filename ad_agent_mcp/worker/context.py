"""A running job's way to tell the server what happens, and to learn that it is to stop."""

import logging
import os
import sys
import threading
from dataclasses import dataclass
from typing import Self

from ..contract.errors import Cancelled
from ..contract.messages import JobNotice, Message, ModelMoved, StageProgress, StartJob, StepResult, encode
from ..contract.stages import Stage
from ..contract.texts import Text
from ..engines.base import MoveState, StageReport
from .inbox import Inbox

logger = logging.getLogger(__name__)


class Wire:
    """The one writer of the event stream."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    @classmethod
    def claim_stdout(cls) -> Self:
        """Keep stdout for events alone: whatever a library prints from now on goes to stderr."""
        sys.stdout.flush()
        private = os.dup(1)
        os.dup2(2, 1)
        return cls(private)

    def warn(self, job_id: str, code: str, text: Text) -> None:
        """Send a notice to the caller of a job; raises as `send`."""
        self.send(JobNotice(job_id=job_id, code=code, message=text.en, text=text))

    def send(self, message: Message) -> None:
        """Write one frame whole.

        Raises:
            BrokenPipeError: the server is gone.
        """
        data = memoryview(encode(message))
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class JobContext:
    """The events of one job; implements `pipeline.run.JobEvents`."""

    def __init__(self, job: StartJob, wire: Wire, inbox: Inbox) -> None:
        self._job_id = job.job_id
        self._iterations = {planned.stage: planned.iterations for planned in job.plan.stages}
        self._wire = wire
        self._inbox = inbox

    def open_stage(self, stage: Stage) -> StageReport:
        logger.info("stage %s", stage)
        report = _StageReport(self._wire, self._inbox, self._job_id, stage)
        report.iteration(0, self._iterations.get(stage, 1))
        return report

    def notice(self, code: str, text: Text) -> None:
        self._wire.warn(self._job_id, code, text)

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        logger.info("step %d finished", step)
        self._wire.send(StepResult(job_id=self._job_id, step=step, files=files, width=size[0], height=size[1]))
        self._inbox.raise_if_cancelled(self._job_id)


@dataclass(frozen=True)
class _StageReport:
    wire: Wire
    inbox: Inbox
    job_id: str = ""
    stage: Stage = Stage.CUT_OUT

    def iteration(self, done: int, total: int) -> None:
        self.inbox.raise_if_cancelled(self.job_id)
        self.wire.send(StageProgress(job_id=self.job_id, stage=self.stage, done=done, total=total))

    def notice(self, code: str, text: Text) -> None:
        self.wire.warn(self.job_id, code, text)

    def model_moved(self, model: str, state: MoveState, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        if state != "loading":
            logger.info("model %s %s: %d bytes in %.2f s", model, state, size_bytes, seconds)
        self.wire.send(ModelMoved(model=model, state=state, bytes=size_bytes, seconds=seconds))
        self.inbox.raise_if_cancelled(self.job_id)


class PreloadReport(_StageReport):
    """Tells what is loaded before there is a job; one that comes meanwhile ends it."""

    def model_moved(self, model: str, state: MoveState, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        super().model_moved(model, state, size_bytes=size_bytes, seconds=seconds)
        if self.inbox.has_work:
            raise Cancelled
