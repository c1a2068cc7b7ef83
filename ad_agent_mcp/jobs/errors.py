"""What callers are told when a job cannot start or has to end: each in its own words, with the way on."""

import math
import time

from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo, Fix
from ..files import is_disk_full, is_out_of_files
from .job import Job

OCCUPIED_RETRY_S = 60
CONTENDED_RETRY_S = 5
STOPPED = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")


def busy(job: Job, *, waiting: int = 0, is_elsewhere: bool = False) -> AdAgentError:
    """The refusal while `job` has the worker, and `waiting` more wait for it."""
    where = f" in another server on this data folder (server {job.owner})" if is_elsewhere else ""
    queue = f" and {waiting} more wait" if waiting else ""
    after = max(1, math.ceil(job.ends_at - time.time())) if job.ends_at is not None else 5
    return AdAgentError(
        ErrorCode.BUSY,
        f"Job {job.id} is {job.status}{where}{queue}; one runs at a time. Call again in about {after} s, "
        f"or stop that job{' there' if is_elsewhere else ''}.",
        retry_after_seconds=after,
        job_id=job.id,
        fix=Fix(tool="status", arguments={"job_id": job.id, "wait_seconds": min(50, after)}),
    )


def occupied(server: str) -> AdAgentError:
    """The refusal while another server runs nothing, but has its models on the device."""
    return AdAgentError(
        ErrorCode.BUSY,
        f"Another server on this data folder (server {server}) runs no job, but its models still occupy the GPU. Use "
        "that server, or end it; or wait: it unloads them after being idle for its AD_AGENT_IDLE_UNLOAD_S.",
        retry_after_seconds=OCCUPIED_RETRY_S,
    )


def contended(job_id: str, waited_s: float, holder: str) -> AdAgentError:
    """The refusal while another server, as `holder` tells it, does not come to the end of a decision of its own."""
    return AdAgentError(
        ErrorCode.BUSY,
        f"Another server on this data folder ({holder or 'unnamed'}) has been deciding about a job for {waited_s:g} s. "
        f"Nothing was changed. Call again in {CONTENDED_RETRY_S} s; if it stays so, end that server.",
        retry_after_seconds=CONTENDED_RETRY_S,
        job_id=job_id,
    )


def not_waiting(job: Job) -> AdAgentError:
    """The refusal of a decision about a job that asks for none."""
    return AdAgentError(
        ErrorCode.INVALID_REQUEST,
        f"Job {job.id} is {job.status} and does not wait for approval.",
        job_id=job.id,
        fix=Fix(tool="status", arguments={"job_id": job.id}),
    )


def broken(job: Job, error: Exception) -> ErrorInfo:
    """The server itself failed to follow the job; what its own errors say stays in their words."""
    if isinstance(error, AdAgentError):
        return error.info.model_copy(update={"job_id": job.id})
    if isinstance(error, OSError) and is_disk_full(error):
        return _cut_off(job, ErrorCode.STORAGE_FULL, "The disk that holds the data folder is full. Free some space.")
    reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__  # its words may hold paths
    what = f"The server could not go on with this job ({reason}); its log has the details."
    return _cut_off(job, ErrorCode.ENGINE_FAILED, what)


def crashed(job: Job, how: str) -> ErrorInfo:
    """The worker died; `how` follows a colon."""
    return _cut_off(job, ErrorCode.WORKER_CRASHED, f"The worker process died while it worked on this job: {how}.")


def stalled(job: Job, limit_s: float) -> ErrorInfo:
    """The worker was silent for too long."""
    what = f"The worker said nothing for {limit_s:g} s (AD_AGENT_STALL_TIMEOUT_S) and was replaced."
    return _cut_off(job, ErrorCode.WORKER_STALLED, what)


def out_of_files(error: BaseException) -> ErrorInfo | None:
    """What callers are told where `error`, whatever it was made into, began with a file that could not be opened."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and is_out_of_files(cause):
            return ErrorInfo(
                code=ErrorCode.BUSY,
                message="The server has run out of file descriptors: too many connections or files are open. Try again "
                "in a few seconds; whoever runs the server may raise its limit (ulimit -n).",
                retry_after_seconds=5,
            )
        cause = cause.__cause__ or cause.__context__
    return None


def interrupted(job: Job) -> ErrorInfo:
    """The job's server died, and the job may not go on by itself."""
    return _cut_off(job, ErrorCode.INTERRUPTED, "The server that ran this job ended before the job did.")


def _cut_off(job: Job, code: ErrorCode, what: str) -> ErrorInfo:
    return ErrorInfo(
        code=code,
        message=f"{what} Finished steps are kept: call generate with resume_job_id={job.id!r} to go on from there.",
        fix=Fix(tool="generate", arguments={"resume_job_id": job.id}),
    )
