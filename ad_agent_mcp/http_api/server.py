"""The HTTP server: streamable HTTP at `/mcp`, SSE at `/sse` + `/messages/`, and a few plain routes of ours."""

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, nullcontext, suppress

import anyio.to_thread
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..config import Settings
from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.notices import shown_in
from ..contract.texts import say
from ..jobs.errors import out_of_files
from ..mcp_api.server import App, open_app
from .listener import (
    MAX_CONNECTIONS,
    MAX_UNACCEPTED,
    SHUTDOWN_GRACE_S,
    Connection,
    OrderlyServer,
    listen,
    log_floods_seldom,
)
from .page import PAGE_PATH, Dashboard
from .posted import PostedMessages
from .request_body import BodyRefusedError, read_body
from .security import LOOPBACK_ORIGIN, OPEN_PATHS, FrontDoor, Guard, is_loopback

logger = logging.getLogger(__name__)

_STATUS_CODES = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.STORAGE_FULL: 507,
    ErrorCode.BUSY: 503,
    ErrorCode.ENGINE_FAILED: 500,
}


async def serve_http(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AdAgentError: `host` is reachable from outside and there is no token.
    """
    token = settings.bearer_token
    if not is_loopback(host) and token is None:
        raise invalid(say("http.open_to_anyone", host=host))
    named = f"[{host}]" if ":" in host else host
    listener = listen(host, port)
    log_floods_seldom()
    async with open_app(settings, is_remote=True) as app:
        config = uvicorn.Config(
            build_http_app(app, token=token, bound_host=named),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            limit_concurrency=MAX_CONNECTIONS,
            http=Connection,
            backlog=MAX_UNACCEPTED,
        )
        logger.info("listening on http://%s:%d (/mcp, /sse)", named, port)
        await OrderlyServer(config).serve(sockets=[listener])


def build_http_app(app: App, *, token: str | None, bound_host: str) -> ASGIApp:
    """The ASGI application: both MCP transports and our routes behind one guard."""
    # Host and Origin are checked here for every route, the SDK's own included.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    settings = app.service.settings
    max_body = settings.max_message_bytes
    mcp_app = app.server.streamable_http_app(transport_security=unchecked, max_request_body_size=max_body)
    sse_app = app.server.sse_app(transport_security=unchecked, max_request_body_size=max_body)
    dashboard = Dashboard(app) if settings.dev else None

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with app.server.session_manager.run(), dashboard.recording() if dashboard else nullcontext():
            yield

    routes = [
        *mcp_app.routes,
        *sse_app.routes,
        *_Routes(app).all(),
        *(dashboard.routes() if dashboard else ()),
    ]
    inner = Starlette(
        routes=[*routes, *_with_slash(routes)],
        exception_handlers={AdAgentError: _refused, OSError: _refused},
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.allowed_origins),
                allow_origin_regex=LOOPBACK_ORIGIN,
                allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
                allow_headers=["*"],
                expose_headers=["Mcp-Session-Id", "ETag", "Content-Range"],
            ),
            Middleware(
                Guard,
                origins=settings.allowed_origins,
                token=token,
                open_paths=OPEN_PATHS | {PAGE_PATH} if dashboard else OPEN_PATHS,
            ),
            Middleware(PostedMessages, paths={"/mcp", "/messages"}, max_bytes=max_body),
        ],
        lifespan=lifespan,
    )
    inner.router.redirect_slashes = False  # to an absolute address, which is wrong behind a proxy that speaks TLS
    return FrontDoor(inner, (bound_host, *settings.allowed_hosts), language=app.context.language)


def _with_slash(routes: Iterable[BaseRoute]) -> list[Route]:
    """The routes with a slash after them."""
    fixed = [route for route in routes if isinstance(route, Route) and "{" not in route.path and len(route.path) > 1]
    return [Route(f"{route.path}/", route.endpoint, methods=route.methods) for route in fixed]


class _Routes:
    """Our own routes."""

    def __init__(self, app: App) -> None:
        self._app = app

    def all(self) -> list[Route]:
        return [
            Route("/", self.welcome, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/files/{job_id}/{name}.png", self.file, methods=["GET"]),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def welcome(self, request: Request) -> Response:
        """What this is and where to go; the same for everyone."""
        language = request.scope["language"]
        return JSONResponse(
            {
                "name": "ad-agent-mcp",
                "what": say("http.what").in_(language),
                "endpoints": {"streamable HTTP": "/mcp", "SSE": "/sse"},
                "more": say("http.more").in_(language),
            }
        )

    async def health(self, request: Request) -> Response:
        """Everything for who has the token, two facts for who has not."""
        report = await self._app.context.health(request.scope["language"])
        if request.scope["has_token"]:
            return JSONResponse(report.model_dump(mode="json"))
        return JSONResponse({"status": report.status, "gpu_available": report.gpu_available})

    async def file(self, request: Request) -> Response:
        """One layer of a job; ranges and ETags are the framework's."""
        path = status = None
        with suppress(AdAgentError, FileNotFoundError):  # no id of a job, or the job goes this very moment
            path = await anyio.to_thread.run_sync(lambda: self._app.context.store.layer(**request.path_params))
            status = await anyio.to_thread.run_sync(path.stat) if path is not None else None
        if path is None or status is None:
            raise AdAgentError(ErrorCode.NOT_FOUND, say("http.no_picture"))
        response = StaticFiles().file_response(path, status, request.scope)
        response.headers["cache-control"] = "private, no-cache"
        return response

    async def upload(self, request: Request) -> Response:
        """Keep the picture in the request's body, for use as an image reference."""
        service = self._app.service
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("multipart/") or kind == "application/json":
            raise BodyRefusedError(400, say("http.body_of_kind", kind=kind, how=say("http.how_to_upload")))
        content = await read_body(
            request, max_bytes=service.settings.max_image_bytes, setting="AD_AGENT_MAX_IMAGE_BYTES"
        )
        if not content:
            raise BodyRefusedError(400, say("http.body_empty", how=say("http.how_to_upload")))
        return JSONResponse(await anyio.to_thread.run_sync(service.admission.keep, content), status_code=201)

    async def metrics(self, request: Request) -> Response:
        """Everything that Prometheus is told."""
        return await anyio.to_thread.run_sync(self._scraped)

    def _scraped(self) -> Response:
        from .prometheus import CONTENT_TYPE, expose  # not at start, which its library would slow down

        context = self._app.context
        return Response(expose(context.service, context.monitor.sample().gpu_info), media_type=CONTENT_TYPE)


async def _refused(request: Request, error: Exception) -> Response:
    """The answer to an `AdAgentError`, or to a lack of file descriptors; other errors go on."""
    info = out_of_files(error) or (error.info if isinstance(error, AdAgentError) else None)
    if info is None:
        raise error
    status_code = error.status_code if isinstance(error, BodyRefusedError) else _STATUS_CODES.get(info.code, 400)
    shown = shown_in(request.scope["language"], info)
    return JSONResponse({"error": shown.model_dump(mode="json")}, status_code=status_code)
