"""A client that asks for it hears that a job has changed, in both eras and over every transport."""

from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import ResourceUpdatedNotification

from .support import SMALL, TRANSPORTS, Place, call, connected, finish

pytestmark = pytest.mark.anyio


async def start(client: Client, place: Place) -> str:
    job = await call(client, "generate", product_image=place.photo, text_content="안녕", pause_after_step=1, **SMALL)
    await finish(client, job["job_id"])
    return job["job_id"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_listening_client_of_today_hears_of_changes(transport: str, place: Place):
    async with connected(transport, place) as client:
        job_id = await start(client, place)
        with anyio.fail_after(20):
            async with client.listen(resource_subscriptions=[f"ad://jobs/{job_id}"]) as changes:
                await call(client, "approve_step", job_id=job_id)
                async for change in changes:
                    assert getattr(change, "uri", None) == f"ad://jobs/{job_id}"
                    break


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_subscribed_client_of_yesterday_hears_of_changes_until_it_has_enough(transport: str, place: Place):
    heard = anyio.Event()
    uris: list[str] = []

    async def on_message(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            uris.append(str(message.params.uri))
            heard.set()

    async with connected(transport, place, era="legacy", message_handler=on_message) as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe
        job_id = await start(client, place)
        await client.session.subscribe_resource(f"ad://jobs/{job_id}")
        await call(client, "approve_step", job_id=job_id)
        with anyio.fail_after(20):
            await heard.wait()
        await finish(client, job_id)
        assert set(uris) == {f"ad://jobs/{job_id}"}
        await client.session.unsubscribe_resource(f"ad://jobs/{job_id}")
