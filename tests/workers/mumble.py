"""Says half a line on its stderr before it is ready, and the rest when it is given a job."""

import os

from ad_agent_mcp.contract.messages import JobDone

from . import wire

os.write(2, b"one half ")
wire.ready()
job = wire.next_job()
os.write(2, "and 나머지\nno end".encode())
wire.send(JobDone(job_id=job.job_id))
