"""The listening socket and its connections: how many, how they end, what is logged of a flood. Knows no routes."""

import asyncio
import logging
import socket
import sys
import time
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..contract.errors import invalid
from ..contract.texts import say

SHUTDOWN_GRACE_S = 2
MAX_CONNECTIONS = 400
"""Requests on more are answered with 503, and more than twice as many are not even read."""
MAX_UNACCEPTED = 128
REQUEST_TIMEOUT_S = 20.0
"""A connection that has not sent the head of a request for so long is closed: it takes the place of another."""
_FLOODS: tuple[str, ...] = ("socket.accept() out of system resource", "Exceeded concurrency limit.")
_FLOOD_EVERY_S = 10.0


def log_floods_seldom() -> None:
    """From now on, log what too many connections cause by the thousand once in `_FLOOD_EVERY_S`.

    That what still ran when the server ended was cancelled is one line without this, and no traceback for each.
    """
    for name in ("asyncio", "uvicorn.error"):
        logging.getLogger(name).addFilter(_Seldom())
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class Connection(H11Protocol):
    """A connection, which is dropped at once where there are far too many: each costs a file descriptor.

    One that asks for nothing is closed after `REQUEST_TIMEOUT_S`, twice that at most.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > 2 * MAX_CONNECTIONS:
            transport.abort()
        self._look_again = self.loop.call_later(REQUEST_TIMEOUT_S, self._close_when_idle, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        super().connection_lost(exc)

    def _close_when_idle(self, last: object) -> None:
        """Close the connection if no request came after `last`, which was over when it was looked at before."""
        is_idle = not self.cycle or self.cycle.response_complete  # there is none before the first request
        if is_idle and self.cycle is last:
            self.transport.close()
            return
        last = self.cycle if is_idle else object()
        self._look_again = self.loop.call_later(REQUEST_TIMEOUT_S, self._close_when_idle, last)


class OrderlyServer(uvicorn.Server):
    """Ends in order on a signal, instead of ending by it when everything is done."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; before the server starts, so that a taken port is told plainly.

    Raises:
        AdAgentError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol number asyncio knows TCP, and sends small answers without waiting for more (TCP_NODELAY).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise invalid(say("http.cannot_listen", host=host, port=port, reason=error.strerror)) from error
    return listener


class _Seldom(logging.Filter):
    """Lets one of each flood's messages through in `_FLOOD_EVERY_S`, and every other message."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = dict.fromkeys(_FLOODS, 0.0)

    def filter(self, record: logging.LogRecord) -> bool:
        flood = next((flood for flood in _FLOODS if str(record.msg).startswith(flood)), None)
        if flood is None:
            return True
        is_due = time.monotonic() >= self._next_at[flood]
        if is_due:
            self._next_at[flood] = time.monotonic() + _FLOOD_EVERY_S
        return is_due
