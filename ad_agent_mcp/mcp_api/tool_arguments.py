"""What the tools other than `generate` take. Descriptions are what an agent reads, so they are short."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..contract.schemas import JobState, LayerName
from ..media.encode import PictureFormat

IncludeImages = Literal["none", "preview", "full"]
WaitSeconds = Annotated[int, Field(ge=0, le=50, description="How long this call may wait for the job")]


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Nothing(_Arguments):
    """No arguments."""


class StatusArguments(_Arguments):
    """Which job, how long to wait, which pictures."""

    job_id: Annotated[str | None, Field(description="null: the latest")] = None
    wait_seconds: WaitSeconds = 0
    include_images: Annotated[
        IncludeImages | None, Field(description="null: preview when finished, else none. full: base64 JPEGs")
    ] = None


class StopArguments(_Arguments):
    """Which job, and how firmly."""

    job_id: Annotated[str | None, Field(description="null: the latest that runs or is queued")] = None
    force: Annotated[bool, Field(description="Do not wait for the worker; replace it")] = False


class ApproveArguments(_Arguments):
    """What to do with a job that waits."""

    job_id: Annotated[str | None, Field(description="null: the latest that waits")] = None
    action: Annotated[
        Literal["approve", "redo", "stop"] | None, Field(description="null: ask the person, where the client can")
    ] = None
    changes: Annotated[
        dict[str, Any], Field(description="For redo: generate fields with new values, e.g. {'bg_prompt': '...'}")
    ] = Field(default_factory=dict[str, Any])


class Answer(BaseModel):
    """What a person who was asked says."""

    action: Annotated[
        Literal["approve", "redo", "stop"],
        Field(description="approve: go on. redo: paint it again. stop: end here, the picture is kept"),
    ] = "approve"


class ImageArguments(_Arguments):
    """Which picture, how large."""

    job_id: Annotated[str | None, Field(description="null: the latest finished")] = None
    name: LayerName = "final"
    max_side: Annotated[int, Field(ge=16, le=2048, description="Longest side in px")] = 1024
    format: PictureFormat = "jpeg"


class ListArguments(_Arguments):
    """Which jobs."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    status: JobState | None = None
