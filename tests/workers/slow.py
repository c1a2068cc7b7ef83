"""Never finishes the first stage: iterates ten times a second, and obeys a cancel at once."""

import queue
import threading

from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import CancelJob, JobFailed, StageProgress, StartJob

from . import wire

TOTAL = 1000

jobs: queue.Queue[StartJob] = queue.Queue()
cancels: queue.Queue[str] = queue.Queue()


def listen() -> None:
    while True:
        command = wire.receive()
        if isinstance(command, StartJob):
            jobs.put(command)
        elif isinstance(command, CancelJob):
            cancels.put(command.job_id)


def run(job: StartJob) -> None:
    for done in range(TOTAL):
        wire.send(StageProgress(job_id=job.job_id, stage=job.plan.stages[0].stage, done=done, total=TOTAL))
        try:
            cancelled = cancels.get(timeout=0.1)
        except queue.Empty:
            continue
        if cancelled == job.job_id:
            error = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")
            wire.send(JobFailed(job_id=job.job_id, error=error))
            return


threading.Thread(target=listen, daemon=True).start()
wire.ready()
while True:
    run(jobs.get())
