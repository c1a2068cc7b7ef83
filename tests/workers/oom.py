"""Runs out of memory in every job, and lives."""

from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import JobFailed

from . import wire

wire.ready()
while True:
    job = wire.next_job()
    wire.open_first_stage(job)
    error = ErrorInfo(code=ErrorCode.OUT_OF_MEMORY, message="no memory left")
    wire.send(JobFailed(job_id=job.job_id, error=error))
