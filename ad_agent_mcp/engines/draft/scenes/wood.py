"""A wooden table before a room that is out of focus."""

import numpy as np

from ....imaging.picture import Floats, blur, floats, resize
from ..palette import Palette, mixed, turned
from .setting import Setting, axes, focused, joined, lights, mirrored, noise, on_floor, ramp, vignetted

_BOARDS = 4
_NARROWING = 0.52
_WOODS = {"brown", "walnut", "saddlebrown", "sienna", "chocolate", "tan", "beige", "white", "black", "ivory", "gray"}


def paint_wood(setting: Setting, rng: np.random.Generator) -> Floats:
    """An empty table; a colour that wood has is the table's, any other one the room's. RGB float (H, W, 3)."""
    width, height = setting.size
    palette, row = setting.palette, setting.floor_row
    room = _room(setting, rng)
    lift, wood = palette.lift, floats([0.55, 0.345, 0.205])
    if palette.words and palette.words[0] in _WOODS:
        wood = mixed(wood, palette.accent, 0.5)
    elif lift:
        wood = mixed(wood, floats([0.93, 0.80, 0.64]) if lift > 0 else floats([0.13, 0.075, 0.05]), abs(lift) * 0.9)
    grain = on_floor(_boards(setting, rng), (width, height - row), narrowing=_NARROWING)
    table = ramp(grain, [wood * 0.22, wood * 0.72, wood, mixed(floats(wood * 1.12), floats([1.0, 0.86, 0.62]), 0.22)])

    down = np.linspace(0, 1, height - row, dtype=np.float32)[:, None]
    x, _ = axes(setting.size)
    pool = np.exp(-(((x - setting.subject_x - 0.10 * setting.light_x) / 0.42) ** 2) - ((down - 0.45) / 0.6) ** 2)
    table = table * (0.72 + 0.46 * pool + 0.10 * setting.light_x * (x - 0.5))[..., None]
    table = table + blur(mirrored(room[:row], height - row), 0.02 * width) * (0.30 * (1 - down) ** 2)[..., None]
    table = focused(floats(table), setting, sigma_px=0.0045 * width)
    return vignetted(joined(room[:row], table, softness_px=0.006 * height), 0.22)


def _room(setting: Setting, rng: np.random.Generator) -> Floats:
    """A café with its lamps and a window, far out of focus."""
    width, height = max(8, setting.size[0] // 4), max(8, setting.size[1] // 4)
    back, lamps = _room_colours(setting.palette)
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    shapes = np.full((height, width), 0.5, np.float32)
    for _ in range(9):
        left, wide = float(rng.uniform(-0.1, 1)), float(rng.uniform(0.06, 0.24))
        top = float(rng.uniform(0.22, 0.5))
        inside = (x > left) & (x < left + wide) & (y > top) & (y < top + float(rng.uniform(0.1, 0.5)))
        shapes += np.where(inside, float(rng.uniform(-0.22, 0.18)), 0).astype(np.float32)
    shapes = blur(shapes, 0.030 * width)
    middle = 0.5 + 0.42 * setting.light_x
    window = np.exp(-(((x - middle) / 0.26) ** 2) - ((y - 0.32) / 0.36) ** 2)
    haze = np.exp(-(((y - setting.floor_y) / 0.22) ** 2)) * 0.16
    is_pale = float(back.mean()) > 0.5
    light = (0.62 if is_pale else 0.56) + 0.55 * shapes + (0.16 if is_pale else 0.62) * window + haze * (not is_pale)
    room = back * floats(light)[..., None] + lamps[0] * ((0.03 if is_pale else 0.17) * window)[..., None]
    glow = lights(
        setting.size, lamps, rng, count=34, radius=(0.014, 0.042), band=(0.16, min(0.95, setting.floor_y + 0.02))
    )
    return floats(resize(floats(room), setting.size) + (0.3 if is_pale else 0.6) * glow)


def _room_colours(palette: Palette) -> tuple[Floats, list[Floats]]:
    """The wall of the room, and its lamps."""
    amber, cream = floats([1.0, 0.70, 0.36]), floats([1.0, 0.88, 0.70])
    back = floats([0.40, 0.285, 0.215])
    if palette.words and palette.words[0] not in _WOODS:
        back = floats(palette.accent * 0.72)
    elif palette.lift > 0:
        back = floats([0.86, 0.79, 0.70])
    elif palette.lift < 0:
        back = floats([0.20, 0.145, 0.12])
    return back, [amber, cream, turned(back, lightness=72, chroma=34)]


def _boards(setting: Setting, rng: np.random.Generator) -> Floats:
    """The grain of boards that lie across the picture, (h, w) in [0, 1], dark joints between them."""
    width = int(np.clip(1.7 * setting.size[0], 300, 2400))
    height = int(np.clip(1.5 * (setting.size[1] - setting.floor_row), 160, 1400))
    board = height // _BOARDS + 1
    tones: list[Floats] = []
    for _ in range(_BOARDS):
        along = np.linspace(0, 1, width, dtype=np.float32)[None, :]
        across = np.linspace(-0.5, 0.5, board, dtype=np.float32)[:, None]
        wobble = noise((width, board), (3, 1), rng, octaves=3) - 0.5
        fine = noise((width, board), (6, 26), rng, octaves=3, gain=0.6) - 0.5
        pores = noise((width, board), (width / 40, board / 2.5), rng, octaves=1)
        # Growth rings are cones around a pith that runs slightly askew through the board: cut, they give arches.
        pith, slope = float(rng.uniform(-0.7, 0.7)), float(rng.uniform(0.5, 1.4)) * (1 if rng.random() < 0.5 else -1)
        ring = np.hypot((across - pith) * 2.6 + 0.5 * wobble, slope * (along - float(rng.uniform(-0.2, 1.2))))
        phase = (ring * float(rng.uniform(7, 11)) + 0.9 * wobble + 0.35 * fine) % 1
        late = phase**2.2 * np.clip((1 - phase) / 0.14, 0, 1)
        tone = 0.66 - 0.26 * late + 0.42 * fine + 0.12 * wobble - 0.30 * np.clip(pores - 0.72, 0, 1) * 3
        tone = tone + float(rng.uniform(-0.10, 0.10))
        edge = np.minimum(across + 0.5, 0.5 - across) * board
        joint = 1 - 0.85 * np.exp(-((edge / 2.2) ** 2)) - 0.16 * np.exp(-edge / 11)
        tones.append(floats(tone * joint))
    return floats(np.clip(np.concatenate(tones)[:height], 0, 1))
