"""Prompts and completions as clients get them."""

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, PromptReference, ResourceTemplateReference, TextContent

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio
LAYER = ResourceTemplateReference(type="ref/resource", uri="ad://jobs/{job_id}/{name}.png{?offset,length}")


async def test_a_brief_keeps_the_words_and_pauses_for_the_person(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert set(prompts) == {"ad_brief", "revise_ad"}
        brief = await client.get_prompt("ad_brief", {"product_image": "a.png", "words": "봄 세일"})
        content = brief.messages[0].content
        assert isinstance(content, TextContent)
        assert "'봄 세일'" in content.text
        assert "pause_after_step 1" in content.text


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_a_prompt_asked_for_wrongly_is_the_callers_error(era: str, settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server, mode=era) as client:
        for name, arguments, told in (
            ("no_such", {}, "ad_brief, revise_ad"),
            ("revise_ad", {"job_id": "j"}, "job_id, change"),
            ("ad_brief", {"product_image": "a.png", "word": "x"}, "words (optional)"),
        ):
            with pytest.raises(MCPError) as caught:
                await client.get_prompt(name, arguments)
            assert caught.value.error.code == INVALID_PARAMS
            assert told in caught.value.error.message
        with pytest.raises(MCPError) as caught:
            await client.complete(
                PromptReference(type="ref/prompt", name="no_such"), {"name": "font_name", "value": ""}
            )
        assert caught.value.error.code == INVALID_PARAMS


async def test_names_are_completed(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        job = await settled(app, await app.service.generate(request_))
        brief = PromptReference(type="ref/prompt", name="ad_brief")
        fonts = (await client.complete(brief, {"name": "font_name", "value": "squareeb"})).completion.values
        assert fonts == ["NanumSquare/NanumSquareEB.ttf"]
        assert (await client.complete(LAYER, {"name": "job_id", "value": job.id[:5]})).completion.values == [job.id]
        assert (await client.complete(LAYER, {"name": "name", "value": "step"})).completion.values == ["step1", "step2"]
        assert (await client.complete(brief, {"name": "words", "value": "x"})).completion.values == []
