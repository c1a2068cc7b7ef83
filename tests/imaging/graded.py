"""Photos with a known answer: drawn products on generated backdrops, and how well they are cut out.

`python -m tests.imaging.graded` prints the table; `... sheet FOLDER` also writes contact sheets there.
The halves `TUNED` and `HELD_OUT` are told apart in the table, but thresholds were set with an eye on some of
both, so neither row is a promise for products never seen.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ad_agent_mcp.imaging.cutout import cut_out

SIDE = 560
_FINE = 2
_BIG = SIDE * _FINE

PLAIN = ("white", "grey gradient", "pastel gradient")
TEXTURED = ("wood", "brick", "grass")
BLURRED = ("blurred clutter",)
BACKDROPS = (*PLAIN, *TEXTURED, *BLURRED, "sharp clutter")


class Photo(NamedTuple):
    picture: np.ndarray  # uint8 (SIDE, SIDE, 3)
    truth: np.ndarray  # float32 (SIDE, SIDE), in [0, 1]


class Grade(NamedTuple):
    overlap: float
    core_is_exact: bool
    route: str
    confidence: float
    seconds: float
    rgba: np.ndarray


class Sheet:
    """What a product shows (`rgb`), how much it hides (`cover`) and where it is (`truth`), drawn large."""

    def __init__(self):
        self.rgb = np.zeros((_BIG, _BIG, 3), np.float32)
        self.cover = np.zeros((_BIG, _BIG), np.float32)
        self.truth = np.zeros((_BIG, _BIG), np.float32)

    def paint(self, mask, colour, shade="flat", cover=1.0):
        rows, columns = np.nonzero(mask)
        shades = {"flat": _flat, "round": _round, "ball": _ball}[shade](mask, rows, columns)
        self.rgb[rows, columns] = np.clip(np.float32(colour) * shades[:, None] + 28 * (shades[:, None] > 1.12), 0, 255)
        self.cover[rows, columns] = cover
        self.truth[rows, columns] = 1

    def punch(self, mask):
        self.cover[mask] = self.truth[mask] = 0


def _flat(mask, rows, columns):
    return 1.03 - 0.08 * (rows - rows.min()) / max(1, np.ptp(rows))


def _round(mask, rows, columns):
    first = np.full(_BIG, _BIG)
    last = np.zeros(_BIG, int)
    np.minimum.at(first, rows, columns)
    np.maximum.at(last, rows, columns)
    across = (columns - first[rows]) / np.maximum(1, (last - first)[rows]) * 2 - 1
    return (
        0.62 + 0.40 * np.sqrt(np.clip(1 - (across + 0.25) ** 2, 0, 1)) + 0.22 * np.exp(-(((across + 0.5) / 0.1) ** 2))
    )


def _ball(mask, rows, columns):
    x = (columns - columns.mean()) / (np.ptp(columns) / 2)
    y = (rows - rows.mean()) / (np.ptp(rows) / 2)
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = -0.45 * x - 0.55 * y + 0.7 * z
    return 0.58 + 0.5 * np.clip(light, 0, 1) + 0.3 * np.clip(light, 0, 1) ** 30


def _polygon(*points):
    sheet = np.zeros((_BIG, _BIG), np.uint8)
    cv2.fillPoly(sheet, [np.int32(np.float32(points) * _BIG)], 1)
    return sheet > 0


def _curve(*points):
    """A closed smooth outline through `points` (Catmull-Rom)."""
    p = np.float32(points)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 16, endpoint=False)[:, None, None]
    path = p + 0.5 * t * (
        after - before + t * (2 * before - 5 * p + 4 * after - beyond + t * (3 * (p - after) + beyond - before))
    )
    return _polygon(*path.transpose(1, 0, 2).reshape(-1, 2))


def _box(left, top, right, bottom, radius=0.0):
    sheet = np.zeros((_BIG, _BIG), np.uint8)
    r = round(radius * _BIG)
    a, b, c, d = (round(v * _BIG) for v in (left, top, right, bottom))
    cv2.rectangle(sheet, (a + r, b), (c - r, d), 1, -1)
    cv2.rectangle(sheet, (a, b + r), (c, d - r), 1, -1)
    for x in (a + r, c - r):
        for y in (b + r, d - r):
            cv2.circle(sheet, (x, y), r, 1, -1)
    return sheet > 0


def _oval(x, y, across, down, thick=None):
    sheet = np.zeros((_BIG, _BIG), np.uint8)
    width = -1 if thick is None else round(thick * _BIG)
    cv2.ellipse(
        sheet, (round(x * _BIG), round(y * _BIG)), (round(across * _BIG), round(down * _BIG)), 0, 0, 360, 1, width
    )
    return sheet > 0


def _line(start, end, thick):
    sheet = np.zeros((_BIG, _BIG), np.uint8)
    ends = [tuple(round(v * _BIG) for v in point) for point in (start, end)]
    cv2.line(sheet, ends[0], ends[1], 1, max(1, round(thick * _BIG)))
    return sheet > 0


def _bottle(s):
    s.paint(_box(0.36, 0.34, 0.64, 0.90, 0.05) | _box(0.44, 0.18, 0.56, 0.4), (38, 108, 78), "round")
    s.paint(_box(0.43, 0.10, 0.57, 0.19, 0.012), (34, 32, 38), "round")
    s.paint(_box(0.363, 0.52, 0.637, 0.76), (238, 229, 205), "round")
    s.paint(_oval(0.5, 0.6, 0.06, 0.05), (200, 60, 50))


def _jar(s):
    s.paint(_box(0.28, 0.34, 0.72, 0.88, 0.06), (168, 92, 30), "round")
    s.paint(_box(0.27, 0.24, 0.73, 0.37, 0.02), (62, 52, 46), "round")
    s.paint(_box(0.30, 0.50, 0.70, 0.74), (244, 240, 232), "round")
    s.paint(_box(0.36, 0.56, 0.64, 0.60), (90, 60, 40))


def _tube(s):
    s.paint(_polygon((0.37, 0.12), (0.63, 0.12), (0.60, 0.78), (0.40, 0.78)), (236, 176, 186), "round")
    s.paint(_box(0.405, 0.77, 0.595, 0.92, 0.012), (250, 248, 244), "round")
    s.paint(_box(0.42, 0.32, 0.58, 0.42), (150, 50, 90))


def _mug(s):
    s.paint(_oval(0.70, 0.56, 0.13, 0.15), (70, 110, 170), "ball")
    s.punch(_oval(0.70, 0.56, 0.085, 0.105))
    s.paint(_box(0.26, 0.30, 0.68, 0.86, 0.05), (76, 120, 184), "round")
    s.paint(_oval(0.47, 0.31, 0.21, 0.045), (52, 36, 26))
    s.paint(_oval(0.46, 0.58, 0.08, 0.08), (242, 240, 235))


def _white_box(s):
    s.paint(_polygon((0.24, 0.34), (0.56, 0.40), (0.56, 0.90), (0.24, 0.80)), (240, 240, 242))
    s.paint(_polygon((0.56, 0.40), (0.80, 0.32), (0.80, 0.78), (0.56, 0.90)), (203, 204, 210))
    s.paint(_polygon((0.24, 0.34), (0.48, 0.27), (0.80, 0.32), (0.56, 0.40)), (232, 232, 234))
    s.paint(_polygon((0.30, 0.50), (0.50, 0.54), (0.50, 0.64), (0.30, 0.59)), (40, 70, 150))


def _glass(s):
    s.paint(_polygon((0.30, 0.20), (0.70, 0.20), (0.64, 0.88), (0.36, 0.88)), (206, 216, 222), "round", 0.45)
    s.paint(_polygon((0.325, 0.45), (0.675, 0.45), (0.635, 0.85), (0.365, 0.85)), (214, 120, 40), "round", 0.8)
    s.paint(_polygon((0.30, 0.20), (0.315, 0.20), (0.375, 0.88), (0.36, 0.88)), (150, 160, 170), "flat", 0.8)
    s.paint(_polygon((0.70, 0.20), (0.685, 0.20), (0.625, 0.88), (0.64, 0.88)), (140, 150, 160), "flat", 0.8)
    s.paint(_oval(0.5, 0.20, 0.2, 0.03, 0.01), (170, 178, 186), "flat", 0.85)


def _laptop(s):
    s.paint(_box(0.18, 0.22, 0.82, 0.66, 0.02), (58, 60, 66))
    s.paint(_box(0.20, 0.24, 0.80, 0.63), (40, 92, 160))
    s.paint(_polygon((0.30, 0.60), (0.56, 0.28), (0.76, 0.62)), (226, 150, 70))
    s.paint(_polygon((0.17, 0.66), (0.83, 0.66), (0.92, 0.80), (0.08, 0.80)), (176, 179, 185))
    s.paint(_polygon((0.21, 0.675), (0.79, 0.675), (0.82, 0.735), (0.18, 0.735)), (44, 45, 50))


def _shoe(s):
    s.paint(
        _curve(
            (0.12, 0.44),
            (0.20, 0.38),
            (0.30, 0.46),
            (0.42, 0.44),
            (0.50, 0.36),
            (0.60, 0.46),
            (0.76, 0.56),
            (0.89, 0.62),
            (0.91, 0.74),
            (0.50, 0.75),
            (0.13, 0.74),
            (0.10, 0.60),
        ),
        (186, 40, 44),
        "ball",
    )
    s.paint(
        _curve(
            (0.10, 0.70),
            (0.30, 0.715),
            (0.60, 0.715),
            (0.92, 0.70),
            (0.93, 0.775),
            (0.60, 0.79),
            (0.30, 0.79),
            (0.10, 0.78),
        ),
        (244, 243, 240),
    )
    for k in range(4):
        s.paint(_line((0.50 + 0.05 * k, 0.44 + 0.03 * k), (0.57 + 0.05 * k, 0.40 + 0.036 * k), 0.012), (246, 246, 246))


def _two(s):
    s.paint(_box(0.18, 0.38, 0.44, 0.86, 0.03), (120, 82, 160), "round")
    s.paint(_box(0.24, 0.26, 0.38, 0.39, 0.015), (212, 178, 92), "round")
    s.paint(_box(0.58, 0.46, 0.82, 0.86, 0.02), (34, 120, 130))
    s.paint(_box(0.62, 0.54, 0.78, 0.62), (242, 230, 190))


def _plant(s):
    rng = np.random.default_rng(4)
    for k in range(11):
        angle = np.pi * (0.10 + 0.08 * k)
        reach = 0.34 + 0.10 * rng.random()
        tip = (0.5 - np.cos(angle) * reach * 0.95, 0.62 - np.sin(angle) * reach)
        middle = (0.5 - np.cos(angle) * reach * 0.5, 0.62 - np.sin(angle) * reach * 0.55)
        side = np.array([np.sin(angle), np.cos(angle)]) * 0.026
        leaf = _curve((0.5, 0.64), np.add(middle, side), tip, np.subtract(middle, side))
        s.paint(leaf, np.array([46, 112, 50]) * (0.8 + 0.4 * rng.random()))
        s.paint(_line((0.5, 0.64), tip, 0.004), (120, 160, 90))
    s.paint(_polygon((0.34, 0.60), (0.66, 0.60), (0.61, 0.90), (0.39, 0.90)), (196, 106, 70), "round")


def _orange(s):
    s.paint(_oval(0.5, 0.56, 0.31, 0.30), (240, 140, 26), "ball")
    s.paint(_oval(0.47, 0.285, 0.02, 0.012), (70, 90, 40))
    s.paint(_curve((0.48, 0.28), (0.54, 0.20), (0.64, 0.19), (0.57, 0.27)), (60, 130, 50))


def _can(s):
    s.paint(_box(0.33, 0.18, 0.67, 0.88, 0.035), (176, 180, 186), "round")
    s.paint(_box(0.33, 0.28, 0.67, 0.80), (24, 96, 60), "round")
    s.paint(_box(0.352, 0.165, 0.648, 0.20, 0.015), (200, 203, 208), "round")
    s.paint(
        _curve((0.34, 0.60), (0.45, 0.50), (0.55, 0.56), (0.66, 0.44), (0.66, 0.56), (0.5, 0.66), (0.36, 0.70)),
        (240, 238, 230),
    )


def _handbag(s):
    s.paint(_oval(0.5, 0.40, 0.19, 0.24), (120, 66, 38), "ball")
    s.punch(_oval(0.5, 0.41, 0.155, 0.205))
    s.paint(_polygon((0.24, 0.42), (0.76, 0.42), (0.84, 0.86), (0.16, 0.86)), (168, 96, 52), "round")
    s.paint(_polygon((0.24, 0.42), (0.76, 0.42), (0.73, 0.58), (0.27, 0.58)), (142, 78, 42))
    s.paint(_oval(0.5, 0.58, 0.025, 0.025), (226, 196, 110), "ball")


def _camera(s):
    s.paint(
        _box(0.14, 0.32, 0.86, 0.76, 0.03) | _polygon((0.38, 0.34), (0.42, 0.25), (0.58, 0.25), (0.62, 0.34)),
        (44, 44, 48),
    )
    s.paint(_box(0.14, 0.33, 0.86, 0.41, 0.02), (188, 190, 194))
    s.paint(_oval(0.5, 0.56, 0.17, 0.17), (24, 24, 28), "ball")
    s.paint(_oval(0.5, 0.56, 0.11, 0.11), (50, 60, 100), "ball")


def _pump(s):
    s.paint(_box(0.36, 0.40, 0.64, 0.90, 0.04), (236, 234, 230), "round")
    s.paint(_box(0.44, 0.30, 0.56, 0.41, 0.01), (214, 212, 208), "round")
    s.paint(_box(0.485, 0.20, 0.515, 0.31), (190, 190, 190), "round")
    s.paint(_box(0.30, 0.17, 0.54, 0.21, 0.012), (206, 205, 202), "flat")
    s.paint(_box(0.41, 0.56, 0.59, 0.72), (96, 140, 110), "round")


TUNED: dict[str, Callable[[Sheet], None]] = {
    "bottle": _bottle,
    "mug": _mug,
    "white box": _white_box,
    "glass": _glass,
    "shoe": _shoe,
    "plant": _plant,
    "can": _can,
}
HELD_OUT: dict[str, Callable[[Sheet], None]] = {
    "jar": _jar,
    "tube": _tube,
    "laptop": _laptop,
    "two": _two,
    "orange": _orange,
    "handbag": _handbag,
    "camera": _camera,
    "pump": _pump,
}
PRODUCTS = {**TUNED, **HELD_OUT}


def _noise(rng, across, down, octaves=4):
    total = np.zeros((SIDE, SIDE), np.float32)
    for k in range(octaves):
        cells = rng.random((max(2, int(down * 2**k)), max(2, int(across * 2**k)))).astype(np.float32)
        total += cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 2**k
    return (total - total.mean()) / total.std()


def _ramp(top, bottom):
    down = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
    return np.broadcast_to(np.float32(top) * (1 - down) + np.float32(bottom) * down, (SIDE, SIDE, 3)).copy()


def _wood(rng):
    y, _ = np.mgrid[0:SIDE, 0:SIDE]
    plank = y * 5 // SIDE
    tone = 1 + 0.10 * rng.standard_normal(5)[plank] + 0.07 * _noise(rng, 2, 60) + 0.05 * _noise(rng, 4, 120, 2)
    tone -= 0.35 * ((y * 5 % SIDE) < 12)
    return np.float32([176, 128, 84]) * tone[..., None]


def _brick(rng):
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    row = y // 40
    column = (x + 45 * (row % 2)) // 90
    tone = 1 + 0.12 * rng.standard_normal((20, 20))[row, column] + 0.06 * _noise(rng, 60, 60, 2)
    wall = np.float32([158, 84, 66]) * tone[..., None]
    mortar = ((y % 40) < 6) | (((x + 45 * (row % 2)) % 90) < 6)
    wall[mortar] = np.float32([186, 178, 168]) * (1 + 0.05 * _noise(rng, 60, 60, 2)[mortar, None])
    return wall


def _grass(rng):
    lawn = np.full((SIDE, SIDE, 3), (44, 78, 26), np.float32)
    for _ in range(9000):
        x, y = rng.integers(0, SIDE, 2)
        lean, tall = rng.normal(0, 5), rng.integers(10, 26)
        colour = np.array([70, 122, 40]) * (0.55 + 0.8 * rng.random()) + (rng.integers(0, 30), 0, 0)
        cv2.line(lawn, (int(x), int(y)), (int(x + lean), int(y - tall)), colour.tolist(), 1, cv2.LINE_AA)
    return lawn


def _clutter(rng, softness):
    scene = _ramp((150, 160, 172), (120, 104, 92))
    for _ in range(34):
        x, y = (int(v) for v in rng.integers(0, SIDE, 2))
        a, b = (int(v) for v in rng.integers(20, 90, 2))
        colour = rng.integers(30, 235, 3).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(scene, (x - a, y - b), (x + a, y + b), colour, -1)
        else:
            cv2.ellipse(scene, (x, y), (a, b), float(rng.integers(0, 180)), 0, 360, colour, -1)
    return (
        cv2.GaussianBlur(scene, (0, 0), softness)
        if softness
        else scene * (1 + 0.05 * _noise(rng, 40, 40, 3))[..., None]
    )


def backdrop(name: str, rng: np.random.Generator) -> np.ndarray:
    """float32 (SIDE, SIDE, 3), 0-255."""
    if name == "white":
        return np.full((SIDE, SIDE, 3), 254, np.float32)
    if name == "grey gradient":
        return _ramp((226, 227, 229), (168, 169, 173))
    if name == "pastel gradient":
        y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
        return _ramp((246, 214, 222), (236, 206, 188)) * (1 - 0.22 * (x * x + y * y))[..., None].astype(np.float32)
    if name.endswith("clutter"):
        return _clutter(rng, 16 if name.startswith("blurred") else 0)
    return {"wood": _wood, "brick": _brick, "grass": _grass}[name](rng)


def photo(product: str, behind: str) -> Photo:
    """`product` on `behind`, with a contact shadow, sensor noise and JPEG's traces; always the same."""
    rng = np.random.default_rng([list(PRODUCTS).index(product), BACKDROPS.index(behind), 11])
    sheet = Sheet()
    PRODUCTS[product](sheet)
    zoom, dx, dy = 0.82 + 0.2 * rng.random(), 0.06 * rng.standard_normal(), 0.02 * rng.standard_normal()
    move = np.float32([[zoom, 0, (0.5 * (1 - zoom) + dx) * _BIG], [0, zoom, (0.5 * (1 - zoom) + dy) * _BIG]])
    rgb, cover, truth = (
        cv2.resize(
            cv2.warpAffine(layer, move, (_BIG, _BIG), flags=cv2.INTER_AREA), (SIDE, SIDE), interpolation=cv2.INTER_AREA
        )
        for layer in (sheet.rgb * sheet.cover[..., None], sheet.cover, sheet.truth)
    )
    rows, columns = np.nonzero(truth > 0.5)
    foot, left, right = rows.max(), columns[rows > rows.max() - 12].min(), columns[rows > rows.max() - 12].max()
    shadow = np.zeros((SIDE, SIDE), np.float32)
    middle, reach = ((int(left) + int(right)) // 2, int(foot) - 3), int(right - left) // 2
    cv2.ellipse(shadow, middle, (reach + 4, 7), 0, 0, 360, 0.55, -1)
    cast = np.zeros_like(shadow)
    cv2.ellipse(cast, (middle[0] + reach // 3, middle[1] - 4), (reach + 14, 18), 0, 0, 360, 0.30, -1)
    dark = np.maximum(cv2.GaussianBlur(shadow, (0, 0), 4), cv2.GaussianBlur(cast, (0, 0), 11))
    scene = backdrop(behind, rng) * (1 - dark[..., None])
    picture = scene * (1 - cover[..., None]) + rgb
    picture = np.clip(cv2.GaussianBlur(picture, (0, 0), 0.6) + rng.normal(0, 1.2, picture.shape), 0, 255).astype(
        np.uint8
    )
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return Photo(np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]), truth)


def grade(product: str, behind: str) -> Grade:
    """Cut `product` out of its photo on `behind` and compare."""
    shot = photo(product, behind)
    begun = time.perf_counter()
    cut = cut_out(shot.picture)
    seconds = time.perf_counter() - begun
    alpha = cut.rgba[..., 3]
    found, wanted = alpha > 127, shot.truth > 0.5
    core = alpha == 255
    exact = bool((cut.rgba[core][:, :3] == shot.picture[core]).all())
    return Grade((found & wanted).sum() / (found | wanted).sum(), exact, cut.route, cut.confidence, seconds, cut.rgba)


def _row(name: str, values: list[float]) -> str:
    return f"{name:28s} {np.mean(values):.3f} / {np.median(values):.3f} / {min(values):.3f}"


def main() -> None:
    """Print the table, and draw the sheets where asked."""
    sheets = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    for behind in BACKDROPS:
        grades = {product: grade(product, behind) for product in PRODUCTS}
        for label, names in (("all", PRODUCTS), ("held out", HELD_OUT)):
            print(_row(f"{behind}, {label}", [grades[name].overlap for name in names]), end="   ")
        print(f"{np.mean([one.seconds for one in grades.values()]):.2f} s")
        low = sorted((one.overlap, name, one.route, round(one.confidence, 2)) for name, one in grades.items())
        print("    ", *(f"{name} {value:.2f} {route} {sure};" for value, name, route, sure in low[:6]))
        if sheets:
            tiles = []
            for name, one in grades.items():
                alpha = one.rgba[..., 3:] / 255
                on_pink = one.rgba[..., :3] * alpha + np.array([255, 0, 200]) * (1 - alpha)
                tiles.append(np.vstack([photo(name, behind).picture, on_pink.astype(np.uint8)]))
            tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
            rows = [np.hstack(tiles[k : k + 8]) for k in range(0, len(tiles), 8)]
            whole = cv2.resize(np.vstack(rows), None, fx=0.42, fy=0.42, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(sheets / f"{behind.replace(' ', '_')}.png"), whole[..., ::-1])


if __name__ == "__main__":
    main()
