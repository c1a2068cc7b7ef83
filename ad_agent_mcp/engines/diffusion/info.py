"""What the diffusion engine says of itself, from its preset and the configuration of its models. Loads no arrays."""

from collections.abc import Mapping
from typing import Any, Final

from ...contract.stages import EngineInfo, EngineName, Stage, StageInfo
from ...models.preset import Preset

_WITHOUT_MODELS: Final = {
    Stage.COMPOSITE: StageInfo(label="composite", prior_s=0.5),
    Stage.TEXT_LAYOUT: StageInfo(label="text_layout", prior_s=0.3),
    Stage.PLACEMENT: StageInfo(label="placement", prior_s=0.3),
    Stage.FINISH: StageInfo(label="finish", prior_s=0.6),
}


def describe(preset: Preset, config: Mapping[str, Any]) -> EngineInfo:
    """The engine with `preset`, whose transformer has this `config.json`."""
    stages, unused = dict(_WITHOUT_MODELS), list[str]()
    for family in preset.families:
        stages |= family.infos
        unused += family.unused
        unused += [
            name for setting, names in family.unused_without.items() if not config.get(setting) for name in names
        ]
    for stage, steps in {Stage.BACKGROUND: preset.steps, Stage.TEXT_PAINT: preset.text_steps}.items():
        stages[stage] = stages[stage].model_copy(update={"iterations": steps})
    return EngineInfo(
        name=EngineName.DIFFUSION,
        preset=preset.name,
        stages=stages,
        unused=tuple(unused),
        preset_values=dict(preset.preset_values),
    )
