"""Our HTTP server with the tools, resources and prompts that the conformance suite calls by name.

Run as `python conformance_server.py serve --transport http --port N`: everything but the fixtures is the command's own.
"""

import base64
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import Message
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ClientCapabilities,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingCapability,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

from ad_agent_mcp.__main__ import main
from ad_agent_mcp.http_api import server as http
from ad_agent_mcp.mcp_api.server import AdServer, App, open_app

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="  # one red pixel
)
WAV = base64.b64encode(
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"
).decode()
IMAGE = ImageContent(type="image", data=PNG, mime_type="image/png")


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def embedded(uri: str) -> EmbeddedResource:
    return EmbeddedResource(
        type="resource", resource=TextResourceContents(uri=uri, mime_type="text/plain", text="embedded")
    )


ANSWERS: Mapping[str, list[ContentBlock]] = {
    "test_simple_text": [text("plain words")],
    "test_image_content": [IMAGE],
    "test_audio_content": [AudioContent(type="audio", data=WAV, mime_type="audio/wav")],
    "test_embedded_resource": [embedded("test://embedded-resource")],
    "test_multiple_content_types": [text("several"), IMAGE, embedded("test://mixed-content-resource")],
    "test_logging_tool": [text("nothing is logged")],
}


def form(message: str, **properties: Any) -> ElicitRequest:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


NAME = {"user_name": form("Your name?", name={"type": "string"})}
ROOTS = {"client_roots": ListRootsRequest()}
CONFIRM = {"confirm": form("Go on?", ok={"type": "boolean"})}
QUESTIONS: Mapping[str, list[dict[str, InputRequest]]] = {
    "test_input_required_result_elicitation": [NAME],
    "test_input_required_result_sampling": [{"capital_question": sampling("The capital of France?")}],
    "test_input_required_result_list_roots": [ROOTS],
    "test_input_required_result_request_state": [CONFIRM],
    "test_input_required_result_multiple_inputs": [{**NAME, "greeting": sampling("A greeting"), **ROOTS}],
    "test_input_required_result_multi_round": [
        {"step1": form("Your name?", name={"type": "string"})},
        {"step2": form("Your colour?", color={"type": "string"})},
    ],
    "test_input_required_result_tampered_state": [CONFIRM],
    "test_input_required_result_capabilities": [{**NAME, "greeting": sampling("A greeting")}],
    "test_streaming_elicitation": [NAME],
    "test_missing_capability": [{"greeting": sampling("A greeting")}],
}
"""Tool by tool, the rounds of questions to the client; the state it gives back is the number of the round."""

OPTIONS = ["option1", "option2", "option3"]
FORMS: Mapping[str, dict[str, Any]] = {
    "test_elicitation": {"username": {"type": "string"}, "email": {"type": "string"}},
    "test_elicitation_sep1034_defaults": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
    "test_elicitation_sep1330_enums": {
        "untitledSingle": {"type": "string", "enum": OPTIONS},
        "titledSingle": {"type": "string", "oneOf": [{"const": "value1", "title": "First"}]},
        "legacyEnum": {"type": "string", "enum": OPTIONS, "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": [{"const": "value1", "title": "First"}]}},
    },
}

SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"city": {"type": "string"}}}},
    "properties": {"address": {"$ref": "#/$defs/address"}, "phone": {"type": "string"}, "email": {"type": "string"}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"required": ["address"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def add_fixtures(server: AdServer) -> None:
    def add_tool(name: str, function: Any) -> None:
        server.add_tool(function, name=name, description="For the conformance suite.", structured_output=False)

    def answering(content: list[ContentBlock]) -> Any:
        async def answer() -> CallToolResult:
            return CallToolResult(content=content)

        return answer

    def asking(rounds: list[dict[str, InputRequest]]) -> Any:
        async def ask(ctx: Context) -> CallToolResult | InputRequiredResult:
            return next_question(rounds, ctx) or CallToolResult(
                content=[text("state-ok" if ctx.request_state else "done")]
            )

        return ask

    def filling(properties: dict[str, Any]) -> Any:
        async def fill(ctx: Context, message: str = "Please fill this in") -> CallToolResult:
            schema = {"type": "object", "properties": properties}
            given = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
            return CallToolResult(content=[text(f"action={given.action}, content={given.content}")])

        return fill

    for name, content in ANSWERS.items():
        add_tool(name, answering(content))
    for name, rounds in QUESTIONS.items():
        add_tool(name, asking(rounds))
    for name, properties in FORMS.items():
        add_tool(name, filling(properties))

    async def fail() -> CallToolResult:
        raise RuntimeError("on purpose")

    async def progress(ctx: Context) -> CallToolResult:
        for percent in (0, 50, 100):
            await ctx.report_progress(percent, 100)
        return CallToolResult(content=[text("done")])

    async def sample(prompt: str, ctx: Context) -> CallToolResult:
        message = SamplingMessage(role="user", content=text(prompt))
        given = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
        return CallToolResult(content=[text(f"LLM response: {given.content}")])

    async def change_tools(ctx: Context) -> CallToolResult:
        await ctx.notify_tools_changed()
        return CallToolResult(content=[text("done")])

    async def change_prompts(ctx: Context) -> CallToolResult:
        await ctx.notify_prompts_changed()
        return CallToolResult(content=[text("done")])

    add_tool("test_error_handling", fail)
    add_tool("test_tool_with_progress", progress)
    add_tool("test_sampling", sample)
    add_tool("test_trigger_tool_change", change_tools)
    add_tool("test_trigger_prompt_change", change_prompts)
    add_tool("json_schema_2020_12_tool", answering([text("done")]))
    server._tool_manager.get_tool("json_schema_2020_12_tool").parameters = SCHEMA_2020_12
    add_resources(server)
    add_prompts(server)


def next_question(rounds: list[dict[str, InputRequest]], ctx: Context) -> InputRequiredResult | None:
    asked = int(ctx.request_state or 0)
    if rounds[asked].keys() <= (ctx.input_responses or {}).keys():
        asked += 1
    if asked == len(rounds):
        return None
    declared = ctx.client_capabilities or ClientCapabilities()
    has = {
        "elicitation/create": declared.elicitation,
        "sampling/createMessage": declared.sampling,
        "roots/list": declared.roots,
    }
    wanted = {name: request for name, request in rounds[asked].items() if has[request.method] is not None}
    if not wanted:
        needed = ClientCapabilities(sampling=SamplingCapability()).model_dump(by_alias=True, exclude_none=True)
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", {"requiredCapabilities": needed})
    return InputRequiredResult(input_requests=wanted, request_state=str(asked))


def add_resources(server: AdServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    async def static_text() -> str:
        """A text."""
        return "a text"

    @server.resource("test://static-binary", mime_type="image/png")
    async def static_binary() -> bytes:
        """A picture."""
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def from_template(id: str) -> dict[str, str]:  # noqa: A002 - the suite's name
        """Its own id."""
        return {"id": id}


def add_prompts(server: AdServer) -> None:
    @server.prompt()
    async def test_simple_prompt() -> str:
        """A sentence."""
        return "A simple prompt."

    @server.prompt()
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """Its own arguments."""
        return f"{arg1} and {arg2}"

    @server.prompt()
    async def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803 - the suite's name
        """A resource."""
        return [Message(role="user", content=embedded(resourceUri))]

    @server.prompt()
    async def test_prompt_with_image() -> list[Message]:
        """A picture."""
        return [Message(role="user", content=IMAGE)]

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Context) -> str | InputRequiredResult:
        """Asks first."""
        asked = next_question([{"user_context": form("Which context?", context={"type": "string"})}], ctx)
        return asked or "With context."


@asynccontextmanager
async def open_app_with_fixtures(*arguments: Any, **options: Any) -> AsyncGenerator[App]:
    async with open_app(*arguments, **options) as app:
        add_fixtures(app.server)
        yield app


if __name__ == "__main__":
    http.open_app = open_app_with_fixtures
    sys.exit(main())
