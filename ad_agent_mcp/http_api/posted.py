"""Messages posted over HTTP: read within limits and checked before the SDK sees them, as stdio does with its lines."""

from collections.abc import Collection

import anyio.to_thread
from mcp.types import INVALID_REQUEST, ErrorData, JSONRPCError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..mcp_api.envelope import BYTE_ORDER_MARK, RefusedMessageError, read_message
from .request_body import BodyRefusedError, read_body

_READ_INLINE_BYTES = 1 << 16


class PostedMessages:
    """ASGI middleware that answers what is posted to `paths` and is no message, with an error of JSON-RPC."""

    def __init__(self, app: ASGIApp, *, paths: Collection[str], max_bytes: int) -> None:
        self._app = app
        self._paths = paths
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].rstrip("/") not in self._paths:
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(Request(scope, receive), max_bytes=self._max_bytes)
            if len(body) > _READ_INLINE_BYTES:
                await anyio.to_thread.run_sync(read_message, body)
            else:
                read_message(body)
        except BodyRefusedError as refusal:
            await _answer(refusal.status_code, _error(str(refusal)))(scope, receive, send)
        except RefusedMessageError as refusal:
            await _answer(400, refusal.answer or _error(str(refusal)))(scope, receive, send)
        else:
            await self._app(scope, _again(body.removeprefix(BYTE_ORDER_MARK), receive), send)


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body was read already."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


def _error(message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=message))


def _answer(status_code: int, error: JSONRPCError) -> JSONResponse:
    return JSONResponse(error.model_dump(mode="json", by_alias=True, exclude_unset=True), status_code=status_code)
