"""What a client's bytes are: a JSON-RPC message, or the error that answers them. Knows nothing about transports."""

import re
from contextlib import suppress
from typing import Any, cast

from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    jsonrpc_message_adapter,
)
from pydantic import TypeAdapter, ValidationError

MAX_WORD_CHARS = 10_000
"""Longest text of a message outside a tool's arguments: an answer may repeat it, and answers have a budget."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[][{}:,]|[^][{}:,"\s]++', re.DOTALL)
"""A string, to the end where it has none: each byte is looked at once, whatever is sent."""
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_FREE_OF_LIMITS = frozenset({"icons"})


class RefusedMessageError(Exception):
    """Raised when bytes are no message that can be handled; `answer` is what their sender is told, if anything."""

    def __init__(self, answer: JSONRPCError | None) -> None:
        super().__init__(answer.error.message if answer is not None else "a notification that is none")
        self.answer = answer


def read_message(data: bytes) -> JSONRPCMessage:
    """The one message that `data` holds as UTF-8; a byte-order mark before it is skipped.

    Raises:
        RefusedMessageError: it is no JSON (-32700), or JSON but no message of the protocol (-32600).
    """
    data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        message = _JSON.validate_json(data)
    except ValidationError as error:
        what = error.errors()[0].get("ctx", {}).get("error", "it is damaged")
        why = f"This is not one JSON value in UTF-8 ({what}). Send one message a line."
        raise _refused(PARSE_ERROR, why, id_in(data)) from None
    if not isinstance(message, dict):
        why = "Send one JSON object at a time: {'jsonrpc': '2.0', 'id': ..., 'method': ...}. There are no batches."
        raise _refused(INVALID_REQUEST, why)
    message = cast(dict[str, Any], message)
    request_id = _usable_id(message.get("id"))
    if "id" in message and request_id is None:
        raise _refused(INVALID_REQUEST, f"id has to be a whole number or a text of up to {MAX_WORD_CHARS} characters.")
    if _longest_word(message) > MAX_WORD_CHARS:
        why = f"Only a tool's arguments may hold texts of more than {MAX_WORD_CHARS:,} characters."
        raise _refused(INVALID_REQUEST, why, request_id)
    try:
        return jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        is_request = "id" in message and "method" in message
        if not is_request and not message.keys().isdisjoint({"method", "result", "error"}):
            raise RefusedMessageError(None) from None  # a notification or an answer, which nobody waits for
        why = "A request has jsonrpc '2.0', an id, a method (text) and, if any, params (an object)."
        raise _refused(INVALID_REQUEST, why, request_id) from None


def too_long(start: bytes, limit_bytes: int) -> RefusedMessageError:
    """The refusal of a message that begins with `start` and goes on beyond the limit."""
    why = f"A message may have {limit_bytes:,} bytes. Give large pictures by path or upload."
    return _refused(INVALID_REQUEST, why, id_in(start))


def id_in(data: bytes) -> int | str | None:
    """The id of the first object in `data`, which may be broken anywhere else; None where it cannot be told."""
    depth = 0
    before = last = b""
    for token in _TOKEN.finditer(data):
        word = token[0]
        if depth == 1 and (before, last) == (b'"id"', b":"):
            with suppress(ValueError):
                return _usable_id(_JSON.validate_json(word))
            return None
        depth += (word in (b"{", b"[")) - (word in (b"}", b"]"))
        if depth == 0:
            break
        before, last = last, word
    return None


def _usable_id(given: Any) -> int | str | None:
    is_usable = type(given) is int or (isinstance(given, str) and len(given) <= MAX_WORD_CHARS)
    return given if is_usable else None


def _longest_word(message: dict[str, Any]) -> int:
    """Characters of the longest text, names included, outside a tool's arguments."""
    params = message.get("params")
    if message.get("method") == "tools/call" and isinstance(params, dict):
        message = {**message, "params": {**params, "arguments": None}}
    longest = 0
    unseen: list[Any] = [message]
    while unseen:
        value = unseen.pop()
        if isinstance(value, str):
            longest = max(longest, len(value))
        elif isinstance(value, dict):
            inner = cast(dict[str, Any], value)
            unseen += inner.keys()
            unseen += [inner[name] for name in inner.keys() - _FREE_OF_LIMITS]
        elif isinstance(value, list):
            unseen += cast(list[Any], value)
    return longest


def _refused(code: int, message: str, request_id: int | str | None = None) -> RefusedMessageError:
    error = ErrorData(code=code, message=message)
    return RefusedMessageError(JSONRPCError(jsonrpc="2.0", id=request_id, error=error))
