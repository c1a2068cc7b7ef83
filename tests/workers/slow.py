"""Never finishes the first stage: iterates ten times a second, and obeys a cancel at once."""

import queue
import threading

from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import CancelJob, Command, JobFailed, StageProgress, StartJob

from . import wire

TOTAL = 1000

inbox: queue.Queue[Command] = queue.Queue()


def listen() -> None:
    while True:
        inbox.put(wire.receive())


def run(job: StartJob) -> None:
    for done in range(TOTAL):
        wire.send(StageProgress(job_id=job.job_id, stage=job.plan.stages[0].stage, done=done, total=TOTAL))
        try:
            command = inbox.get(timeout=0.1)
        except queue.Empty:
            continue
        if isinstance(command, CancelJob) and command.job_id == job.job_id:
            error = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")
            wire.send(JobFailed(job_id=job.job_id, error=error))
            return


threading.Thread(target=listen, daemon=True).start()
wire.ready()
while True:
    command = inbox.get()
    if isinstance(command, StartJob):
        run(command)
