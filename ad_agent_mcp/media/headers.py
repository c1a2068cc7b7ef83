"""What the first bytes of a picture file tell: its kind, and the size it claims. Decodes nothing."""

import re
from collections.abc import Iterator

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
"""JPEG markers without a body: TEM, RST0-7, SOI."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a header that tells the picture's size."""
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_NEXT_BUT_RESTARTS = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
EOI, SOS, APP2 = 0xD9, 0xDA, 0xE2


def is_heic(data: bytes) -> bool:
    """Whether this is a HEIF file that is no AVIF."""
    if data[4:8] != b"ftyp":
        return False
    brands = {data[at : at + 4] for at in (8, *range(16, min(_big(data[:4]), 256, len(data)), 4))}
    return not brands.isdisjoint(_HEIC_BRANDS) and b"avif" not in brands and b"avis" not in brands


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG, JPEG, WebP, AVIF or HEIC claims, or None where it does not say."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return _big(data[16:20]), _big(data[20:24])
    if data.startswith(b"\xff\xd8"):
        return next(((_big(body[3:5]), _big(body[1:3])) for kind, _, body in segments(data) if kind in FRAMES), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data[4:8] == b"ftyp":
        body = _box(data, b"meta") or b""
        sizes = [
            (_big(body[at + 8 : at + 12]), _big(body[at + 12 : at + 16]))
            for at in (found.start() for found in re.finditer(b"ispe", body))
        ]
        return max(sizes, key=lambda size: size[0] * size[1], default=None)  # tiles and thumbnails have theirs, too
    return None


def told_colour_codes(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer (ITU-T H.273) of an AVIF or HEIC that tells its colours by code."""
    if data[4:8] != b"ftyp":
        return None
    body = _box(data, b"meta") or b""
    at = body.find(b"colrnclx")
    return None if at < 0 else (_big(body[at + 8 : at + 10]), _big(body[at + 10 : at + 12]))


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The marker, place and body of each segment of a JPEG, the end (EOI) included.

    The body of a scan (SOS) is its header; the next place is behind its coded data. Stops where the file does.
    """
    at = 2
    while found := _NEXT_MARKER.search(data, at):
        marker, start = found[0][-1], found.end()
        if marker in _NO_LENGTH or marker == EOI:
            yield marker, found.start(), b""
            if marker == EOI:
                return
            at = start
            continue
        at = start + _big(data[start : start + 2])
        yield marker, found.start(), data[start + 2 : at]
        if marker == SOS:
            ends = _NEXT_BUT_RESTARTS.search(data, at)
            if ends is None:
                return
            at = ends.start()


def _box(data: bytes, kind: bytes) -> bytes | None:
    """The content of the first top-level box of a `kind` in an ISO media file."""
    at = 0
    while at + 8 <= len(data):
        size, start = _big(data[at : at + 4]), at + 8
        if size == 1:
            size, start = _big(data[start : start + 8]), start + 8
        end = at + size if size else len(data)
        if data[at + 4 : at + 8] == kind:
            return data[start:end]
        if end <= at:
            return None
        at = end
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data[24:27]) + 1, _little(data[27:30]) + 1
    if kind == b"VP8L":
        bits = _little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
