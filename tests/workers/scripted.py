"""Does what a job's `bg_prompt` says: `complete` it, `fail` it, `crash`, or `wait` until it is cancelled."""

import os
import signal

from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import CancelJob, JobFailed, StartJob

from . import wire


def end(job: StartJob, code: ErrorCode) -> None:
    wire.send(JobFailed(job_id=job.job_id, error=ErrorInfo(code=code, message="as told")))


wire.ready()
while True:
    job = wire.next_job()
    wire.open_first_stage(job)
    match job.request.bg_prompt:
        case "complete":
            wire.complete(job)
        case "fail":
            end(job, ErrorCode.OUT_OF_MEMORY)
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            while not isinstance(wire.receive(), CancelJob):
                pass
            end(job, ErrorCode.CANCELLED)
