"""Who may talk to the HTTP server: Host, Origin and bearer token, checked on every route in one place."""

import hmac
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
OPEN_PATHS = frozenset({"/health"})
"""Answered without a token; what they tell is small."""
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Access:
    """Who is let in: Host against DNS rebinding, Origin against other web pages, and the token."""

    def __init__(
        self, *, hosts: Iterable[str], origins: Iterable[str], token: str | None, open_paths: frozenset[str]
    ) -> None:
        self._hosts = LOOPBACK_NAMES | frozenset(hosts)
        self._origins = frozenset(origins)
        self._token = token.encode() if token is not None else None
        self._open_paths = open_paths

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def has_token(self, headers: Headers) -> bool:
        """Whether a request may pass as far as the token goes; compared in constant time, never logged."""
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)

    def refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        """The answer to a request that is not let in, or None."""
        host = headers.get("host", "")
        if host not in self._hosts and host_name(host) not in self._hosts:
            return _refuse(421, f"This server does not answer to the host {host[:100]!r}; see AD_AGENT_ALLOWED_HOSTS.")
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed_origin(origin):
            return _refuse(403, f"Pages from {origin[:100]!r} may not use this server; see AD_AGENT_ALLOWED_ORIGINS.")
        if path in self._open_paths or self.has_token(headers):
            return None
        refusal = _refuse(401, "A bearer token is needed: Authorization: Bearer <AD_AGENT_TOKEN>.")
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal

    def _is_allowed_origin(self, origin: str) -> bool:
        scheme, _, rest = origin.partition("://")
        return origin in self._origins or (scheme in ("http", "https") and host_name(rest) in LOOPBACK_NAMES)


class Guard:
    """ASGI middleware around everything the server answers: lets in whom `Access` lets in."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._access.refusal(scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def host_name(host: str) -> str:
    """A Host header without its port."""
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether binding to `host` is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse(status_code: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status_code)
