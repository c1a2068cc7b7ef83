"""What a server knows of the engines of its machine before a worker tells: what they do, and how long that takes.

Times are measured; until there are some, they are what the engine expects.
"""

import logging
import math
import statistics
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from ..contract.schemas import JobState
from ..contract.stages import CANVAS_FREE, EngineInfo, EngineName, Plan, Stage
from ..files import read_small, write_atomically
from .job import Estimate, Job

logger = logging.getLogger(__name__)

REMEMBERED = 9
"""Latest times kept of a kind; their median is the expectation."""
NOMINAL_PIXELS = 1024 * 1024

MAX_BYTES = 4 << 20
Times = Annotated[
    list[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]], Field(min_length=1, max_length=REMEMBERED)
]
Pixels = Annotated[int, Field(gt=0, le=2**40)]


class LoadState(StrEnum):
    """What a job finds: no worker yet, one that has run nothing, or one that has run the job's engine."""

    STARTING = "starting"
    COLD = "cold"
    WARM = "warm"


class _Known(BaseModel):
    """What engines said of themselves, by engine and preset, and seconds by engine, preset and stage.

    Seconds are those of one iteration's work by size of canvas, and of the wait for models before.
    """

    engines: dict[str, EngineInfo] = Field(default_factory=dict[str, EngineInfo])

    work_s: dict[str, dict[Pixels, Times]] = Field(default_factory=dict[str, dict[Pixels, Times]])
    lead_s: dict[str, dict[LoadState, Times]] = Field(default_factory=dict[str, dict[LoadState, Times]])


class StageTimes:
    """What stages took and will take. Owned by the job service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = _Known.model_validate_json(read_small(path, max_bytes=MAX_BYTES))
        except (OSError, ValueError):
            self._known = _Known()

    def introduce(self, infos: Iterable[EngineInfo]) -> None:
        """Take in what engines say of themselves; it is written with the times."""
        said = {f"{info.name}/{info.preset}": info for info in infos}
        self._known.engines = {**self._known.engines, **said}

    def engine(self, name: EngineName, preset: str) -> EngineInfo | None:
        """What that engine said of itself last, on this machine; None while it never did."""
        return self._known.engines.get(f"{name}/{preset}")

    def expect(self, plan: Plan, info: EngineInfo, *, pixels: int, found: LoadState) -> dict[Stage, Estimate]:
        """What each stage of `plan` should take at `pixels` canvas pixels on the engine that it was made for."""
        return {
            planned.stage: Estimate(
                lead_s=self._lead_s(info, planned.stage, found),
                work_s=self._work_s(info, planned.stage, _size(planned.stage, pixels)) * planned.iterations,
            )
            for planned in plan.stages
        }

    def learn(self, job: Job, after: Job, *, at: float, found: LoadState) -> tuple[Stage, float] | None:
        """Remember the stage that ended as `job` became `after`, if one did; it is given back with its seconds.

        A stage ends when the next one begins or its job rests, so that saving what it made counts.
        """
        plan, stage = job.plan, job.stage
        if stage is None or stage is after.stage or after.status in (JobState.FAILED, JobState.STOPPED):
            return None
        if plan is None or job.stage_since is None or job.work_since is None:
            return None
        if not job.stage_since <= job.work_since <= at:
            return None  # the clock was set back
        iterations = next(planned.iterations for planned in plan.stages if planned.stage is stage)
        key, pixels = _key(plan.engine, plan.preset, stage), _size(stage, job.request.width * job.request.height)
        size = _class_of(pixels)
        works = self._known.work_s.setdefault(key, {})
        leads = self._known.lead_s.setdefault(key, {})
        # New lists, for others may be reading: in threads, what waiting jobs are told.
        works[size] = _remembered(works.get(size), (at - job.work_since) / iterations * size / pixels)
        leads[found] = _remembered(leads.get(found), job.work_since - job.stage_since)
        return stage, at - job.stage_since

    def save(self) -> None:
        """Write the times to disk; a failure costs only accuracy and is logged."""
        try:
            write_atomically(self._path, self._known.model_dump_json().encode(), durable=False)
        except OSError as error:
            logger.warning("stage times were not saved: %s", error)

    def _lead_s(self, info: EngineInfo, stage: Stage, found: LoadState) -> float:
        known = self._known.lead_s.get(_key(info.name, info.preset, stage), {}).get(found)
        if known:
            return statistics.median(known)
        return 0.0 if found is LoadState.WARM else info.stages[stage].load_s

    def _work_s(self, info: EngineInfo, stage: Stage, pixels: int) -> float:
        """Seconds of one iteration, from the nearest size that is known."""
        known = self._known.work_s.get(_key(info.name, info.preset, stage))
        known = known or {NOMINAL_PIXELS: [info.stages[stage].prior_s]}
        nearest = min(list(known), key=lambda size: abs(math.log(size / pixels)))
        return statistics.median(known[nearest]) * pixels / nearest


def _remembered(times: list[float] | None, latest_s: float) -> list[float]:
    return [*(times or ()), round(latest_s, 5)][-REMEMBERED:]


def _key(engine: EngineName, preset: str, stage: Stage) -> str:
    return f"{engine}/{preset}/{stage}"


def _size(stage: Stage, pixels: int) -> int:
    """The canvas pixels that count for `stage`: small ones take as long as a quarter of a megapixel."""
    return NOMINAL_PIXELS if stage in CANVAS_FREE else max(pixels, NOMINAL_PIXELS // 4)


def _class_of(pixels: int) -> int:
    """The size under which a time is remembered: few of them, so that the file stays small whatever is asked for."""
    return NOMINAL_PIXELS * 2 ** round(math.log2(pixels / NOMINAL_PIXELS) + 2) // 4
