"""The stages of a job, in order, and the form in which an engine says how it does them.

Knows no engine by more than its name. A new stage is a row here, its body in `pipeline/` and an entry in the engines
that have it.
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
    """One stage: the step that it belongs to."""

    step: int


STAGES: Mapping[Stage, StageRow] = {
    Stage.CUT_OUT: StageRow(1),
    Stage.BACKGROUND: StageRow(1),
    Stage.COMPOSITE: StageRow(1),
    Stage.REFINE: StageRow(1),
    Stage.TEXT_LAYOUT: StageRow(2),
    Stage.TEXT_PAINT: StageRow(2),
    Stage.TEXT_CUT_OUT: StageRow(2),
    Stage.PLACEMENT: StageRow(3),
    Stage.BLEND: StageRow(3),
    Stage.FINISH: StageRow(3),
}

CANVAS_FREE = frozenset({Stage.CUT_OUT, Stage.TEXT_CUT_OUT})
"""Stages whose duration does not follow the size of the canvas."""

STEP_NAMES: Mapping[int, str] = {1: "step1_background", 2: "step2_text_asset", 3: "step3_composite"}
STEP_SHARES: Mapping[int, tuple[int, int]] = {1: (0, 33), 2: (33, 66), 3: (66, 100)}
"""Percent at which each step begins and ends."""


class PlannedStage(Record):
    """One stage of a plan, its public sub-step name, and how many iterations it is expected to take."""

    stage: Stage
    label: str = ""
    iterations: int = Field(ge=1)


class Plan(Record):
    """What a worker is to do with one job, told before the first stage.

    An engine reads from it which models are needed, in which order and for how many iterations.
    """

    engine: EngineName
    preset: str
    steps: tuple[int, ...]
    stages: tuple[PlannedStage, ...]


class StageInfo(Record):
    """One stage as an engine does it.

    Attributes:
        label: its public sub-step name.
        prior_s: seconds of one iteration at one megapixel, used until this machine has measured its own.
        iterations: how many it has where the request does not decide.
        load_s: seconds that it waits for its models in a fresh worker, used like `prior_s`.
    """

    label: str
    prior_s: float = Field(ge=0)
    iterations: int = Field(default=1, ge=1)
    load_s: float = Field(default=0.0, ge=0)


class EngineInfo(Record):
    """What an engine says of itself: all that planning a job for it takes.

    Attributes:
        name: the engine.
        preset: the models that it paints with.
        stages: those that it has.
        unused: request fields that it has no use for. Without `num_inference_steps` among them, the request decides
            how many iterations its passes have.
        preset_values: request fields that have another value than the published one where the caller gives none.
        reads_hangul: whether prompts may be Korean.
    """

    name: EngineName
    preset: str
    stages: dict[Stage, StageInfo]
    unused: tuple[str, ...] = ()
    preset_values: dict[str, int] = Field(default_factory=dict[str, int])
    reads_hangul: bool = False

    def plan(self, steps: tuple[int, ...], iterations: Mapping[Stage, int] | None = None) -> Plan:
        """The stages of `steps` in order; those with 0 `iterations` are left out."""
        counts = {stage: info.iterations for stage, info in self.stages.items()} | dict(iterations or {})
        planned = tuple(
            PlannedStage(stage=stage, label=self.stages[stage].label, iterations=counts[stage])
            for stage, row in STAGES.items()
            if row.step in steps and stage in self.stages and counts[stage]
        )
        return Plan(engine=self.name, preset=self.preset, steps=steps, stages=planned)
