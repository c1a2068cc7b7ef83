"""Does what a job's `bg_prompt` says: `complete` it, `fail` it, `crash`, or `wait` until it is cancelled."""

import os
import signal

from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import CancelJob, JobDone, JobFailed, StageProgress, StartJob, StepResult
from ad_agent_mcp.contract.stages import STAGES

from . import wire


def complete(job: StartJob) -> None:
    for step in job.plan.steps:
        for planned in job.plan.stages:
            if STAGES[planned.stage].step == step:
                for done in (0, 1):
                    wire.send(StageProgress(job_id=job.job_id, stage=planned.stage, done=done, total=1))
        wire.send(StepResult(job_id=job.job_id, step=step, files={}, width=256, height=256))
    wire.send(JobDone(job_id=job.job_id))


def end(job: StartJob, code: ErrorCode) -> None:
    wire.send(JobFailed(job_id=job.job_id, error=ErrorInfo(code=code, message="as told")))


wire.ready()
while True:
    job = wire.next_job()
    wire.open_first_stage(job)
    match job.request.bg_prompt:
        case "complete":
            complete(job)
        case "fail":
            end(job, ErrorCode.OUT_OF_MEMORY)
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            while not isinstance(wire.receive(), CancelJob):
                pass
            end(job, ErrorCode.CANCELLED)
