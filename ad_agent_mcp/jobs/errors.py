"""What callers are told when a job cannot start or has to end: each in its own words, with the way on."""

import math
import time

from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo, Fix
from ..contract.texts import Text, say
from ..files import is_disk_full, is_out_of_files
from .job import Job

OCCUPIED_RETRY_S = 60
CONTENDED_RETRY_S = 5
STOPPED = ErrorInfo(code=ErrorCode.CANCELLED, message="")
"""Why a job ends that was asked to; nobody is told it as an error."""


def busy(job: Job, *, waiting: int = 0, is_elsewhere: bool = False) -> AdAgentError:
    """The refusal while `job` has the worker, and `waiting` more wait for it."""
    after = max(1, math.ceil(job.ends_at - time.time())) if job.ends_at is not None else 5
    known = {"job_id": job.id, "state": say(f"jobs.state_{job.status}"), "seconds": after}
    if is_elsewhere:
        told = say("jobs.busy_elsewhere", **known, server=job.owner)
    else:
        told = say("jobs.busy_queue", **known, waiting=waiting) if waiting else say("jobs.busy", **known)
    return AdAgentError(
        ErrorCode.BUSY,
        told,
        retry_after_seconds=after,
        job_id=job.id,
        fix=Fix(tool="status", arguments={"job_id": job.id, "wait_seconds": min(50, after)}),
    )


def occupied(server: str) -> AdAgentError:
    """The refusal while another server runs nothing, but has its models on the device."""
    return AdAgentError(ErrorCode.BUSY, say("jobs.occupied", server=server), retry_after_seconds=OCCUPIED_RETRY_S)


def contended(job_id: str, waited_s: float, holder: str) -> AdAgentError:
    """The refusal while another server, as `holder` tells it, does not come to the end of a decision of its own."""
    name = holder or say("jobs.contended_unnamed")
    told = say("jobs.contended", holder=name, waited=waited_s, seconds=CONTENDED_RETRY_S)
    return AdAgentError(ErrorCode.BUSY, told, retry_after_seconds=CONTENDED_RETRY_S, job_id=job_id)


def not_waiting(job: Job) -> AdAgentError:
    """The refusal of a decision about a job that asks for none."""
    return AdAgentError(
        ErrorCode.INVALID_REQUEST,
        say("jobs.not_waiting", job_id=job.id, state=say(f"jobs.state_{job.status}")),
        job_id=job.id,
        fix=Fix(tool="status", arguments={"job_id": job.id}),
    )


def broken(job: Job, error: Exception) -> ErrorInfo:
    """The server itself failed to follow the job; what its own errors say stays in their words."""
    if isinstance(error, AdAgentError):
        return error.info.model_copy(update={"job_id": job.id})
    if isinstance(error, OSError) and is_disk_full(error):
        return _cut_off(job, ErrorCode.STORAGE_FULL, say("jobs.broken_disk_full"))
    reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__  # its words may hold paths
    return _cut_off(job, ErrorCode.ENGINE_FAILED, say("jobs.broken", reason=reason))


def crashed(job: Job, how: Text) -> ErrorInfo:
    """The worker died; `how` follows a colon."""
    return _cut_off(job, ErrorCode.WORKER_CRASHED, say("jobs.crashed", how=how))


def stalled(job: Job, limit_s: float) -> ErrorInfo:
    """The worker was silent for too long."""
    return _cut_off(job, ErrorCode.WORKER_STALLED, say("jobs.stalled", seconds=limit_s))


def out_of_files(error: BaseException) -> ErrorInfo | None:
    """What callers are told where `error`, whatever it was made into, began with a file that could not be opened."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and is_out_of_files(cause):
            return AdAgentError(ErrorCode.BUSY, say("jobs.out_of_files"), retry_after_seconds=5).info
        cause = cause.__cause__ or cause.__context__
    return None


def interrupted(job: Job) -> ErrorInfo:
    """The job's server died, and the job may not go on by itself."""
    return _cut_off(job, ErrorCode.INTERRUPTED, say("jobs.interrupted"))


def _cut_off(job: Job, code: ErrorCode, what: Text) -> ErrorInfo:
    fix = Fix(tool="generate", arguments={"resume_job_id": job.id})
    return AdAgentError(code, say("jobs.cut_off", what=what, job_id=repr(job.id)), fix=fix).info
