"""What the server and the worker say to each other: length-prefixed JSON, a closed union each way.

A frame is four bytes (big-endian length) and that many bytes of JSON. Pictures never travel here, only
paths. `extra="forbid"` makes a drift between the two sides an error at once.
"""

import struct
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from .call import GenerateRequest
from .errors import ErrorInfo
from .record import Record
from .schemas import Check
from .stages import EngineInfo, EngineName, Plan, Stage
from .texts import KeptText, MessageText, Text

PROTOCOL_VERSION = 2
MAX_FRAME_BYTES = 4 << 20
UNREADABLE_EXIT = 76
"""Exit status of a worker that could not read what the server sent; sysexits.h calls it EX_PROTOCOL."""
EVERY_MODEL = "all"
"""In place of a model's name: nothing is on the device any more."""
FRAME_HEADER = struct.Struct(">I")


class Message(Record):
    """Base of all messages."""


class Inputs(Message):
    """The pictures a job starts from, as files. `has_step1_layers`: `out_dir` holds step 1's layers."""

    product: Path | None = None
    step1: Path | None = None
    step2: Path | None = None
    has_step1_layers: bool = False


class StartJob(Message):
    """Run `plan` for one job and write its layers into `out_dir`."""

    type: Literal["start_job"] = "start_job"
    job_id: str
    request: GenerateRequest
    plan: Plan
    inputs: Inputs
    out_dir: Path


class CancelJob(Message):
    """Stop this job at its next iteration; it may not have arrived yet, or be over."""

    type: Literal["cancel_job"] = "cancel_job"
    job_id: str


class UnloadModels(Message):
    """Let go of every model that is resident."""

    type: Literal["unload_models"] = "unload_models"


class Shutdown(Message):
    """End the process."""

    type: Literal["shutdown"] = "shutdown"


class Ready(Message):
    """The first word of a worker.

    `engine` is the one that jobs get, `note` says why, `refusal` why it cannot run them as things are; `engines` are
    those that can.
    """

    type: Literal["ready"] = "ready"
    protocol: int = PROTOCOL_VERSION
    pid: int
    engine: EngineName
    device: str
    presets: tuple[str, ...]
    note: Text | str = ""
    refusal: Text | str | None = None
    engines: tuple[EngineInfo, ...] = ()


class StageProgress(Message):
    """`done` of `total` iterations of `stage` are finished; 0 opens the stage, `total` closes it."""

    type: Literal["stage_progress"] = "stage_progress"
    job_id: str
    stage: Stage
    done: int = Field(ge=0)
    total: int = Field(ge=1)


class StepResult(Message):
    """A step is finished and its layers are on disk; `files` maps layer names to their SHA-256."""

    type: Literal["step_result"] = "step_result"
    job_id: str
    step: int = Field(ge=1, le=3)
    files: dict[str, str]
    width: int
    height: int


class ModelMoved(Message):
    """A model begins to load, is on the device, or has left it; 0 `bytes` loaded: it passes through as it runs."""

    type: Literal["model_moved"] = "model_moved"
    model: str
    state: Literal["loading", "loaded", "unloaded"]
    bytes: int = 0
    seconds: float = 0.0


class JobNotice(Message):
    """Something the caller should know; the job goes on."""

    type: Literal["notice"] = "notice"
    job_id: str
    code: str
    message: MessageText
    text: KeptText = None


class JobDone(Message):
    """Every stage of the plan ran."""

    type: Literal["job_done"] = "job_done"
    job_id: str
    checks: tuple[Check, ...] = ()


class JobFailed(Message):
    """The job ended early; code `cancelled` when it was asked to. `ends_worker`: and the worker ends with it."""

    type: Literal["job_failed"] = "job_failed"
    job_id: str
    error: ErrorInfo
    checks: tuple[Check, ...] = ()
    ends_worker: bool = False


Command = StartJob | CancelJob | UnloadModels | Shutdown
JobEvent = StageProgress | StepResult | JobNotice | JobDone | JobFailed
Event = Ready | ModelMoved | JobEvent

COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def encode(message: Message) -> bytes:
    """One message as one frame.

    Raises:
        ValueError: the frame would be larger than `MAX_FRAME_BYTES`.
    """
    body = message.model_dump_json(by_alias=True).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is over the {MAX_FRAME_BYTES} byte limit")
    return FRAME_HEADER.pack(len(body)) + body
