"""Pictures in ranges, to the byte."""

import base64
import os
from collections.abc import AsyncIterator

import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.mcp_api.server import open_app

from ..in_process import settled

pytestmark = pytest.mark.anyio
RANGE_BYTES = 600_000
"""What clients are told."""
CONTENT = os.urandom(2 * RANGE_BYTES + 7)


@pytest.fixture
async def picture(settings: Settings, request_: GenerateRequest) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the address of a job's picture that holds `CONTENT`."""
    async with open_app(settings) as app, Client(app.server) as client:
        job = await settled(app, await app.service.generate(request_))
        path = app.service.store.layer(job.id, "final")
        assert path is not None
        path.write_bytes(CONTENT)
        yield client, f"ad://jobs/{job.id}/final.png"


async def read(client: Client, uri: str) -> bytes:
    (part,) = (await client.read_resource(uri)).contents
    return base64.b64decode(part.blob)


async def test_a_range_holds_what_was_asked_for_to_the_byte(picture: tuple[Client, str]):
    client, uri = picture
    for offset, length in ((0, 1), (0, 8), (1, 8), (7, RANGE_BYTES - 1), (0, RANGE_BYTES), (len(CONTENT) - 3, 3)):
        assert await read(client, f"{uri}?offset={offset}&length={length}") == CONTENT[offset : offset + length]
    for length in (RANGE_BYTES + 1, 2 * RANGE_BYTES):
        assert await read(client, f"{uri}?length={length}") == CONTENT[:RANGE_BYTES]
    for offset in (len(CONTENT) - 2, len(CONTENT)):
        assert await read(client, f"{uri}?offset={offset}&length=9") == CONTENT[offset:]


async def test_without_a_length_a_range_is_as_long_as_clients_are_told(picture: tuple[Client, str]):
    client, uri = picture
    assert await read(client, uri) == CONTENT[:RANGE_BYTES]
    parts = [await read(client, f"{uri}?offset={offset}") for offset in (0, RANGE_BYTES, 2 * RANGE_BYTES)]
    assert b"".join(parts) == CONTENT


async def test_an_uploaded_picture_comes_in_the_same_ranges(settings: Settings):
    async with open_app(settings) as app, Client(app.server) as client:
        uri = f"ad://assets/{app.service.store.add_asset(CONTENT)}"
        assert await read(client, uri) == CONTENT[:RANGE_BYTES]
        assert await read(client, f"{uri}?offset=3&length=8") == CONTENT[3:11]
