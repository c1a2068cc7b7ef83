"""What a client is told about a job: public names, which are the product's contract."""

from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

from .errors import Fix
from .record import Record
from .texts import KeptText, MessageText

LayerName = Literal["product", "cutout", "background", "shadow", "step1", "step2", "final"]
LAYER_NAMES = get_args(LayerName)


class JobState(StrEnum):
    """Where a job stands, as clients see it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_terminal(self) -> bool:
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.STOPPED)


class Notice(Record):
    """Something a caller should know although the job goes on."""

    code: str
    message: MessageText
    text: KeptText = None


class Check(Record):
    """One measured property of a finished ad; `passed` is null where it does not apply."""

    model_config = ConfigDict(populate_by_name=True)

    name: str
    passed: Annotated[bool | None, Field(alias="pass")]
    value: float | None = None
    limit: float | None = None
    fix: Fix | None = None
