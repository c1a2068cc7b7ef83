"""Draws `product.png`, the picture that `make demo` advertises: a serum bottle on a light studio sweep.

Nothing in it is a real product. Every pixel follows from this file and a seed, so a run repeats the picture exactly.
Shapes are solids of revolution seen from the front: a half-width per row, from which a surface
normal per pixel follows, and each material answers to the same studio lights. Knows nothing about the package.

Run it with: python examples/draw_product.py [OUT]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
FONTS = HERE.parent / "fonts" / "NanumSquare"

SIZE = 1200
SCALE = 2
SEED = 20260101
NOISE_SIGMA = 0.0042

CENTRE = 600.0
GROUND = 1046.0
BODY_TOP, BODY_HALF = 440.0, 178.0
COLLAR_TOP, COLLAR_BOTTOM, COLLAR_HALF = 352.0, 417.0, 80.0
BULB_TOP, BULB_HALF = 152.0, 58.0

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Solid:
    """A solid of revolution: where it is and which way its surface looks.

    `alpha` (H, W) is coverage in [0, 1]. `across` is the position between the left (-1) and the right (1) outline.
    `right`, `up` and `facing` (towards the viewer) are the surface normal, of length 1.
    """

    alpha: Plane
    across: Plane
    right: Plane
    up: Plane
    facing: Plane


def main() -> None:
    """Draw the picture and write it to the first argument, or beside this script."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "product.png"
    draw().save(target, optimize=True)


