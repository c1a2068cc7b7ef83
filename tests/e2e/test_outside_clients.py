"""Clients that we did not write: the MCP Inspector, and the official TypeScript client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import CLIENTS, MODULES, SERVER, TRANSPORTS, Place, http_server, needs_node, run_node

INSPECTOR = MODULES / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
TOKEN = "correct-horse-battery-staple"
EXIT_ERROR_RESULT = 5

pytestmark = needs_node


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    return Place(tmp_path_factory.mktemp("outside") / "data", pictures)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    served = Place(place.data.parent / "http-data", place.pictures, {"AD_AGENT_TOKEN": TOKEN})
    with http_server(served) as url:
        yield url


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


def node(place: Place, *arguments: str, expect: int = 0, **variables: str) -> Any:
    """Run a Node program; what it printed as JSON."""
    return json.loads(run_node(place, *arguments, expect=expect, **variables))


def inspect(place: Place, url: str, transport: str, *arguments: str, expect: int = 0) -> Any:
    """One call of the Inspector's command line."""
    if transport == "stdio":
        settings = place.environment()
        shown = [f"{name}={value}" for name, value in settings.items() if name.startswith("AD_AGENT_")]
        target = [*SERVER, *(part for pair in shown for part in ("-e", pair))]
    else:
        route = "/sse" if transport == "sse" else "/mcp"
        target = [f"{url}{route}", "--header", f"Authorization: Bearer {TOKEN}"]
    return node(place, str(INSPECTOR), "--cli", *target, *arguments, expect=expect)


def test_the_inspector_finds_no_fault_in_the_schemas(transport: str, place: Place, url: str):
    tools = inspect(place, url, transport, "--method", "tools/list", "--strict")["tools"]
    assert {"generate", "status", "stop", "get_image", "list_jobs", "approve_step"} <= {tool["name"] for tool in tools}
    assert all(tool["outputSchema"]["type"] == "object" for tool in tools)


def test_the_inspector_calls_a_tool(transport: str, place: Place, url: str):
    result = inspect(place, url, transport, "--method", "tools/call", "--tool-name", "fonts")
    names = [font["name"] for font in result["structuredContent"]["fonts"]]
    assert "NanumSquare/NanumSquareB.ttf" in names


def test_the_inspector_is_told_of_an_error_by_its_exit_code(transport: str, place: Place, url: str):
    call = ("--method", "tools/call", "--tool-name", "generate", "--tool-arg", "product_image=nowhere.png")
    result = inspect(place, url, transport, *call, expect=EXIT_ERROR_RESULT)
    error = result["structuredContent"]["error"]
    assert (error["code"], error["field"]) == ("invalid_request", "product_image")
    if transport == "stdio":
        assert str(place.pictures) in error["message"]


def test_the_inspector_reads_a_resource(transport: str, place: Place, url: str):
    contents = inspect(place, url, transport, "--method", "resources/read", "--uri", "ad://fonts")["contents"]
    assert "NanumSquare/NanumSquareB.ttf" in [font["name"] for font in json.loads(contents[0]["text"])]


@pytest.fixture(scope="module", params=TRANSPORTS)
def seen(request: pytest.FixtureRequest, place: Place, url: str) -> dict[str, Any]:
    """What the TypeScript client saw."""
    targets = {"stdio": SERVER, "sse": [f"{url}/sse", TOKEN], "http": [f"{url}/mcp", TOKEN]}
    return node(place, str(CLIENTS / "client.mjs"), request.param, *targets[request.param], PRODUCT_IMAGE=place.photo)


def test_the_typescript_client_lists_what_there_is(seen: dict[str, Any]):
    assert 8 <= len(seen["tools"]) <= 12
    assert all(tool["inputSchema"]["additionalProperties"] is False for tool in seen["tools"])
    assert "ad://jobs/{job_id}" in [template["uriTemplate"] for template in seen["resourceTemplates"]]


def test_an_error_result_reaches_the_typescript_client_whole(seen: dict[str, Any]):
    """It throws away an error result that misses the tool's output schema."""
    bad = seen["bad"]
    assert bad["isError"] is True
    error = bad["structuredContent"]["error"]
    assert (error["code"], error["field"]) == ("invalid_request", "widht")
    assert error["fix"] == {"tool": "generate", "arguments": {"product_image": "nowhere.png", "width": 512}}
    assert error["message"] in bad["content"][0]["text"]
    unknown = seen["unknown"]
    assert (unknown["isError"], unknown["structuredContent"]["error"]["code"]) == (True, "not_found")


def test_a_good_result_passes_the_typescript_clients_own_validation(seen: dict[str, Any]):
    fonts = seen["fonts"]
    assert not fonts.get("isError")
    assert {"name", "path", "family", "style", "hangul"} == set(fonts["structuredContent"]["fonts"][0])
    assert "NanumSquare/NanumSquareB.ttf" in fonts["content"][0]["text"]
    assert json.loads(seen["contents"][0]["text"]) == fonts["structuredContent"]["fonts"]


def test_the_typescript_client_makes_a_whole_ad_with_progress(seen: dict[str, Any]):
    (made,) = seen["made"]
    state = made["job"]["structuredContent"]
    assert (state["status"], state["progress_percent"]) == ("completed", 100)
    assert {"text", "image", "resource_link"} == {block["type"] for block in made["job"]["content"]}
    assert made["progress"] == sorted(set(made["progress"]))
    assert len(made["progress"]) >= 2
