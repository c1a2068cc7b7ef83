"""What has happened since the server started, as counts. Knows nothing about how they are shown."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from ..contract.schemas import JobState
from ..contract.stages import EngineName, Stage

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets of stage times."""


@dataclass
class StageTally:
    """How long one stage took: how many times per bucket (the last one is unbounded), and in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0


class Tally:
    """Counts of one server. Owned by the job service."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[EngineName, JobState]] = Counter()
        self.stages: dict[tuple[EngineName, Stage], StageTally] = {}

    def stage_ended(self, engine: EngineName, stage: Stage, seconds: float) -> None:
        """One stage was finished in `seconds`."""
        stages = self.stages.setdefault((engine, stage), StageTally())
        stages.counts[bisect_left(BOUNDS_S, seconds)] += 1
        stages.total_s += max(0.0, seconds)
