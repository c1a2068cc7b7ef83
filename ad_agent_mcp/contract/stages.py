"""The stages of a job, in order: which step each belongs to, its public name and its nominal duration.

Knows nothing about processes. A new stage is a row here and its body in `pipeline/`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from .record import Record


class EngineName(StrEnum):
    """The engines a job can run on."""

    DRAFT = "draft"
    DIFFUSION = "diffusion"


class Stage(StrEnum):
    """What a job does, one after the other."""

    CUT_OUT = "cut_out"
    BACKGROUND = "background"
    COMPOSITE = "composite"
    REFINE = "refine"
    TEXT_LAYOUT = "text_layout"
    TEXT_PAINT = "text_paint"
    TEXT_CUT_OUT = "text_cut_out"
    PLACEMENT = "placement"
    BLEND = "blend"
    FINISH = "finish"


class StageRow(NamedTuple):
    """One stage.

    `labels` are the public sub-step names by engine; an engine without one skips the stage.
    `prior_s` are seconds at one megapixel, used until this machine has measured its own.
    """

    step: int
    message: str
    labels: Mapping[EngineName, str]
    prior_s: Mapping[EngineName, float]


def _row(step: int, message: str, draft: tuple[str, float] | None, diffusion: tuple[str, float]) -> StageRow:
    both = {EngineName.DRAFT: draft, EngineName.DIFFUSION: diffusion}
    return StageRow(
        step,
        message,
        {engine: named[0] for engine, named in both.items() if named},
        {engine: named[1] for engine, named in both.items() if named},
    )


STAGES: Mapping[Stage, StageRow] = {
    Stage.CUT_OUT: _row(1, "Cutting the product out", ("draft_cut_out", 1.0), ("birefnet_cut_out", 2)),
    Stage.BACKGROUND: _row(1, "Painting the scene", ("draft_background", 0.4), ("flux_bg_generation", 28)),
    Stage.COMPOSITE: _row(1, "Placing the product", ("draft_composite", 0.3), ("composite", 0.5)),
    Stage.REFINE: _row(1, "Refining product and scene", ("draft_refine", 0.3), ("flux_refinement", 17)),
    Stage.TEXT_LAYOUT: _row(2, "Setting the words", ("draft_text_layout", 0.1), ("text_layout", 0.3)),
    Stage.TEXT_PAINT: _row(2, "Painting the letters", ("draft_text_paint", 0.3), ("sdxl_text_generation", 12)),
    Stage.TEXT_CUT_OUT: _row(2, "Cutting the letters out", None, ("birefnet_text_cut_out", 2)),
    Stage.PLACEMENT: _row(3, "Choosing where the words go", ("draft_placement", 0.2), ("placement", 0.3)),
    Stage.BLEND: _row(3, "Blending words and picture", ("draft_blend", 0.2), ("flux_inpainting", 12)),
    Stage.FINISH: _row(3, "Checking and saving the ad", ("draft_finish", 0.4), ("finish", 0.6)),
}

NOMINAL_ITERATIONS: Mapping[EngineName, Mapping[Stage, int]] = {
    EngineName.DRAFT: {},
    EngineName.DIFFUSION: {Stage.BACKGROUND: 28, Stage.REFINE: 17, Stage.TEXT_PAINT: 28, Stage.BLEND: 12},
}
"""Iterations that the prior durations are for, where a stage has more than one."""

PRIOR_LOAD_S: Mapping[EngineName, Mapping[Stage, float]] = {
    EngineName.DRAFT: {},
    EngineName.DIFFUSION: {Stage.CUT_OUT: 1, Stage.BACKGROUND: 22, Stage.TEXT_PAINT: 6},
}
"""Seconds that a stage of a fresh worker waits for its models: their size at 1.5 GB/s."""

CANVAS_FREE = frozenset({Stage.CUT_OUT, Stage.TEXT_CUT_OUT})
"""Stages whose duration does not follow the size of the canvas."""

STEP_NAMES: Mapping[int, str] = {1: "step1_background", 2: "step2_text_asset", 3: "step3_composite"}
STEP_SHARES: Mapping[int, tuple[int, int]] = {1: (0, 33), 2: (33, 66), 3: (66, 100)}
"""Percent at which each step begins and ends."""


class PlannedStage(Record):
    """One stage of a plan and how many iterations it is expected to take."""

    stage: Stage
    iterations: int = Field(ge=1)


class Plan(Record):
    """What a worker is to do with one job, told before the first stage.

    An engine reads from it which models are needed, in which order and for how many iterations.
    """

    engine: EngineName
    preset: str
    steps: tuple[int, ...]
    stages: tuple[PlannedStage, ...]


def plan_stages(
    *,
    engine: EngineName,
    preset: str,
    steps: tuple[int, ...],
    iterations: Mapping[Stage, int],
    skip: frozenset[Stage] = frozenset(),
) -> Plan:
    """The stages of `steps` that `engine` has, in order, without those in `skip`."""
    planned = tuple(
        PlannedStage(stage=stage, iterations=iterations.get(stage, 1))
        for stage, row in STAGES.items()
        if row.step in steps and engine in row.labels and stage not in skip
    )
    return Plan(engine=engine, preset=preset, steps=steps, stages=planned)
