"""What is one family's stays in its modules: another one is a module, its data and an entry in the catalog."""

import re
from pathlib import Path

import pytest

import ad_agent_mcp
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.diffusion.families import flux1
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.models.preset import Preset

PACKAGE = Path(ad_agent_mcp.__file__).parent
ITS_OWN = re.compile(r"pooled|modulat|\bt5|FluxPipeline|guidance_embeds", re.IGNORECASE)
"""What FLUX.1 has and another family may not have."""


def test_nothing_outside_the_families_names_what_is_flux_1s_alone():
    sources = [path for path in PACKAGE.rglob("*.py") if not {"families", "cutout"} & {*path.parts}]
    assert len(sources) > 100
    assert [str(path) for path in sources if ITS_OWN.search(path.read_text("utf-8"))] == []
    assert ITS_OWN.search(Path(flux1.__file__).read_text("utf-8"))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_each_stage_that_runs_models_is_one_familys_and_runs_components_that_the_preset_has(preset: Preset):
    stages = [stage for family in preset.families for stage in family.infos]
    assert len(stages) == len(set(stages))
    uses = preset.uses(tuple(Stage), 1)
    assert {use.stage for use in uses} >= set(stages)
    names = [component.name for component in preset.components]
    assert {model for use in uses for model in use.models} == {one.name for one in preset.components if one.network}
    assert len(names) == len(set(names))
    assert {component.role for component in preset.components} == {source.role for source in preset.sources}
