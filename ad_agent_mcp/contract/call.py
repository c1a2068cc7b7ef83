"""One call of `generate`: flat arguments, which are the ad, the engine's knobs, and what speaks of the call alone."""

from typing import Annotated, Literal

from pydantic import Field

from .ad import Ad, Knobs
from .record import Record


class Call(Record):
    """What to run, and how long the caller stays."""

    start_step: Annotated[int, Field(ge=1, le=3, description="1 scene, 2 lettering, 3 composition")] = 1
    pause_after_step: Annotated[Literal[1, 2] | None, Field(description="Wait for approve_step")] = None
    resume_job_id: Annotated[str | None, Field(max_length=64, description="Take results and settings from")] = None
    test_mode: Annotated[bool, Field(description="Run on the draft engine")] = False
    wait_seconds: Annotated[int, Field(ge=0, le=50, description="How long this call may wait")] = 0


class GenerateRequest(Call, Knobs, Ad):
    """One ad to make. Descriptions are what an agent reads; pictures are references."""
