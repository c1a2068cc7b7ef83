"""Tells clients that a job's resource has changed, in both protocol eras.

Since 2026-07-28 a client listens on a stream of its own, fed by a bus of the SDK. Before that it subscribed to
single resources; the SDK serves only the newer way, so the older one is added to its low-level server here. The
SDK's private names are used in this module alone.
"""

import logging
from weakref import WeakSet

import anyio
from mcp.server import MCPServer
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from .service import JobService

logger = logging.getLogger(__name__)

MIN_PAUSE_S = 0.25
"""Between two notifications: no client wants more than four a second."""
SEND_TIMEOUT_S = 2.0


class Updates:
    """Who wants to hear of what. `bus` goes into the server's constructor, `attach` follows it."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self._subscribers: dict[str, WeakSet[Connection]] = {}

    def attach(self, server: MCPServer[None]) -> None:
        """Serve `resources/subscribe` and `resources/unsubscribe`."""

        async def subscribe(ctx: ServerRequestContext[None], params: SubscribeRequestParams) -> EmptyResult:
            connection: Connection = ctx.session._connection  # pyright: ignore[reportPrivateUsage]
            self._subscribers.setdefault(str(params.uri), WeakSet()).add(connection)
            return EmptyResult()

        async def unsubscribe(ctx: ServerRequestContext[None], params: UnsubscribeRequestParams) -> EmptyResult:
            self._subscribers.get(str(params.uri), WeakSet()).discard(
                ctx.session._connection  # pyright: ignore[reportPrivateUsage]
            )
            return EmptyResult()

        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)

    async def follow(self, service: JobService) -> None:
        """Publish every job that changes, until cancelled."""
        while True:
            for job_id in await service.changed_jobs():
                await self.publish(f"ad://jobs/{job_id}")
            await anyio.sleep(MIN_PAUSE_S)

    async def publish(self, uri: str) -> None:
        """Tell everyone who asked that `uri` has changed."""
        await self.bus.publish(ResourceUpdated(uri=uri))
        subscribers = self._subscribers.get(uri)
        if not subscribers:
            self._subscribers.pop(uri, None)
            return
        for connection in list(subscribers):
            with anyio.move_on_after(SEND_TIMEOUT_S) as sending:
                try:
                    await connection.send_resource_updated(uri)
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    subscribers.discard(connection)
            if sending.cancelled_caught:
                logger.info("a client that does not read is not told of %s any more", uri)
                subscribers.discard(connection)