def draw() -> Image.Image:
    """The finished photo: `SIZE` x `SIZE`, RGB."""
    y, x = np.mgrid[0 : SIZE * SCALE, 0 : SIZE * SCALE].astype(np.float32)
    x, y = (x + 0.5) / SCALE, (y + 0.5) / SCALE

    scene = backdrop(x, y)
    scene = scene * (1 - contact_shadow(x, y)[..., None])
    product, alpha = bottle(x, y)
    scene = add_reflection(scene, product, alpha)
    scene = scene * (1 - alpha[..., None]) + product * alpha[..., None]

    photo = cv2.resize(scene, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    glow = cv2.GaussianBlur(np.clip(photo - 0.92, 0, None), (0, 0), 7)
    photo = photo + 0.35 * glow
    rng = np.random.default_rng(SEED)
    grain = rng.normal(0, NOISE_SIGMA, (SIZE, SIZE, 1)) + rng.normal(0, NOISE_SIGMA * 0.25, (SIZE, SIZE, 3))
    return Image.fromarray((np.clip(photo + grain, 0, 1) * 255 + 0.5).astype(np.uint8))


def backdrop(x: Plane, y: Plane) -> Plane:
    """A paper sweep: brightest behind the product, a soft fall-off towards the corners and the near floor."""
    wall = rgb("#f4f1ec")
    pool = np.exp(-(((x - 560) / 720) ** 2 + ((y - 470) / 640) ** 2))
    floor = smoothstep(y, 860, 1200)
    light = 0.925 + 0.070 * pool - 0.030 * floor
    tint = 1 + floor[..., None] * (rgb("#f1ece6") / wall - 1)
    return (wall * tint * light[..., None]).astype(np.float32)


def contact_shadow(x: Plane, y: Plane) -> Plane:
    """Darkness on the floor in [0, 1]: a tight line under the base, a near shadow, and a long soft one to the right."""

    def pool(cx: float, cy: float, rx: float, ry: float, strength: float) -> Plane:
        distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        return (strength * np.exp(-(np.maximum(distance, 0) ** 1.25))).astype(np.float32)

    tight = pool(CENTRE + 6, GROUND - 2, BODY_HALF * 0.97, 9, 0.66)
    near = pool(CENTRE + 34, GROUND + 2, BODY_HALF * 1.14, 22, 0.26)
    cast = pool(CENTRE + 150, GROUND - 12, BODY_HALF * 1.85, 46, 0.17)
    return 1 - (1 - tight) * (1 - near) * (1 - cast)


def bottle(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """The whole product over nothing: colour (H, W, 3) and coverage (H, W)."""
    parts = [rubber_bulb(x, y), neck(x, y), collar(x, y), body(x, y)]
    colour = np.zeros((*x.shape, 3), np.float32)
    alpha = np.zeros_like(x)
    for part_colour, part_alpha in parts:
        cover = part_alpha[..., None]
        colour = part_colour * cover + colour * (1 - cover)
        alpha = part_alpha + alpha * (1 - part_alpha)
    # Parts are laid over black: take that back out of the half-covered outline.
    return colour / np.maximum(alpha, 1e-4)[..., None], alpha


def body(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """The frosted glass body, peach deepening to rose, with a thick clear base and its label."""
    solid = revolve(x, y, body_half, BODY_TOP, GROUND)
    down = np.clip((y - BODY_TOP) / (GROUND - BODY_TOP), 0, 1)
    colour = gradient(
        down, [(0.0, "#f6c9a8"), (0.30, "#f0a58a"), (0.62, "#df7f78"), (0.90, "#b9576a"), (1.0, "#a14a60")]
    )

    # Frosted glass is lit from within: its edges, where light crosses most glass, are deeper in colour.
    depth = 1 - solid.facing
    colour = colour * (1 - depth[..., None] ** 1.6 * (0.42 * (1 - rgb("#d9737a"))))
    light = 0.84 + 0.25 * lobe(solid.right, -0.42, 0.62) - 0.20 * lobe(solid.right, 0.86, 0.40)
    light = light + 0.16 * np.clip(solid.up, 0, 1) - 0.22 * np.clip(-solid.up, 0, 1)
    # Light that left the glass again went through more of it: shade is redder, not greyer.
    colour = colour * light[..., None] ** np.array([0.65, 1.15, 1.10], np.float32)

    # The liquid ends below the shoulder: a soft meniscus, seen through the frosting.
    liquid = smoothstep(y - 7 * solid.facing, 502, 515)
    colour = colour * (1 - 0.05 * liquid[..., None]) + 0.035 * (1 - liquid)[..., None]
    colour = colour * (1 + 0.07 * lobe(y - 7 * solid.facing, 515, 5))[..., None]

    base = smoothstep(y, GROUND - 46, GROUND - 34)
    glass = colour * 0.86 + 0.10 * lobe(y, GROUND - 29, 9)[..., None] * rgb("#ffe9dc")
    glass = glass + 0.16 * (lobe(y, GROUND - 9, 6) * lobe(solid.across, -0.1, 0.7))[..., None] * rgb("#ffc9b8")
    colour = colour * (1 - base[..., None]) + glass * base[..., None]

    # The collar keeps light from the shoulder's middle.
    shade = lobe(y, BODY_TOP, 9) * lobe(x, CENTRE + 8, 92)
    colour = colour * (1 - 0.30 * shade[..., None] * (1 - 0.4 * rgb("#f08070")))

    colour = print_label(colour, x, y, solid)

    # Softboxes: a tall one to the left, a narrow strip to the right, both blurred by the matte surface.
    window = smoothstep(y, BODY_TOP + 44, BODY_TOP + 84) * (1 - smoothstep(y, GROUND - 130, GROUND - 50))
    key = box(solid.across, -0.76, -0.52, 0.05) * window * (0.75 + 0.35 * (1 - smoothstep(y, 560, 960)))
    strip = box(solid.across, 0.76, 0.84, 0.035) * window
    shoulder = lobe(solid.up, 0.62, 0.20) * lobe(solid.right, -0.30, 0.26)
    gloss = 0.36 * key + 0.20 * strip + 0.40 * shoulder
    colour = colour + gloss[..., None] * (1.02 - colour)
    rim = (1 - solid.facing) ** 5
    colour = colour + (0.42 * rim)[..., None] * (rgb("#fff1ea") - colour)
    return colour.astype(np.float32), solid.alpha


def print_label(colour: Plane, x: Plane, y: Plane, solid: Solid) -> Plane:
    """White print on the glass, bent around the body and lit with it."""
    flat = Image.new("L", (1400, 1400), 0)
    pen = ImageDraw.Draw(flat)
    extra_bold, bold, regular = (FONTS / f"NanumSquare{weight}.ttf" for weight in ("EB", "B", "R"))
    spaced(pen, "MAUM", 292, ImageFont.truetype(str(extra_bold), 188), 26)
    spaced(pen, "마음", 500, ImageFont.truetype(str(bold), 78), 26)
    pen.rectangle((630, 634, 770, 639), fill=235)
    spaced(pen, "GLOW SERUM", 700, ImageFont.truetype(str(bold), 62), 15)
    spaced(pen, "CALMING + DEWY", 796, ImageFont.truetype(str(regular), 44), 12)
    spaced(pen, "50 ml", 1090, ImageFont.truetype(str(regular), 48), 5)

    # A label pixel lies at an angle around the body, not at a distance from its axis.
    angle = np.arcsin(np.clip(solid.across, -1, 1))
    ink = np.asarray(flat, np.float32) / 255
    map_x = 700 + angle * BODY_HALF * 2.56
    map_y = (y - 548) * 2.56 + 130
    # Shrinking by half or so: without the blur, thin strokes would break up.
    ink = cv2.remap(cv2.GaussianBlur(ink, (0, 0), 0.6), map_x, map_y, cv2.INTER_LINEAR, borderValue=0)
    ink = ink * (np.abs(solid.across) < 0.96)
    lit = rgb("#fffaf4") * (0.86 + 0.12 * lobe(solid.across, -0.35, 0.6))[..., None]
    return colour + (0.95 * ink)[..., None] * (lit - colour)


def neck(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """The short glass neck between the shoulder and the collar."""
    solid = revolve(x, y, lambda row: np.full_like(row, 66.0), COLLAR_BOTTOM - 6, BODY_TOP + 8)
    light = 0.78 + 0.24 * lobe(solid.across, -0.45, 0.4) + 0.22 * box(solid.across, 0.62, 0.78, 0.08)
    light = light - 0.20 * lobe(y, COLLAR_BOTTOM, 9) - 0.28 * (1 - solid.facing) ** 2
    return (rgb("#f3c6ad") * light[..., None] ** np.array([0.7, 1.1, 1.1], np.float32)).astype(np.float32), solid.alpha


def collar(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """The brushed champagne collar: a mirror of the studio, stretched along the cylinder."""

    def half(row: Plane) -> Plane:
        return (COLLAR_HALF - rounded(row, COLLAR_TOP, COLLAR_BOTTOM, 5)).astype(np.float32)

    solid = revolve(x, y, half, COLLAR_TOP, COLLAR_BOTTOM)
    colour = metal(solid.across, y)
    edge = 0.55 * lobe(y, COLLAR_TOP + 3.0, 2.0) - 0.30 * lobe(y, COLLAR_BOTTOM - 2, 3.0)
    groove = 0.34 * (lobe(y, COLLAR_BOTTOM - 15, 1.3)) - 0.20 * lobe(y, COLLAR_BOTTOM - 12, 1.6)
    colour = colour * (1 + edge - groove)[..., None]
    return colour.astype(np.float32), solid.alpha


def metal(across: Plane, y: Plane) -> Plane:
    """Champagne metal: dark and bright bands by where the surface points."""
    stops = [
        (0.00, "#6d4f36"), (0.06, "#a8835f"), (0.13, "#e9cfae"), (0.20, "#fff6e6"), (0.30, "#fdf0dc"),
        (0.40, "#d9b384"), (0.50, "#a5764b"), (0.60, "#7d5433"), (0.70, "#a87a50"), (0.79, "#f6e1c2"),
        (0.85, "#ecca9f"), (0.92, "#8a6040"), (1.00, "#5f432d"),
    ]  # fmt: skip
    turn = np.arcsin(np.clip(across, -1, 1)) / np.pi + 0.5
    colour = gradient(turn, stops)
    rng = np.random.default_rng(SEED + 1)
    rows = cv2.GaussianBlur(rng.normal(0, 1, (y.shape[0], 1)).astype(np.float32), (0, 0), 0.9)
    return colour * (1 + 0.022 * rows)[..., None]


def rubber_bulb(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """The soft, matte plum dropper bulb."""

    def half(row: Plane) -> Plane:
        dome = np.sqrt(np.clip(1 - (np.clip(BULB_TOP + 52 - row, 0, 52) / 52) ** 2, 0, 1))
        foot = 12 * smoothstep(row, COLLAR_TOP - 46, COLLAR_TOP - 14)
        waist = 3.5 * np.sin(np.clip((row - BULB_TOP - 52) / 130, 0, 1) * np.pi)
        return ((BULB_HALF - waist) * dome + foot).astype(np.float32)

    solid = revolve(x, y, half, BULB_TOP, COLLAR_TOP + 12)
    lambert = np.clip(-0.46 * solid.right + 0.40 * solid.up + 0.79 * solid.facing, 0, 1)
    fill = np.clip(0.75 * solid.right + 0.66 * solid.facing, 0, 1)
    light = 0.24 + 0.78 * lambert + 0.10 * fill
    light = light * (1 - 0.30 * lobe(y, COLLAR_TOP + 2, 8))
    colour = rgb("#7c4150") * light[..., None]
    sheen = np.clip(-0.30 * solid.right + 0.26 * solid.up + 0.92 * solid.facing, 0, 1) ** 26
    strip = box(solid.right, -0.62, -0.44, 0.10) * smoothstep(y, BULB_TOP + 30, BULB_TOP + 80)
    strip = strip * (1 - smoothstep(y, COLLAR_TOP - 70, COLLAR_TOP - 30))
    rim = (1 - solid.facing) ** 4
    colour = colour + (0.16 * sheen + 0.20 * strip + 0.10 * rim)[..., None] * (rgb("#ffe6e0") - colour)
    return colour.astype(np.float32), solid.alpha


def add_reflection(scene: Plane, product: Plane, alpha: Plane) -> Plane:
    """A faint mirror image of the base in the sweep, gone within a few centimetres."""
    line = round(GROUND * SCALE)
    reach = min(scene.shape[0] - line, line)
    fade = np.linspace(1, 0, reach, dtype=np.float32)[:, None] ** 3.2
    mirror_alpha = cv2.GaussianBlur(alpha[line - reach : line][::-1], (0, 0), 3 * SCALE)
    mirror = cv2.GaussianBlur((product * alpha[..., None])[line - reach : line][::-1], (0, 0), 3 * SCALE)
    mirror = mirror / np.maximum(mirror_alpha, 1e-3)[..., None]
    cover = (0.20 * fade * mirror_alpha)[..., None]
    out = scene.copy()
    out[line : line + reach] = out[line : line + reach] * (1 - cover) + mirror * cover
    return out


def body_half(row: Plane) -> Plane:
    """Half-width of the body at each height: round shoulders, straight sides, a softened foot."""
    return (BODY_HALF - rounded_top(row, BODY_TOP, 62, 78) - rounded_bottom(row, GROUND, 26)).astype(np.float32)


def rounded_top(row: Plane, top: float, height: float, inset: float) -> Plane:
    """How far the outline draws in, over `height` below `top`."""
    t = np.clip((top + height - row) / height, 0, 1)
    return inset * (1 - np.sqrt(1 - t**2))


def rounded_bottom(row: Plane, bottom: float, radius: float) -> Plane:
    """How far the outline draws in towards `bottom`."""
    t = np.clip((row - bottom + radius) / radius, 0, 1)
    return radius * (1 - np.sqrt(1 - t**2))


def rounded(row: Plane, top: float, bottom: float, radius: float) -> Plane:
    """Both ends rounded alike."""
    return rounded_top(row, top, radius, radius) + rounded_bottom(row, bottom, radius)


def revolve(x: Plane, y: Plane, half: Callable[[Plane], Plane], top: float, bottom: float) -> Solid:
    """The solid whose outline lies `half(row)` from the axis between `top` and `bottom`."""
    width = half(y)
    # Blurred a little: nothing moulded or blown has a crease where one curve meets the next.
    steep = np.gradient(width[:, 0]).astype(np.float32)[:, None] * SCALE
    slope = cv2.GaussianBlur(steep, (0, 0), 4 * SCALE)[:, 0]
    # Seen slightly from above: the foot bends down in the middle, by as much as the circle it is.
    sag = 7.0 * np.sqrt(np.clip(1 - ((x - CENTRE) / np.maximum(width, 1)) ** 2, 0, 1))
    edge = np.clip((width - np.abs(x - CENTRE)) * SCALE / 1.5 + 0.5, 0, 1)
    ends = np.clip((y - top) * SCALE + 0.5, 0, 1) * np.clip((bottom + sag - 7.0 - y) * SCALE + 0.5, 0, 1)
    across = np.clip((x - CENTRE) / np.maximum(width, 1), -1, 1)
    level = (1 / np.sqrt(1 + slope**2))[:, None]
    return Solid(
        alpha=(edge * ends).astype(np.float32),
        across=across.astype(np.float32),
        right=(across * level).astype(np.float32),
        up=np.broadcast_to(slope[:, None] * level, x.shape).astype(np.float32),
        facing=(np.sqrt(1 - across**2) * level).astype(np.float32),
    )


def spaced(pen: ImageDraw.ImageDraw, text: str, top: int, font: ImageFont.FreeTypeFont, tracking: int) -> None:
    """Write `text` centred at `top`, its letters `tracking` pixels further apart than the font has them."""
    widths = [font.getlength(letter) for letter in text]
    at = 700 - (sum(widths) + tracking * (len(text) - 1)) / 2
    for letter, width in zip(text, widths, strict=True):
        pen.text((at, top), letter, font=font, fill=255)
        at += width + tracking


def gradient(at: Plane, stops: list[tuple[float, str]]) -> Plane:
    """Colour at each position in [0, 1], between `stops` of position and hex colour."""
    positions = [position for position, _ in stops]
    colours = np.stack([rgb(colour) for _, colour in stops])
    return np.stack([np.interp(at, positions, colours[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def rgb(code: str) -> Plane:
    """`#rrggbb` as three numbers in [0, 1]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def lobe(value: Plane, centre: float, width: float) -> Plane:
    """A bell of height 1 at `centre`."""
    return np.exp(-(((value - centre) / width) ** 2)).astype(np.float32)


def box(value: Plane, low: float, high: float, softness: float) -> Plane:
    """1 between `low` and `high`, falling to 0 over `softness` outside and inside."""
    return smoothstep(value, low - softness, low + softness) * (1 - smoothstep(value, high - softness, high + softness))


def smoothstep(value: Plane, low: float, high: float) -> Plane:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


if __name__ == "__main__":
    main()
