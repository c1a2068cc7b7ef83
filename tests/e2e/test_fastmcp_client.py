"""A second opinion: fastmcp's client, which parses and checks results in ways of its own."""

import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import mcp.types
import pytest
from fastmcp import Client
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from PIL import Image

from .support import SERVER, SMALL, TRANSPORTS, Place, http_server

pytestmark = pytest.mark.anyio
PIECE_BYTES = 40_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    return Place(tmp_path_factory.mktemp("fastmcp") / "data", pictures)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with http_server(place) as url:
        yield url


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, place: Place, url: str) -> Any:
    match request.param:
        case "stdio":
            apart = Place(place.data.parent / "stdio-data", place.pictures)
            return StdioTransport(SERVER[0], SERVER[1:], env=apart.environment())
        case "sse":
            return SSETransport(f"{url}/sse")
        case _:
            return StreamableHttpTransport(f"{url}/mcp")


@pytest.fixture
async def client(transport: Any) -> AsyncIterator[Client[Any]]:
    async with Client(transport) as client:
        yield client


async def read_in_pieces(client: Client[Any], uri: str) -> bytes:
    data = b""
    while True:
        (piece,) = await client.read_resource(f"{uri}?offset={len(data)}&length={PIECE_BYTES}")
        assert isinstance(piece, mcp.types.BlobResourceContents)
        more = base64.b64decode(piece.blob)
        data += more
        if len(more) < PIECE_BYTES:
            return data


async def test_fastmcp_makes_an_ad_and_reads_it(client: Client[Any], place: Place):
    assert {"generate", "status", "get_image"} <= {tool.name for tool in await client.list_tools()}
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    made = await client.call_tool(
        "generate",
        {"product_image": place.photo, "text_content": "여름 세일", "wait_seconds": 50, **SMALL},
        progress_handler=on_progress,
    )
    state = made.structured_content or {}
    assert (state["status"], state["progress_percent"]) == ("completed", 100)
    assert seen == sorted(set(seen))
    assert len(seen) >= 3
    assert {"text", "image", "resource_link"} == {block.type for block in made.content}
    told = await client.call_tool("status", {"job_id": state["job_id"]})
    assert (told.structured_content or {})["final_result"] == state["final_result"]
    shown = await client.call_tool("get_image", {"job_id": state["job_id"], "name": "final"})
    (picture,) = [block for block in shown.content if isinstance(block, mcp.types.ImageContent)]
    assert Image.open(io.BytesIO(base64.b64decode(picture.data))).size == (320, 320)
    whole = await read_in_pieces(client, state["final_result"])
    assert len(whole) > PIECE_BYTES
    assert Image.open(io.BytesIO(whole)).format == "PNG"


async def test_fastmcp_is_told_what_is_wrong(client: Client[Any], place: Place):
    refused = await client.call_tool("status", {"job_id": "no-job"}, raise_on_error=False)
    assert refused.is_error
    assert (refused.structured_content or {})["error"]["field"] == "job_id"
    with pytest.raises(ToolError, match="product_image"):
        await client.call_tool("generate", {"product_imagee": place.photo})
    with pytest.raises(mcp.MCPError) as caught:
        await client.get_prompt("no_such")
    assert caught.value.error.code == mcp.types.INVALID_PARAMS


async def test_fastmcp_finds_prompts_completions_and_resources(client: Client[Any]):
    assert {prompt.name for prompt in await client.list_prompts()} == {"ad_brief", "revise_ad"}
    brief = await client.get_prompt("ad_brief", {"product_image": "bottle.png", "words": "봄"})
    assert "bottle.png" in getattr(brief.messages[0].content, "text", "")
    reference = mcp.types.PromptReference(type="ref/prompt", name="ad_brief")
    completed = await client.complete(reference, {"name": "font_name", "value": "squareeb"})
    assert completed.values == ["NanumSquare/NanumSquareEB.ttf"]
    assert "ad://fonts" in {str(resource.uri) for resource in await client.list_resources()}
    (fonts,) = await client.read_resource("ad://fonts")
    assert isinstance(fonts, mcp.types.TextResourceContents)
    assert completed.values[0] in {font["name"] for font in json.loads(fonts.text)}
