"""Who may talk to the HTTP server, checked on every route in one place, and the language that they read."""

import ipaddress
import re
from collections.abc import Iterable
from hmac import compare_digest
from typing import get_args

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..contract.texts import Language, Text, say

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
OPEN_PATHS = frozenset({"/", "/health"})
"""Answered without a token; what they tell is small."""
LOOPBACK_ORIGIN = r"https?://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(:\d{1,5})?")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""On every answer that does not bring its own."""


class FrontDoor:
    """ASGI application around the whole server, its error pages too.

    Checks Host first, against DNS rebinding, and seals every answer. `scope["language"]` tells the routes what the
    client reads: what it prefers, if that is known here, else `language`.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], *, language: Language = "en") -> None:
        self._app = app
        self._language: Language = language
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = False

        async def send_sealed(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                if is_begun:  # the SDK begins an empty answer when a stream that it answered with has ended
                    return
                is_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_sealed)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        preferred = headers.get("accept-language", "")[:2].lower()
        scope["language"] = preferred if preferred in get_args(Language) else self._language
        host = headers.get("host", "").lower()
        parts = _HOST.fullmatch(host)
        if parts is not None and not self._hosts.isdisjoint((host, parts[1])):
            return None
        return _refuse(scope, 421, say("http.other_host", host=repr(host[:100])))


class Guard:
    """ASGI middleware inside CORS, whose headers a page needs on a refusal too: checks which page asks, and the token.

    Browsers tell a page by its Origin; of what is embedded, or followed as a link, only that it is cross-site. Programs
    that are no browsers tell neither.

    `scope["has_token"]` tells the routes whether the request brought the token that is asked for.
    """

    def __init__(self, app: ASGIApp, *, origins: Iterable[str], token: str | None, open_paths: frozenset[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._token = token.encode() if token is not None else None
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not re.fullmatch(LOOPBACK_ORIGIN, origin):
            return _refuse(scope, 403, say("http.other_origin", origin=repr(origin[:100])))
        if origin is None and headers.get("sec-fetch-site", "").lower() == "cross-site":
            return _refuse(scope, 403, say("http.embedded"))
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip().encode()
        scope["has_token"] = bool(self._token) and scheme.lower() == "bearer" and compare_digest(given, self._token)
        if scope["has_token"] or self._token is None or scope["path"] in self._open_paths:
            return None
        refusal = _refuse(scope, 401, say("http.no_token"))
        refusal.headers["www-authenticate"] = "Bearer"
        return refusal


def is_loopback(host: str) -> bool:
    """Whether binding to `host` is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse(scope: Scope, status_code: int, told: Text) -> JSONResponse:
    return JSONResponse({"error": told.in_(scope["language"])}, status_code=status_code)
