"""How long stages take on this machine: measured times on disk, shipped priors until there are some."""

import json
import logging
import statistics
from pathlib import Path

from ..contract.stages import NOMINAL_ITERATIONS, STAGES, Plan, Stage
from ..files import write_atomically

logger = logging.getLogger(__name__)

REMEMBERED = 9
"""Latest times kept per stage and kind; their median is the expectation."""


class StageTimes:
    """Seconds per stage by engine, preset and picture size. Owned by the job service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times: dict[str, list[float]] = _read(path)

    def expected_s(self, plan: Plan, *, pixels: int) -> dict[Stage, float]:
        """Seconds that each stage of `plan` should take at `pixels` canvas pixels."""
        return {planned.stage: self._expect(plan, planned.stage, planned.iterations, pixels) for planned in plan.stages}

    def record(self, plan: Plan, stage: Stage, seconds: float, *, pixels: int) -> None:
        """Remember one finished stage, in memory; `save` keeps it."""
        iterations = next((planned.iterations for planned in plan.stages if planned.stage is stage), 1)
        times = self._times.setdefault(_key(plan, stage, pixels), [])
        times.append(round(seconds / iterations, 5))
        del times[:-REMEMBERED]

    def save(self) -> None:
        """Write the times to disk; a failure costs only accuracy and is logged."""
        try:
            write_atomically(self._path, json.dumps(self._times).encode(), durable=False)
        except OSError as error:
            logger.warning("stage times were not saved: %s", error)

    def _expect(self, plan: Plan, stage: Stage, iterations: int, pixels: int) -> float:
        known = self._times.get(_key(plan, stage, pixels))
        if known:
            return statistics.median(known) * iterations
        prior = STAGES[stage].prior_s[plan.engine] / NOMINAL_ITERATIONS[plan.engine].get(stage, 1)
        return prior * iterations * max(0.25, pixels / (1024 * 1024))


def _key(plan: Plan, stage: Stage, pixels: int) -> str:
    return f"{plan.engine}/{plan.preset}/{stage}/{round(pixels / (1024 * 1024), 1)}"


def _read(path: Path) -> dict[str, list[float]]:
    try:
        data = json.loads(path.read_bytes())
        return {str(key): [float(value) for value in values] for key, values in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
