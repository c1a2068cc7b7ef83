"""What the fake workers share: frames on stdin and stdout."""

import os
import sys
from typing import Any

from ad_agent_mcp.contract.messages import (
    COMMAND,
    FRAME_HEADER,
    Command,
    JobDone,
    Message,
    Ready,
    StageProgress,
    StartJob,
    StepResult,
    encode,
)
from ad_agent_mcp.contract.stages import STAGES, EngineName
from ad_agent_mcp.engines.draft.info import INFO


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


def ready(**fields: Any) -> None:
    told = {"pid": os.getpid(), "engine": EngineName.DRAFT, "device": "cpu", "presets": ("draft",), "engines": (INFO,)}
    send(Ready.model_validate({**told, **fields}))


def open_first_stage(job: StartJob) -> None:
    send(StageProgress(job_id=job.job_id, stage=job.plan.stages[0].stage, done=0, total=4))


def complete(job: StartJob) -> None:
    for step in job.plan.steps:
        for planned in job.plan.stages:
            if STAGES[planned.stage].step == step:
                for done in (0, 1):
                    send(StageProgress(job_id=job.job_id, stage=planned.stage, done=done, total=1))
        send(StepResult(job_id=job.job_id, step=step, files={}, width=256, height=256))
    send(JobDone(job_id=job.job_id))
