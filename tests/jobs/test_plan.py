"""What of a job is planned from what its engine says of itself."""

import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.stages import EngineInfo, PlannedStage, Stage
from ad_agent_mcp.engines.diffusion.info import describe
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.job import Estimate, Job, start
from ad_agent_mcp.jobs.plan import plan_segment, with_preset_values
from ad_agent_mcp.models.catalog import PRESETS

from .traces import EXACT, ID

SCHNELL = describe(PRESETS["schnell"], {"guidance_embeds": False})


def job_of(info: EngineInfo, steps: tuple[int, ...] = (1, 2, 3), **asked: object) -> Job:
    request = GenerateRequest.model_validate({"text_content": "Sale", **asked})
    return Job(id=ID, request=request, engine=info.name, steps=steps, created_at=0.0)


def unused(info: EngineInfo, steps: tuple[int, ...] = (1, 2, 3), **asked: object) -> list[str]:
    notices = plan_segment(job_of(info, steps, **asked), info)[1]
    return [notice.message for notice in notices if notice.code == "not_supported"]


def test_arguments_that_the_draft_engine_has_no_use_for_are_named_together_if_they_were_given():
    (told,) = unused(INFO, guidance_scale=7.0, composition_prompt="x", negative_prompt="low quality", seed=3)
    assert told == "The draft engine has no use for: guidance_scale, negative_prompt, composition_prompt."
    assert unused(INFO, seed=3) == []


def test_arguments_of_steps_that_do_not_run_are_not_called_unused():
    asked = {"bg_negative_prompt": "people", "negative_prompt": "dust", "composition_strength": 0.5}
    assert unused(INFO, (2,), **asked) == ["The draft engine has no use for: negative_prompt."]
    (first,) = unused(INFO, (1, 2, 3), pause_after_step=1, **asked)
    assert "bg_negative_prompt" in first
    assert "composition_strength" not in first
    assert unused(EXACT, (2,), **asked) == []


@pytest.mark.parametrize(
    ("info", "names"),
    [
        (EXACT, "bg_negative_prompt, composition_negative_prompt"),
        (SCHNELL, "bg_negative_prompt, composition_negative_prompt, guidance_scale, composition_guidance_scale"),
    ],
)
def test_what_a_preset_has_no_use_for_follows_from_its_family_and_its_transformer(info: EngineInfo, names: str):
    asked = {"bg_negative_prompt": "a", "negative_prompt": "b", "composition_negative_prompt": "c"}
    (told,) = unused(info, guidance_scale=3.0, composition_guidance_scale=4.0, **asked)
    assert told.startswith(f"This preset ({info.preset}) has no use for: {names}. ")


def test_a_guess_of_another_engine_leaves_none_of_its_numbers_behind():
    guessed = with_preset_values(job_of(SCHNELL), SCHNELL)
    assert guessed.preset_values == {"num_inference_steps": 4, "composition_steps": 10}
    assert with_preset_values(guessed, INFO).preset_values == {}


def test_the_draft_engine_has_one_iteration_a_stage_whatever_numbers_are_given():
    plan, notices = plan_segment(job_of(INFO, num_inference_steps=50, strength=0, composition_strength=0), INFO)
    assert {planned.iterations for planned in plan.stages} == {1}
    assert [planned.stage for planned in plan.stages] == [stage for stage in Stage if stage is not Stage.TEXT_CUT_OUT]
    assert [notice.code for notice in notices] == ["not_supported"]


@pytest.mark.parametrize("info", [INFO, EXACT, SCHNELL])
def test_every_stage_is_shown_under_the_name_that_its_engine_has_for_it(info: EngineInfo):
    plan, _ = plan_segment(job_of(info), info)
    expected = {planned.stage: Estimate(0, 1) for planned in plan.stages}
    job = start(job_of(info), plan, expected, at=0.0, owner="a")
    labels = [job.model_copy(update={"stage": stage}).sub_step for stage in info.stages]
    assert labels == [f"{told.label} (0/1)" for told in info.stages.values()]


def test_a_plan_that_0_1_stored_without_names_shows_its_stages():
    planned = PlannedStage.model_validate({"stage": "blend", "iterations": 12})
    job = job_of(EXACT)
    plan = EXACT.plan((3,)).model_copy(update={"stages": (planned,)})
    job = start(job, plan, {Stage.BLEND: Estimate(0, 1)}, at=0.0, owner="a")
    assert job.model_copy(update={"stage": Stage.BLEND}).sub_step == "blend (0/1)"
