"""How a preset's models take turns on the device, computed before anything is loaded. Arithmetic on sizes alone.

The schedule is the one by which models are moved when a job runs; told is a job that comes after another like it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..contract.stages import Stage
from ..contract.texts import Text, say
from .preset import GIB, MEGAPIXEL, Preset
from .schedule import Part, Schedule, Step

CONTEXT_BYTES = int(0.75 * GIB)
"""Of the device's memory, what the driver takes besides."""
HOST_RESERVE_BYTES = 4 * GIB
"""Of the host's free memory, what is left to the processes themselves."""

Verdict = Literal["fits", "fits_with_moves", "does_not_fit"]


@dataclass(frozen=True)
class StagePlan:
    """One stage: bytes of weights and bytes at most on the device, and weights that come in and go for it."""

    stage: str
    resident_bytes: int
    peak_bytes: int
    moves_in_bytes: int
    moves_out_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """The whole job.

    Attributes:
        stages: those that run models, in order.
        host_bytes: host memory for copies of what has to come back.
        why: the verdict in words.
    """

    stages: tuple[StagePlan, ...]
    host_bytes: int
    verdict: Verdict
    why: Text


def vram_budget(setting_gb: float | None, free_bytes: int) -> int:
    """Device memory that models may use: the setting, or what is free less the driver's share."""
    return int(setting_gb * GIB) if setting_gb else max(0, free_bytes - CONTEXT_BYTES)


def host_budget(setting_gb: float | None, free_bytes: int) -> int:
    """Host memory that copies of models may use: the setting, or what is free less the processes' own."""
    return int(setting_gb * GIB) if setting_gb else max(0, free_bytes - HOST_RESERVE_BYTES)


def plan_memory(
    preset: Preset,
    sizes: Mapping[str, Sequence[int]],
    *,
    vram_budget: int,
    host_budget: int,
    is_jit: bool = False,
    pixels: int = MEGAPIXEL,
) -> MemoryPlan:
    """Plan a whole job.

    Args:
        preset: which models run in which stage, and what they need besides their weights.
        sizes: bytes of each component's segments.
        vram_budget: device memory to stay within, in bytes.
        host_budget: host memory for copies of models; what is beyond it is read from disk.
        is_jit: nothing stays on the device or in host memory from one stage to the next.
        pixels: of the picture.
    """
    parts = [
        Part(f"{component.name}/{index}", component.name, size, component.stream)
        for component in preset.components
        for index, size in enumerate(sizes.get(component.name, ()))
    ]
    uses = preset.uses(tuple(Stage), pixels)
    schedule = Schedule(parts, uses, budget_bytes=vram_budget)
    steps = schedule.simulate(is_jit=is_jit)[-len(uses) :]
    for step in steps:
        if step.moves.lacking_bytes:
            needed = (vram_budget + step.moves.lacking_bytes) / GIB
            why = say("models.plan_lacks", stage=step.use.stage, needed=needed, budget=vram_budget / GIB)
            return MemoryPlan((), 0, "does_not_fit", why)
    plans = [_stage(step, schedule, index, is_jit=is_jit) for index, step in enumerate(steps)]
    returning = {part for step in steps for part in (*step.moves.loaded, *step.ahead)}
    streamed = {part for index in range(len(uses)) for part in schedule.streamed(index)}
    copies = [] if is_jit else schedule.host_copies(host_budget)
    moved = sum(plan.moves_in_bytes for plan in plans)
    why = say("models.plan_moves" if returning else "models.plan_stays", moved=moved / GIB)
    if is_jit:
        why = say("models.plan_from_disk", plan=why)
    elif lacking := sorted((returning | streamed) - set(copies)):
        models = dict.fromkeys(schedule.parts[part].model for part in lacking)
        lacking_gib = schedule.size(lacking) / GIB
        why = say("models.plan_partly_from_disk", plan=why, lacking=lacking_gib, models=list(models))
    verdict = "fits_with_moves" if returning else "fits"
    return MemoryPlan(tuple(plans), schedule.size(copies), verdict, why)


def _stage(step: Step, schedule: Schedule, index: int, *, is_jit: bool) -> StagePlan:
    resident = step.peak_bytes - step.use.workspace_bytes
    moved_in = schedule.size((*step.moves.loaded, *step.ahead, *schedule.streamed(index)))
    moved_out = resident if is_jit else schedule.size(step.moves.evicted)
    return StagePlan(step.use.stage, resident, step.peak_bytes, moved_in, moved_out)


def rows(plan: MemoryPlan) -> Iterator[tuple[str, ...]]:
    """The plan as a table: each stage with its weights, its peak, what comes in and what goes, in GiB."""
    for stage in plan.stages:
        numbers = (stage.resident_bytes, stage.peak_bytes, stage.moves_in_bytes, stage.moves_out_bytes)
        yield str(stage.stage), *(f"{number / GIB:.1f}" for number in numbers)
