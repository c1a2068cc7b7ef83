"""What the fake workers share: frames on stdin and stdout."""

import os
import sys

from ad_agent_mcp.contract.messages import (
    COMMAND,
    FRAME_HEADER,
    Command,
    Message,
    Ready,
    StageProgress,
    StartJob,
    encode,
)
from ad_agent_mcp.contract.stages import EngineName


def send(message: Message) -> None:
    os.write(1, encode(message))


def receive() -> Command:
    header = sys.stdin.buffer.read(FRAME_HEADER.size)
    if not header:
        sys.exit(0)
    return COMMAND.validate_json(sys.stdin.buffer.read(FRAME_HEADER.unpack(header)[0]))


def next_job() -> StartJob:
    while True:
        command = receive()
        if isinstance(command, StartJob):
            return command


def ready() -> None:
    send(Ready(pid=os.getpid(), engine=EngineName.DRAFT, device="cpu", presets=("draft",)))


def open_first_stage(job: StartJob) -> None:
    send(StageProgress(job_id=job.job_id, stage=job.plan.stages[0].stage, done=0, total=4))
