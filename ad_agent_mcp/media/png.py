"""PNG files: what in one is the picture, what its colours mean, and which colour in it is clear.

Pillow gives up on large texts and profiles, and takes the clear colour for one of 8 bits. So it is given the picture
alone, and the rest is read here.
"""

import zlib
from typing import NamedTuple

from ..contract.texts import TextError, say
from .profiles import coded_profile, gamma_profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
_TEXT_LIMIT, _PROFILE_LIMIT = 1 << 20, 16 << 20
"""The most bytes of a text and a colour profile that are unpacked."""
_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""They may hold how the picture is turned."""
_PICTURE = (b"eXIf", b"acTL", b"fcTL", b"fdAT")
_COLOUR = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_GREY, _RGB, _PALETTE = 0, 2, 3


class Png(NamedTuple):
    """A PNG as it is to be decoded.

    Attributes:
        data: a PNG with the same pixels, without the chunks that are read here.
        profile: the ICC profile of its colours; None where they are sRGB.
        key: the sample values of the clear colour, one for grey and three for RGB; None without one.
        depth: bits of a sample.
    """

    data: bytes
    profile: bytes | None
    key: tuple[int, ...] | None
    depth: int


def read_png(data: bytes) -> Png:
    """Take a PNG apart.

    Raises:
        ValueError: it is damaged, or in too many pieces.
    """
    kept, seen = bytearray(SIGNATURE), dict[bytes, bytes]()
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body, end = data[at + 4 : at + 8], data[at + 8 : at + 8 + length], at + 12 + length
        if end > len(data):
            kept += data[at:]
            break
        is_whole = zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end], "big")
        is_critical = not kind[0] & 0x20
        if is_critical and not is_whole:
            raise TextError(say("media.png_checksum"))
        is_text = kind in (b"tEXt", b"zTXt", b"iTXt") and _is_useful(kind, body) and kind not in seen
        is_kept = kind in _PICTURE or is_text or (kind == b"tRNS" and _header(seen)[1] == _PALETTE)
        if is_critical or (is_kept and is_whole):
            kept += data[at:end]
        if is_whole and kind != b"IDAT":
            seen.setdefault(kind, b"" if kind in _PICTURE else body)
        at = end
        if kind == b"IEND":
            break
    else:
        raise TextError(say("media.png_pieces", most=MAX_CHUNKS))
    depth, colours = _header(seen)
    return Png(bytes(kept), _profile(seen), _key(seen.get(b"tRNS", b""), depth, colours), depth)


def _header(seen: dict[bytes, bytes]) -> tuple[int, int]:
    """Bits of a sample, and the kind of colours."""
    header = seen.get(b"IHDR", b"")
    return (header[8], header[9]) if len(header) >= 10 else (8, _RGB)


def _is_useful(kind: bytes, body: bytes) -> bool:
    name, _, rest = body.partition(b"\0")
    if name not in _TEXTS:
        return False
    if kind == b"iTXt":
        is_packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        is_packed, rest = kind == b"zTXt", rest[kind == b"zTXt" :]
    return (_unpacked(rest, _TEXT_LIMIT) is not None) if is_packed else len(rest) <= _TEXT_LIMIT


def _unpacked(data: bytes, limit: int) -> bytes | None:
    """`data` inflated; None where it is broken or has more than `limit` bytes."""
    inflater = zlib.decompressobj()
    try:
        result = inflater.decompress(data, limit)
    except zlib.error:
        return None
    return result if inflater.eof else None


def _profile(seen: dict[bytes, bytes]) -> bytes | None:
    if len(told := seen.get(b"cICP", b"")) >= 2:
        return coded_profile(told[0], told[1])
    if b"iCCP" in seen:
        return _unpacked(seen[b"iCCP"].partition(b"\0")[2][1:], _PROFILE_LIMIT)
    if b"sRGB" in seen:
        return None
    numbers = (
        [int.from_bytes(seen[b"cHRM"][k : k + 4], "big") / 1e5 for k in range(0, 32, 4)] if b"cHRM" in seen else []
    )
    gamma = int.from_bytes(seen.get(b"gAMA", b"")[:4], "big") / 1e5
    return gamma_profile(gamma, tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _key(told: bytes, depth: int, colours: int) -> tuple[int, ...] | None:
    samples = {_GREY: 1, _RGB: 3}.get(colours, 0)
    if not samples or len(told) < 2 * samples:
        return None
    return tuple(int.from_bytes(told[k : k + 2], "big") & ((1 << depth) - 1) for k in range(0, 2 * samples, 2))
