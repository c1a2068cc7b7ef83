"""What is told before anything is loaded: whether a preset fits, with which moves, or why not."""

from dataclasses import replace

import pytest

from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.models.families.flux1 import TABLE
from ad_agent_mcp.models.memory_plan import MemoryPlan, host_budget, plan_memory, rows, vram_budget
from ad_agent_mcp.models.preset import ENCODE, GIB, MEGAPIXEL, Preset


def sizes(preset: Preset) -> dict[str, tuple[int, ...]]:
    """As in the published models."""
    return {component.name: tuple(int(gib * GIB) for gib in component.nominal_gib) for component in preset.components}


def plan(
    name: str, vram_gib: float, *, host_gib: float = 64, pixels: int = MEGAPIXEL, is_jit: bool = False
) -> MemoryPlan:
    preset = PRESETS[name]
    vram, host = int(vram_gib * GIB), int(host_gib * GIB)
    return plan_memory(preset, sizes(preset), vram_budget=vram, host_budget=host, is_jit=is_jit, pixels=pixels)


def test_fast_stays_in_24_gb_with_nothing_moved_but_what_is_streamed():
    fast = plan("fast", 21.5)
    assert fast.verdict == "fits"
    t5, modulation = int(8.87 * GIB), int(6.01 * GIB)
    moved = {stage.stage: stage.moves_in_bytes for stage in fast.stages if stage.moves_in_bytes}
    assert moved == {ENCODE: t5, TABLE: modulation}
    streamed = t5 + modulation
    assert {stage.resident_bytes for stage in fast.stages} == {
        sum(sum(segments) for name, segments in sizes(PRESETS["fast"]).items()) - streamed
    }
    assert fast.host_bytes == streamed


def test_exact_takes_turns_in_24_gb():
    exact = plan("exact", 21.5)
    assert exact.verdict == "fits_with_moves"
    assert max(stage.peak_bytes for stage in exact.stages) <= 21.5 * GIB
    assert sum(stage.moves_out_bytes for stage in exact.stages) > 0
    assert plan("exact", 48).verdict == "fits"


def test_what_goes_out_comes_in_again():
    stages = plan("exact", 21.5).stages
    streamed = int(8.87 * GIB) + int(6.01 * GIB)
    assert sum(stage.moves_in_bytes for stage in stages) - streamed == sum(stage.moves_out_bytes for stage in stages)


def test_what_cannot_fit_is_told_with_the_stage_and_what_it_needs():
    small = plan("exact", 12)
    assert small.verdict == "does_not_fit"
    assert small.stages == ()
    assert TABLE in small.why.en
    assert "16.5 GiB" in small.why.en


def test_a_larger_picture_needs_more_until_it_does_not_fit():
    peaks = [max(stage.peak_bytes for stage in plan("exact", 48, pixels=area * MEGAPIXEL).stages) for area in (1, 4)]
    assert peaks[1] > peaks[0]
    assert plan("exact", 17.5).verdict == "fits_with_moves"
    assert plan("exact", 17.5, pixels=4 * MEGAPIXEL).verdict == "does_not_fit"


def test_jit_keeps_nothing_from_one_stage_to_the_next():
    fast = plan("fast", 48, is_jit=True)
    for stage in fast.stages:
        models = set(PRESETS["fast"].use(stage.stage, MEGAPIXEL).models) - {"t5", "modulation"}
        assert stage.resident_bytes == sum(sum(sizes(PRESETS["fast"])[name]) for name in models)
        assert stage.moves_out_bytes == stage.resident_bytes
    assert fast.host_bytes == 0


@pytest.mark.parametrize(
    ("host_gib", "copied", "read"),
    [
        (20, ["t5", "modulation"], ""),
        (10, ["t5"], "6.0 GiB of which are read from disk: modulation"),
        (7, ["modulation"], "8.9 GiB of which are read from disk: t5"),
        (1, [], "14.9 GiB of which are read from disk: modulation, t5"),
    ],
)
def test_what_finds_no_room_in_host_memory_is_told_by_name(host_gib: float, copied: list[str], read: str):
    short = plan("fast", 21.5, host_gib=host_gib)
    assert short.host_bytes == sum(sum(sizes(PRESETS["fast"])[name]) for name in copied)
    assert read in short.why.en
    assert ("disk" in short.why.en) is bool(read)


def test_the_table_has_a_row_for_each_stage_that_runs_models():
    table = [*rows(plan("fast", 40))]
    assert [row[0] for row in table] == [
        Stage.CUT_OUT,
        ENCODE,
        TABLE,
        Stage.BACKGROUND,
        Stage.REFINE,
        Stage.TEXT_PAINT,
        Stage.TEXT_CUT_OUT,
        Stage.BLEND,
    ]
    assert all(len(row) == 5 for row in table)


@pytest.mark.parametrize("budget", [vram_budget, host_budget])
def test_a_budget_is_the_setting_or_what_is_free_less_a_reserve(budget: type[int]):
    assert budget(3.5, 100 * GIB) == 3.5 * GIB
    assert 90 * GIB < budget(None, 100 * GIB) < 100 * GIB
    assert budget(None, 0) == 0


def test_another_preset_is_one_entry():
    dreamlike = replace(PRESETS["exact"], name="dreamlike", steps=8)
    blending, exact = (preset.use(Stage.BLEND, MEGAPIXEL) for preset in (dreamlike, PRESETS["exact"]))
    assert blending == exact
    assert blending.models == ("transformer-bf16", "flux_vae")
    assert dreamlike.use(Stage.COMPOSITE, MEGAPIXEL) == (Stage.COMPOSITE, (), 0)
