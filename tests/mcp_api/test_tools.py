"""What a model reads: the tools, their schemas, and the way errors come back."""

import json
import re
import subprocess
import sys

import jsonschema
import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS
from pydantic import RootModel

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.mcp_api.responses import MAX_MESSAGE_BYTES, data_result, within_budget
from ad_agent_mcp.mcp_api.server import INSTRUCTIONS, LISTS_FRESH_MS
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with

pytestmark = pytest.mark.anyio

TOOLS = ["approve_step", "fonts", "generate", "get_image", "health", "list_jobs", "resources", "status", "stop"]


async def test_the_tools_are_few_described_and_cheap_to_read(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        tools = (await client.list_tools()).tools
        assert sorted(tool.name for tool in tools) == TOOLS
        size = len(
            json.dumps([tool.model_dump(by_alias=True, exclude_none=True) for tool in tools], ensure_ascii=False)
        )
        assert size <= 18_000
        for tool in tools:
            assert tool.title
            assert tool.description
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is not None
            assert tool.annotations.open_world_hint is False
            assert '"title"' not in json.dumps(tool.input_schema)
            assert "$ref" not in json.dumps(tool.input_schema)
            assert tool.input_schema["additionalProperties"] is False
            assert tool.output_schema is not None
            assert "required" not in tool.output_schema
            assert "additionalProperties" not in tool.output_schema
            assert "error" in tool.output_schema["properties"]
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            jsonschema.Draft202012Validator.check_schema(tool.output_schema)


@pytest.mark.parametrize("method", ["list_tools", "list_prompts", "list_resources", "list_resource_templates"])
async def test_lists_may_be_kept_for_a_while_and_have_no_second_page(method: str, settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        listed = await getattr(client, method)()
        assert (listed.ttl_ms, listed.cache_scope) == (LISTS_FRESH_MS, "public")
        with pytest.raises(MCPError) as caught:
            await getattr(client, method)(cursor="next")
        assert caught.value.error.code == INVALID_PARAMS


async def test_generate_publishes_every_field_of_the_request_with_its_default(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        schema = next(tool for tool in (await client.list_tools()).tools if tool.name == "generate").input_schema
        assert list(schema["properties"]) == list(GenerateRequest.model_fields)
        assert "required" not in schema
        assert schema["properties"]["composition_mode"]["enum"] == ["overlay", "blend", "behind"]
        assert schema["properties"]["width"]["minimum"] == 256
        assert schema["properties"]["strength"]["default"] == 0.6


async def test_an_unknown_argument_is_refused_with_a_call_that_works(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        result = await client.call_tool("list_jobs", {"limits": 5})
        assert result.is_error
        error = (result.structured_content or {})["error"]
        assert (error["code"], error["field"]) == ("invalid_request", "limits")
        assert error["fix"] == {"tool": "list_jobs", "arguments": {"limit": 5}}
        fixed = await client.call_tool(error["fix"]["tool"], error["fix"]["arguments"])
        assert not fixed.is_error


async def test_an_unknown_tool_names_the_known_ones(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        result = await client.call_tool("genrate", {})
        assert result.is_error
        assert "generate" in (result.structured_content or {})["error"]["message"]


async def test_a_fault_of_ours_is_told_without_its_inside(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:

        def broken() -> None:
            raise ZeroDivisionError("secret path")

        monkeypatch.setattr(app.context.fonts, "fonts", broken)
        result = await client.call_tool("fonts", {})
        assert result.is_error
        error = (result.structured_content or {})["error"]
        assert error["code"] == "engine_failed"
        assert "secret" not in error["message"]


def test_the_last_guard_turns_what_is_too_large_into_an_error():
    small = data_result(RootModel({"a": 1}), "text")
    assert within_budget(small) is small
    large = within_budget(data_result(RootModel({"a": "x" * MAX_MESSAGE_BYTES}), "text"))
    assert large.is_error
    assert len(large.model_dump_json()) < 2000


def test_the_instructions_are_short():
    assert len(INSTRUCTIONS.split()) < 200


def test_a_started_server_has_loaded_no_array_or_model_library():
    code = """
import sys, anyio
from ad_agent_mcp.config import Settings
from ad_agent_mcp.mcp_api.server import open_app
from ad_agent_mcp.http_api import server
from ad_agent_mcp.mcp_api import stdio
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS
async def main():
    async with open_app(Settings()) as app, Client(app.server) as client:
        for tool in ("health", "fonts", "resources", "list_jobs", "status"):
            await client.call_tool(tool, {})
        await client.call_tool("generate", {"product_image": "/nowhere.png"})
anyio.run(main)
heavy = {"torch", "diffusers", "transformers", "accelerate", "cv2", "numpy", "prometheus_client"}
heavy |= {"ad_agent_mcp." + room for room in ("worker", "pipeline", "engines", "models", "imaging", "commands")}
print(sorted(heavy & {part for name in sys.modules for part in (name, name.partition(".")[0])}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_font_shows_a_sample(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        sample = (await client.read_resource("ad://fonts/BMJua/BMJUA_ttf.ttf/sample.png")).contents[0]
        assert sample.mime_type == "image/png"
        with pytest.raises(MCPError):
            await client.read_resource("ad://fonts/BMJua/nothing.ttf/sample.png")


async def test_tools_answer_in_korean_where_that_is_set(settings: Settings):
    async with app_with(settings, WORKER_COMMAND, lang="ko") as app, Client(app.server) as client:
        told = [
            await client.call_tool(name, arguments)
            for name, arguments in (
                ("health", {}),
                ("list_jobs", {}),
                ("fonts", {}),
                ("resources", {}),
                ("status", {}),
                ("genrate", {}),
                ("get_image", {"job_id": "nonsense"}),
            )
        ]
        texts = [result.content[0].text for result in told]
        assert all(re.search("[가-힣]", text) for text in texts), texts
        assert "다음: list_jobs를 다음 인수로 실행하세요: {}" in texts[-1]
