"""What has happened since the server started, as counts. Knows nothing about how they are shown."""

from bisect import bisect_left
from collections import Counter, defaultdict

from ..contract.schemas import JobState
from ..contract.stages import EngineName, Stage

BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets of stage times; the last bucket has none."""


class Counters:
    """Counts of one server. Owned by the job service."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[EngineName, JobState]] = Counter()
        self.stages: dict[tuple[EngineName, Stage], list[int]] = {}
        """How often each stage took how long, per bucket."""
        self.stage_seconds: defaultdict[tuple[EngineName, Stage], float] = defaultdict(float)

    def stage_ended(self, engine: EngineName, stage: Stage, seconds: float) -> None:
        """One stage was finished in `seconds`."""
        counts = self.stages.setdefault((engine, stage), [0] * (len(BOUNDS_S) + 1))
        counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.stage_seconds[engine, stage] += seconds
