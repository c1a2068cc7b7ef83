"""JPEG files: whether all of a picture is there, which the decoder does not tell.

libjpeg fills what is missing and goes on. So a picture's only scan is given to it without the end mark: whether it
asks for more, or is done too early, shows in what it has read. Of several scans, or one with restart marks, each run
of coded data gets something behind it that a complete one ignores: an incomplete one then gives another picture.
"""

import io
import re
from collections.abc import Iterator
from itertools import pairwise

from ..contract.texts import TextError, say
from .headers import APP2, EOI, FRAMES, SOS, segments

MAX_SCANS = 64
"""Each scan of a progressive JPEG runs over the whole picture; encoders write 6 to 24."""
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_LOOKAHEAD = b"\0" * 8
_SURPLUS_BYTES = 16
"""Some cameras leave a little padding before the end mark."""
_FILLING = bytes((0x5A, 0xC3, 0x17, 0xE8, 0x94, 0x2D, 0x71, 0xB6)) * 8
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_UNKNOWN = 99


class TooManyScansError(Exception):
    """Raised when decoding would take far longer than the picture's size warrants."""


class JpegStream(io.BytesIO):
    """A JPEG, to be read once by a decoder.

    Attributes:
        other: a JPEG that shows the same picture if, and hardly unless, each run of this one is complete; None
            where there is one run, of which `require_read_up` tells.

    Raises:
        TooManyScansError: more than `MAX_SCANS`.
        ValueError: not all of the picture is there.
    """

    def __init__(self, data: bytes) -> None:
        parts, frame, scans, has_end = _parts_of(data)
        coded = [k for k, (is_coded, _) in enumerate(parts) if is_coded]
        whole = b"".join(content for _, content in parts)
        self.other: bytes | None = None
        self._edge = 0
        end = b"\xff\xd9"
        if len(coded) > 1:
            self.other = b"".join(content + _FILLING * is_coded for is_coded, content in parts) + end
        if frame in _SEQUENTIAL and scans == 1:
            self._edge = len(whole) - min(_SURPLUS_BYTES, len(parts[coded[-1]][1]))
            whole += _LOOKAHEAD
        elif not has_end:
            raise TextError(say("media.jpeg_no_end"))
        else:
            whole += end
        super().__init__(whole)

    def read(self, size: int | None = -1, /) -> bytes:
        here = self.tell()
        if size is None or size < 0:
            size = len(self.getbuffer())
        # One read never crosses the edge, so that `tell` shows whether what lies behind it was needed.
        return super().read(min(size, self._edge - here) if here < self._edge else size)

    def require_read_up(self) -> None:
        """Raises ValueError when the decoder was done long before the data ended."""
        if self.tell() <= self._edge:
            raise TextError(say("media.jpeg_other_size"))


def _parts_of(data: bytes) -> tuple[list[tuple[bool, bytes]], int, int, bool]:
    """The pieces of a JPEG up to its end mark, each with whether it is coded data; its kind, its scans, and whether it
    has that mark.

    Restart marks begin a piece. What tells of further pictures behind this one is left out.
    """
    parts: list[tuple[bool, bytes]] = []
    frame, scans, last, has_end = 0, 0, 0, False
    unknown_bits: dict[int, list[int]] = {}
    found = list(_limited(data))
    for (marker, at, body), follows in zip(found, [*(at for _, at, _ in found[1:]), len(data)], strict=True):
        start = at + 4 + len(body)
        if marker == EOI:
            has_end = True
            parts.append((False, data[last:at]))
            break
        if marker in FRAMES:
            frame, unknown_bits = marker, {body[k]: [_UNKNOWN] * 64 for k in range(6, len(body) - 2, 3)}
        elif marker == APP2 and body.startswith(b"MPF\0"):
            parts.append((False, data[last:at]))
            last = start
        elif marker == SOS:
            scans += 1
            _take_scan(frame, body, unknown_bits)
            parts.append((False, data[last:start]))
            parts += _runs(data[start:follows])
            last = follows
        elif 0x02 <= marker < 0xC0:
            raise TextError(say("media.jpeg_foreign"))
    if not scans or any(bits for of_component in unknown_bits.values() for bits in of_component):
        raise TextError(say("media.jpeg_parts_missing"))
    return [part for part in parts if part[1]], frame, scans, has_end


def _limited(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    scans = 0
    for segment in segments(data):
        scans += segment[0] == SOS
        if scans > MAX_SCANS:
            raise TooManyScansError
        yield segment


def _runs(coded: bytes) -> list[tuple[bool, bytes]]:
    """Coded data parted before each restart mark."""
    marks = list(_RESTART.finditer(coded))
    if [mark[1][0] & 7 for mark in marks] != [k % 8 for k in range(len(marks))]:
        raise TextError(say("media.jpeg_parts_missing"))
    cuts = [0, *(mark.start() for mark in marks), len(coded)]
    return [(True, coded[start:end]) for start, end in pairwise(cuts)]


def _take_scan(frame: int, header: bytes, unknown_bits: dict[int, list[int]]) -> None:
    """Note how many bits of the coefficients of a scan's components are unknown after it."""
    count = header[0] if header else 0
    if len(header) < 4 + 2 * count:
        raise TextError(say("media.jpeg_header_cut"))
    first, last, shift = 0, 63, 0
    if frame == _PROGRESSIVE:
        first, last, shift = header[-3], min(63, header[-2]), header[-1] & 15
    for name in header[1 : 1 + 2 * count : 2]:
        if name in unknown_bits:
            unknown_bits[name][first : last + 1] = [shift] * (last + 1 - first)
