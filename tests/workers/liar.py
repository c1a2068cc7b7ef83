"""Says of its first job what its argument names and cannot be, and completes every job as it should."""

import sys

from ad_agent_mcp.contract.messages import JobDone, StageProgress, StartJob, StepResult

from . import wire


def lie(job: StartJob) -> None:
    match sys.argv[1]:
        case "done before any step":
            wire.send(JobDone(job_id=job.job_id))
        case "a step it was not given":
            wire.send(StepResult(job_id=job.job_id, step=3, files={}, width=256, height=256))
        case "more iterations than there are":
            stage = job.plan.stages[0].stage
            wire.send(StageProgress(job_id=job.job_id, stage=stage, done=10**400, total=1))
        case "very many iterations":
            stage = job.plan.stages[0].stage
            wire.send(StageProgress(job_id=job.job_id, stage=stage, done=10**400, total=10**401))
        case _:
            raise ValueError(sys.argv)


wire.ready()
while True:
    job = wire.next_job()
    if job.request.bg_prompt == "lie":
        lie(job)
    wire.complete(job)
