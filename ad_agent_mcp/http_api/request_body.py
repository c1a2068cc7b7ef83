"""The bodies of requests to our own routes, read within limits of size and time. Knows nothing about what they hold."""

import logging

import anyio
from starlette.requests import ClientDisconnect, Request

from ..contract.errors import AdAgentError, ErrorCode
from ..contract.texts import Text, say

logger = logging.getLogger(__name__)

BODY_TIMEOUT_S = 60
"""A body that takes longer is not waited for: each is held in memory."""


class BodyRefusedError(AdAgentError):
    """Raised when a body is too large, too slow or torn; `status_code` is HTTP's name for it."""

    def __init__(self, status_code: int, said: Text) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, said)
        self.status_code = status_code


async def read_body(request: Request, *, max_bytes: int, setting: str = "") -> bytes:
    """The whole body.

    Args:
        request: its body is read once.
        max_bytes: the most that is read.
        setting: what sets that limit, for the refusal.

    Raises:
        BodyRefusedError: it is larger, did not arrive in `BODY_TIMEOUT_S`, or broke off.
    """
    limit = say("http.body_over_setting", most=max_bytes, setting=setting)
    too_large = BodyRefusedError(413, limit if setting else say("http.body_too_large", most=max_bytes))
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > max_bytes:
        raise too_large
    data = bytearray()
    with anyio.move_on_after(BODY_TIMEOUT_S) as reading:
        try:
            async for chunk in request.stream():
                data += chunk
                if len(data) > max_bytes:
                    raise too_large
        except ClientDisconnect as error:  # nobody reads the answer, and it is no fault of ours
            logger.info("%s %s: the client went away in its body", request.method, request.url.path[:100])
            raise BodyRefusedError(400, say("http.client_away")) from error
    if reading.cancelled_caught:
        raise BodyRefusedError(408, say("http.body_slow", seconds=BODY_TIMEOUT_S))
    return bytes(data)
