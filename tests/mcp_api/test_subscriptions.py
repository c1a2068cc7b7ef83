"""What is kept of subscriptions. That clients hear of changes: tests/e2e/test_updates.py."""

import gc

import pytest
from mcp import Client
from mcp.server import MCPServer

from ad_agent_mcp.mcp_api.subscriptions import Subscriptions

pytestmark = pytest.mark.anyio


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_nothing_is_kept_of_a_client_that_has_gone():
    subscriptions = Subscriptions()
    server: MCPServer[None] = MCPServer("test", subscriptions=subscriptions.bus)
    subscriptions.attach(server)
    async with Client(server, mode="legacy") as client:
        for number in range(3):
            await client.session.subscribe_resource(f"ad://jobs/{number}")
        assert [len(uris) for uris in subscriptions._subscriptions.values()] == [3]
    del client
    gc.collect()
    assert not subscriptions._subscriptions
