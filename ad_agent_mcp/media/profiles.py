"""ICC profiles for colours that a file tells by code or by numbers instead of a profile.

Sources: ITU-T H.273 for the codes; ICC.1:2022 for the profile; BT.2408 for white at 203 cd/m2.
"""

import struct
from collections.abc import Callable

Point = tuple[float, float]
"""CIE x and y."""
Colour = tuple[float, float, float]

_D65, _D50 = (0.3127, 0.329), (0.9642, 1.0, 0.8249)
_BT709 = (_D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_PRIMARIES: dict[int, tuple[Point, ...]] = {
    1: _BT709,
    4: ((0.31, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),
    6: (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    7: (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    9: (_D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    12: (_D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_WHITE_NITS = 203
_TABLE_SIZE = 4096
_SRGB_GAMMA = 0.45455
_BRADFORD: tuple[Colour, ...] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))


def coded_profile(primaries: int, transfer: int) -> bytes | None:
    """The profile that two codes of ITU-T H.273 stand for; None where it is sRGB, or unknown."""
    points, curve = _PRIMARIES.get(primaries), _coded_curve(transfer)
    if points is None or curve is None or (primaries, transfer) == (1, 13):
        return None
    return _profile(points, curve)


def gamma_profile(gamma: float, points: tuple[Point, ...]) -> bytes | None:
    """The profile of a PNG's numbers.

    Args:
        gamma: the exponent from light to sample; 0 where it is not told.
        points: white, red, green and blue; empty where they are not told.

    Returns:
        None where they mean sRGB, or nothing.
    """
    is_usual = not gamma or abs(gamma - _SRGB_GAMMA) < 0.02
    primaries = points or _BT709
    told = zip(primaries, _BT709, strict=True)
    if is_usual and all(abs(one - other) < 0.003 for pair in told for one, other in zip(*pair, strict=True)):
        return None
    if not is_usual and not 0.1 < gamma < 5:
        return None
    return _profile(primaries, _parametric(0, _SRGB_CURVE) if is_usual else _parametric(1 / gamma))


def _coded_curve(transfer: int) -> bytes | None:
    if transfer in _GAMMAS:
        return _parametric(_GAMMAS[transfer])
    if transfer in (1, 6, 14, 15):
        return _parametric(0, _BT709_CURVE)
    if transfer == 13:
        return _parametric(0, _SRGB_CURVE)
    if transfer == 16:
        return _table(_pq_nits)
    return _table(_hlg_nits) if transfer == 18 else None


def _parametric(gamma: float, curve: tuple[float, ...] = ()) -> bytes:
    numbers = curve or (gamma,)
    return struct.pack(">4s4xHxx", b"para", 3 if curve else 0) + b"".join(_fixed(number) for number in numbers)


def _table(nits: Callable[[float], float]) -> bytes:
    """High dynamic range as the standard range shows it: what is lighter than paper white becomes white."""
    light = [min(1.0, nits(k / (_TABLE_SIZE - 1)) / _WHITE_NITS) for k in range(_TABLE_SIZE)]
    return struct.pack(f">4s4xI{_TABLE_SIZE}H", b"curv", _TABLE_SIZE, *(round(65535 * value) for value in light))


def _pq_nits(signal: float) -> float:
    power = signal ** (1 / 78.84375)
    return 10_000 * (max(0.0, power - 0.8359375) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)


def _hlg_nits(signal: float) -> float:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = signal * signal / 3 if signal <= 0.5 else (2.718281828459045 ** ((signal - c) / a) + b) / 12
    return 1000 * light**1.2


def _profile(points: tuple[Point, ...], curve: bytes) -> bytes | None:
    """A display profile of white, red, green and blue, all channels with one curve."""
    try:
        columns = _adapted(points)
    except ZeroDivisionError:
        return None
    tags = {b"wtpt": _xyz(_D50)}
    for name, column in zip(b"rgb", columns, strict=True):
        tags[bytes((name,)) + b"XYZ"] = _xyz(column)
        tags[bytes((name,)) + b"TRC"] = curve
    tags[b"desc"] = tags[b"cprt"] = struct.pack(">4s4xIIHHII", b"mluc", 1, 12, 0x656E, 0x5553, 8, 28) + "told".encode(
        "utf-16-be"
    )
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + b"\0" * 28 + b"".join(_fixed(value) for value in _D50) + b"\0" * 48 + table + body


def _adapted(points: tuple[Point, ...]) -> tuple[Colour, ...]:
    """XYZ of full red, green and blue for an eye used to D50."""
    white, *primaries = (_from_xy(point) for point in points)
    shares = _solved(primaries, white)
    cone_white, cone_d50 = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    gains = [there / here for here, there in zip(cone_white, cone_d50, strict=True)]
    columns = tuple(zip(*_BRADFORD, strict=True))
    adapted: list[Colour] = []
    for colour, share in zip(primaries, shares, strict=True):
        red, green, blue = (share * gain * cone for gain, cone in zip(gains, _times(_BRADFORD, colour), strict=True))
        adapted.append(_solved(columns, (red, green, blue)))
    return tuple(adapted)


def _from_xy(point: Point) -> Colour:
    x, y = point
    return x / y, 1.0, (1 - x - y) / y


def _times(rows: tuple[Colour, ...], colour: Colour) -> Colour:
    first, second, third = (sum(one * other for one, other in zip(row, colour, strict=True)) for row in rows)
    return first, second, third


def _solved(columns: list[Colour] | tuple[Colour, ...], wanted: Colour) -> Colour:
    """How much of each of three columns makes `wanted` (Cramer's rule)."""
    one, two, three = columns
    whole = _volume(one, two, three)
    shares = _volume(wanted, two, three), _volume(one, wanted, three), _volume(one, two, wanted)
    return shares[0] / whole, shares[1] / whole, shares[2] / whole


def _volume(one: Colour, two: Colour, three: Colour) -> float:
    return (
        one[0] * (two[1] * three[2] - three[1] * two[2])
        - two[0] * (one[1] * three[2] - three[1] * one[2])
        + three[0] * (one[1] * two[2] - two[1] * one[2])
    )


def _xyz(colour: Colour) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in colour)


def _fixed(value: float) -> bytes:
    """s15Fixed16."""
    return struct.pack(">i", round(max(-32768.0, min(32767.0, value)) * 65536))
