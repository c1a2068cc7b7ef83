"""What the scenes share: the setting they are given, noise, a floor in perspective, lights out of focus, a podium."""

from dataclasses import dataclass

import cv2
import numpy as np

from ....contract.document import Box
from ....imaging.picture import Floats, blur, floats, resize
from ..palette import Palette, scale_of

_SHOULDER = np.float32(0.93)


@dataclass(frozen=True)
class Setting:
    """What a scene is painted for.

    Attributes:
        size: (width, height).
        palette: its colours.
        light_x: where the key light comes from, -1 (left) to 1 (right).
        floor_y: where the floor begins, as a share of the height.
        subject: the box in which the product will stand, on its lower edge.
        props: what the prompt adds to this scene, such as `leaf` or `podium`.
    """

    size: tuple[int, int]
    palette: Palette
    light_x: float
    floor_y: float
    subject: Box
    props: frozenset[str]

    @property
    def floor_row(self) -> int:
        """The first row of the floor."""
        return min(self.size[1] - 2, round(self.floor_y * self.size[1]))

    @property
    def subject_x(self) -> float:
        """The product's middle, as a share of the width."""
        return (self.subject[0] + self.subject[2] / 2) / self.size[0]

    @property
    def foot_y(self) -> float:
        """Where the product stands, as a share of the height."""
        return (self.subject[1] + self.subject[3]) / self.size[1]


