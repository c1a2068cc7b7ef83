"""Which words each model is given."""

import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.diffusion.prompts import prompts_of

SCENES = (Stage.BACKGROUND, Stage.REFINE, Stage.BLEND)
GENERATIVE = (*SCENES, Stage.TEXT_PAINT)


def request(**fields: object) -> GenerateRequest:
    return GenerateRequest.model_validate(fields)


def test_every_stage_is_given_the_words_meant_for_it():
    asked = request(
        bg_prompt="a wooden table",
        bg_composition_prompt="a jar in morning light",
        text_model_prompt="chrome letters",
        composition_prompt="dusty pastel",
        bg_negative_prompt="n1",
        bg_composition_negative_prompt="n2",
        negative_prompt="n3",
        composition_negative_prompt="n4",
    )
    prompts = {stage: [*texts.values()] for stage, texts in prompts_of(asked).items()}
    assert set(prompts) == set(GENERATIVE)
    assert "a wooden table" in prompts[Stage.BACKGROUND][0]
    assert "a jar in morning light" in prompts[Stage.REFINE][0]
    assert "chrome letters" in prompts[Stage.TEXT_PAINT][0]
    assert "dusty pastel" in prompts[Stage.BLEND][0]
    assert "chrome letters" in prompts[Stage.BLEND][0]
    assert [prompts[stage][1:] for stage in GENERATIVE] == [[], [], [], ["n3"]]


def test_words_that_are_missing_come_from_the_scene_and_an_empty_scene_is_a_studio():
    prompts = prompts_of(request(bg_prompt="a sandy beach", bg_composition_prompt=" "))
    assert all("a sandy beach" in "".join(prompts[stage].values()) for stage in SCENES)
    empty = prompts_of(request(bg_prompt="  "))
    assert all("studio" in "".join(empty[stage].values()) for stage in SCENES)


@pytest.mark.parametrize(
    ("fields", "sources"),
    [
        ({}, ["bg_prompt", "bg_prompt", "text_model_prompt", "text_model_prompt"]),
        ({"bg_prompt": "a"}, ["bg_prompt", "bg_prompt", "bg_prompt with text_model_prompt", "text_model_prompt"]),
        (
            {"bg_prompt": "a", "bg_composition_prompt": "b", "composition_prompt": "c"},
            ["bg_prompt", "bg_composition_prompt", "composition_prompt with text_model_prompt", "text_model_prompt"],
        ),
    ],
)
def test_a_prompt_names_the_fields_that_it_is_made_of(fields: dict[str, str], sources: list[str]):
    prompts = prompts_of(request(**fields))
    assert [next(iter(prompts[stage])) for stage in GENERATIVE] == sources


def test_the_ads_words_are_in_no_prompt():
    prompts = prompts_of(request(text_content="MEGASALE", bg_prompt="a table", composition_prompt="soft"))
    assert not [texts for texts in prompts.values() if "MEGASALE" in "".join(texts.values())]
