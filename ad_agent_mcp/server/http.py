"""The HTTP server: streamable HTTP at `/mcp`, SSE at `/sse` + `/messages/`, and a few plain routes of ours."""

import logging
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

import anyio.to_thread
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.staticfiles import NotModifiedResponse
from starlette.types import ASGIApp

from ..config import Settings
from ..contract.errors import AdAgentError, ErrorCode, invalid
from .app import App, open_app
from .auth import LOOPBACK_ORIGIN, OPEN_PATHS, FrontDoor, Guard, is_loopback
from .bodies import BodyRefusedError, read_body
from .dashboard import PAGE_PATH, Dashboard

logger = logging.getLogger(__name__)

_STATUS_CODES = {ErrorCode.NOT_FOUND: 404, ErrorCode.STORAGE_FULL: 507, ErrorCode.BUSY: 503}
SHUTDOWN_GRACE_S = 2


async def serve_http(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AdAgentError: `host` is reachable from outside and there is no token.
    """
    token = settings.bearer_token
    if not is_loopback(host) and token is None:
        raise AdAgentError(
            ErrorCode.INVALID_REQUEST,
            f"Listening on {host} would let anyone in. Set AD_AGENT_TOKEN (16 characters or more) or "
            "AD_AGENT_TOKEN_FILE, or bind to 127.0.0.1.",
        )
    named = f"[{host}]" if ":" in host else host
    listener = _listen(host, port)
    async with open_app(settings, is_remote=True) as app:
        config = uvicorn.Config(
            build_http_app(app, token=token, bound_host=named),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        )
        logger.info("listening on http://%s:%d (/mcp, /sse)", named, port)
        await _Server(config).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends in order on a signal, instead of ending by it when everything is done."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; before the server starts, so that a taken port is told plainly.

    Raises:
        AdAgentError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise invalid(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port or --host.") from error
    return listener


def build_http_app(app: App, *, token: str | None, bound_host: str) -> ASGIApp:
    """The ASGI application: both MCP transports and our routes behind one guard."""
    # Host and Origin are checked here for every route, the SDK's own included.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    settings = app.service.settings
    max_body = settings.max_image_bytes * 3 + (1 << 20)  # two pictures in base64 and their arguments
    mcp_app = app.server.streamable_http_app(transport_security=unchecked, max_request_body_size=max_body)
    sse_app = app.server.sse_app(transport_security=unchecked, max_request_body_size=max_body)
    dashboard = Dashboard(app) if settings.dev else None

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with app.server.session_manager.run(), dashboard.recording() if dashboard else nullcontext():
            yield

    inner = Starlette(
        routes=[
            *mcp_app.routes,
            *sse_app.routes,
            *_Routes(app).all(),
            *(dashboard.routes() if dashboard else ()),
        ],
        exception_handlers={AdAgentError: _refused},
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
        ],
        lifespan=lifespan,
    )
    return FrontDoor(inner, (bound_host, *settings.allowed_hosts))


class _Routes:
    """Our own routes."""

    def __init__(self, app: App) -> None:
        self._app = app

    def all(self) -> list[Route]:
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/files/{job_id}/{name}.png", self.file, methods=["GET"]),
            Route("/upload", self.upload, methods=["POST"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def health(self, request: Request) -> Response:
        """Everything for who has the token, two facts for who has not."""
        report = await self._app.desk.health()
        if request.scope["has_token"]:
            return JSONResponse(report.model_dump(mode="json"))
        return JSONResponse({"status": report.status, "gpu_available": report.gpu_available})

    async def file(self, request: Request) -> Response:
        """One layer of a job; ranges and ETags are the framework's."""
        path = status = None
        with suppress(AdAgentError, FileNotFoundError):  # no id of a job, or the job goes this very moment
            path = await anyio.to_thread.run_sync(lambda: self._app.desk.store.layer(**request.path_params))
            status = await anyio.to_thread.run_sync(path.stat) if path is not None else None
        if path is None or status is None:
            raise AdAgentError(ErrorCode.NOT_FOUND, "There is no such picture.")
        response = FileResponse(
            path, media_type="image/png", headers={"cache-control": "private, no-cache"}, stat_result=status
        )
        known = request.headers.get("if-none-match", "")
        if response.headers["etag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            return NotModifiedResponse(response.headers)
        return response

    async def upload(self, request: Request) -> Response:
        """Keep the picture in the request's body, for use as an image reference."""
        service = self._app.service
        content = await read_body(
            request, max_bytes=service.settings.max_image_bytes, setting="AD_AGENT_MAX_IMAGE_BYTES"
        )
        return JSONResponse(await anyio.to_thread.run_sync(service.intake.keep, content), status_code=201)

    async def metrics(self, request: Request) -> Response:
        """Everything that Prometheus is told."""
        return await anyio.to_thread.run_sync(self._scraped)

    def _scraped(self) -> Response:
        from .exposition import CONTENT_TYPE, expose  # not at start, which its library would slow down

        desk = self._app.desk
        return Response(expose(desk.service, desk.monitor.sample().gpu_info), media_type=CONTENT_TYPE)


async def _refused(_: Request, error: Any) -> Response:
    status_code = error.status_code if isinstance(error, BodyRefusedError) else _STATUS_CODES.get(error.info.code, 400)
    return JSONResponse({"error": error.info.model_dump(mode="json")}, status_code=status_code)