def axes(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Pixel centres of `size` (width, height) as shares of the width, (1, W), and of the height, (H, 1)."""
    x, y = ((np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side) for side in size)
    return floats(x[None, :]), floats(y[:, None])


def noise(
    size: tuple[int, int], cells: tuple[float, float], rng: np.random.Generator, *, octaves: int = 5, gain: float = 0.5
) -> Floats:
    """Value noise (H, W) around 0.5, mostly within [0.1, 0.9].

    Args:
        size: (width, height).
        cells: how many coarse cells lie along the width and the height.
        rng: the only source of chance.
        octaves: each doubles the cells; those finer than two pixels are left out.
        gain: strength of an octave relative to the one before.
    """
    total, weight, sum_of_weights = np.zeros((size[1], size[0]), np.float32), 1.0, 0.0
    for octave in range(octaves):
        columns, rows = (max(2, round(count * 2**octave)) for count in cells)
        grid = rng.random((min(rows, size[1]) + 1, min(columns, size[0]) + 1), dtype=np.float32)
        total += weight * floats(cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC))
        sum_of_weights += weight
        weight *= gain
        if columns > size[0] / 2 and rows > size[1] / 2:
            break
    return floats(total / sum_of_weights)


def ramp(at: Floats, stops: list[Floats]) -> Floats:
    """Colours (..., 3) between evenly spaced `stops`; `at` in [0, 1]."""
    return scale_of(np.linspace(0, 1, len(stops)).tolist(), stops)[np.clip(at * 1023, 0, 1023).astype(np.intp)]


def on_floor(texture: Floats, size: tuple[int, int], *, narrowing: float) -> Floats:
    """`texture` lying on a floor of `size` (width, height) pixels that recedes from the bottom row to the top row.

    Args:
        texture: (h, w), its last row nearest to the camera.
        size: of the result.
        narrowing: how wide the floor's far end looks against its near end, 0-1.
    """
    width, height = size
    rows, columns = texture.shape[:2]
    left, right = columns * (0.5 - narrowing / 2), columns * (0.5 + narrowing / 2)
    source = np.array([[0, 0], [columns, 0], [right, rows], [left, rows]], np.float32)
    # Twice the rows, averaged: the far end would flicker otherwise.
    target = np.array([[0, 0], [width, 0], [width, 2 * height], [0, 2 * height]], np.float32)
    transform = cv2.getPerspectiveTransform(source, target)
    warped = cv2.warpPerspective(texture, transform, (width, 2 * height), borderMode=cv2.BORDER_REFLECT)
    return resize(floats(warped), size)


def focused(floor: Floats, setting: Setting, *, sigma_px: float) -> Floats:
    """`floor` blurred away from where the product stands, towards the far end more than the near."""
    focus = min(0.9, (setting.foot_y - setting.floor_y) / (1 - setting.floor_y))
    down = np.linspace(0, 1, floor.shape[0], dtype=np.float32)
    off = np.where(down < focus, (focus - down) / max(focus, 1e-3), 0.45 * (down - focus) / max(1 - focus, 1e-3))
    share = floats(np.clip(off * 1.5 - 0.25, 0, 1)).reshape(-1, *[1] * (floor.ndim - 1))
    return floats(floor * (1 - share) + blur(floor, sigma_px) * share)


def mirrored(back: Floats, rows: int) -> Floats:
    """The last rows of `back` upside down, `rows` of them; its top row is repeated where it is too small."""
    return np.pad(back[::-1][:rows], ((0, max(0, rows - len(back))), (0, 0), (0, 0)), mode="edge")


def joined(back: Floats, floor: Floats, *, softness_px: float) -> Floats:
    """`back` above `floor`, the edge between them out of focus."""
    image, reach = np.concatenate([back, floor]), max(1, round(6 * softness_px))
    band = slice(max(0, len(back) - reach), len(back) + reach)
    rows = np.arange(band.start, min(band.stop, len(image)), dtype=np.float32)
    # Less and less away from the edge: where it ended at once, it would cut through what stands there.
    share = np.clip(1.5 - 1.5 * np.abs(rows - len(back)) / reach, 0, 1)[:, None, None]
    image[band] += floats(share) * (blur(image[band], softness_px) - image[band])
    return image


def lights(
    size: tuple[int, int],
    colours: list[Floats],
    rng: np.random.Generator,
    *,
    count: int,
    radius: tuple[float, float],
    band: tuple[float, float],
) -> Floats:
    """Lights far out of focus, (H, W, 3) to be added: discs with a slightly brighter rim.

    Args:
        size: (width, height).
        colours: RGB in [0, 1], one is drawn for each light.
        rng: the only source of chance.
        count: how many.
        radius: smallest and largest, as a share of the shorter side.
        band: heights between which they lie, as shares of the height; they are densest in the middle.
    """
    width, height = max(2, size[0] // 2), max(2, size[1] // 2)
    glow = np.zeros((height, width, 3), np.float32)
    for _ in range(count):
        r = max(1.5, float(rng.uniform(*radius)) * min(width, height))
        x, y = float(rng.uniform(0, width)), float(rng.triangular(band[0], sum(band) / 2, band[1])) * height
        colour = colours[int(rng.integers(len(colours)))] * float(0.15 + 0.85 * rng.random() ** 2)
        left, right, top, bottom = max(0, int(x - r - 2)), int(x + r + 3), max(0, int(y - r - 2)), int(y + r + 3)
        patch = glow[top:bottom, left:right]
        rows = np.arange(top, top + patch.shape[0], dtype=np.float32)[:, None] - y
        distance = np.hypot(np.arange(left, left + patch.shape[1], dtype=np.float32)[None, :] - x, rows) / r
        disc = np.clip((1 - distance) * r / 1.8, 0, 1) * (0.6 + 0.4 * np.clip(distance, 0, 1) ** 5)
        patch += disc[..., None] * colour
    return resize(blur(glow, 0.7), size)


def podium(image: Floats, setting: Setting, stone: Floats, rng: np.random.Generator, *, rim: float) -> Floats:
    """`image`, painted on in place, with a low round podium under the product.

    Args:
        image: RGB float (H, W, 3).
        setting: the product's box and the light.
        stone: RGB of its material.
        rng: mottles it.
        rim: how bright the edge catches the light.
    """
    width, height = setting.size
    x0, _, box_width, _ = setting.subject
    middle, radius = x0 + box_width / 2, max(0.62 * box_width, 0.17 * min(width, height))
    flat, drop = 0.17 * radius, 0.062 * height
    centre = setting.foot_y * height - 0.30 * flat
    first, last = max(0, int(centre - 3.5 * flat)), min(height, int(centre + drop + 4 * flat))
    if first >= last:
        return image
    x = (np.arange(width, dtype=np.float32) - middle)[None, :]
    y = (np.arange(first, last, dtype=np.float32) - centre)[:, None]
    across = np.clip(x / radius, -1, 1)
    arc = flat * np.sqrt(1 - across**2)
    soft = max(0.8, 0.0012 * width)
    top = np.clip((1 - np.sqrt((x / radius) ** 2 + (y / flat) ** 2)) * flat / soft + 0.5, 0, 1)
    inside = np.clip((radius - np.abs(x)) / soft + 0.5, 0, 1)
    side = inside * np.clip((drop + arc - y) / soft + 0.5, 0, 1) * (y > 0)

    ground = np.zeros((last - first, width), np.uint8)
    seat = (round(middle - setting.light_x * 0.16 * radius), round(centre + drop) - first)
    cv2.ellipse(ground, seat, (round(1.1 * radius), max(1, round(1.2 * flat))), 0, 0, 360, 255, -1)
    shadow = blur(ground, 0.4 * flat) * np.float32(0.42 / 255)

    toward = across * setting.light_x
    lit = 0.60 + 0.34 * np.clip(toward * 0.75 + 0.35, 0, 1) - 0.14 * np.abs(across) ** 6
    lit = lit * (1 - 0.20 * np.clip(y / (drop + flat), 0, 1)) * (1 - top) + (1 + 0.05 * toward) * top
    edge = np.exp(-(((y - arc) / (1.6 * soft)) ** 2)) * inside * (y > 0) * (0.5 + 0.5 * np.clip(toward + 0.5, 0, 1))
    cover = np.maximum(top, side)[..., None]
    mottle = noise((width, last - first), (0.05 * width, 0.05 * (last - first)), rng, octaves=3)[..., None] - 0.5
    surface = in_light(floats(stone * (1 + 0.04 * mottle)), floats(lit)[..., None], stone) + rim * edge[..., None]
    image[first:last] = image[first:last] * (1 - shadow[..., None]) * (1 - cover) + surface * cover
    return image


def vignetted(image: Floats, strength: float) -> Floats:
    """`image` darker towards its corners."""
    height, width = image.shape[:2]
    x, y = np.linspace(-0.5, 0.5, width, dtype=np.float32), np.linspace(-0.5, 0.5, height, dtype=np.float32)
    fall = 1 - np.float32(strength) * np.clip((x[None, :] ** 2 + y[:, None] ** 2) * 2, 0, 1)
    return floats(image * fall[..., None])


def in_light(colours: Floats, light: Floats, shade: Floats) -> Floats:
    """`colours` (..., 3) under `light` (..., 1). It deepens the hue of `shade`; plain multiplication would grey it."""
    depth = 1 + 0.6 * (shade.max() - shade) / max(1e-3, float(shade.max()))
    return floats(colours * light ** floats(depth))


def shouldered(image: Floats) -> Floats:
    """`image` with values beyond 1 bent back smoothly, as film does: lamps and bright walls keep their colour."""
    over = np.maximum(image - _SHOULDER, 0)
    return floats(image - over + over / (1 + over / (1 - _SHOULDER)))


def with_grain(image: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """`image` (values in [0, 1]) with film grain; it also keeps smooth gradients from banding."""
    grains = rng.standard_normal(image.shape[:2], dtype=np.float32)
    return floats(image + strength * 1.6 * blur(grains, 0.6)[..., None])
