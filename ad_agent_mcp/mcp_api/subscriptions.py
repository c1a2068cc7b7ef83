"""Tells clients that a job's resource has changed, in both protocol eras.

Since 2026-07-28 a client listens on a stream of its own, fed by a bus of the SDK. Before that it subscribed to
single resources; the SDK serves only the newer way, so the older one is added to its low-level server here. The
SDK's private names are used in this module alone.
"""

import logging
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from mcp.server import MCPServer
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from ..jobs.service import JobService

logger = logging.getLogger(__name__)

MIN_PAUSE_S = 0.25
"""Between two notifications: no client wants more than four a second."""
SEND_TIMEOUT_S = 2.0


class Subscriptions:
    """Who wants to hear of what. `bus` goes into the server's constructor, `attach` follows it."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._subscriptions: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()

    def attach(self, server: MCPServer[Any]) -> None:
        """Serve `resources/subscribe` and `resources/unsubscribe`."""

        async def subscribe(ctx: ServerRequestContext[Any], params: SubscribeRequestParams) -> EmptyResult:
            self._uris(ctx).add(str(params.uri))
            return EmptyResult()

        async def unsubscribe(ctx: ServerRequestContext[Any], params: UnsubscribeRequestParams) -> EmptyResult:
            self._uris(ctx).discard(str(params.uri))
            return EmptyResult()

        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)

    async def follow(self, service: JobService) -> None:
        """Publish every job that changes, until cancelled."""
        while True:
            for job_id in await service.journal.changed_jobs():
                await self.publish(f"ad://jobs/{job_id}")
            await anyio.sleep(MIN_PAUSE_S)

    async def publish(self, uri: str) -> None:
        """Tell everyone who asked that `uri` has changed."""
        await self.bus.publish(ResourceUpdated(uri=uri))
        for connection in [connection for connection, uris in self._subscriptions.items() if uri in uris]:
            with anyio.move_on_after(SEND_TIMEOUT_S) as sending:
                try:
                    await connection.send_resource_updated(uri)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    self._subscriptions.pop(connection, None)
            if sending.cancelled_caught:
                logger.info("a client that does not read is not told of changes any more")
                self._subscriptions.pop(connection, None)

    def _uris(self, ctx: ServerRequestContext[Any]) -> set[str]:
        return self._subscriptions.setdefault(ctx.session._connection, set())  # pyright: ignore[reportPrivateUsage]
