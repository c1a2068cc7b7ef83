"""Which scene a prompt asks for, in Korean or English, and how it is painted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....contract.texts import Text, say
from ....imaging.picture import Floats, Picture, to_bytes
from ..palette import Palette, places_of
from .gradient import paint_gradient
from .marble import paint_marble
from .night import paint_night
from .setting import Setting, shouldered, with_grain
from .studio import paint_studio
from .sunset import paint_sunset
from .wood import paint_wood


@dataclass(frozen=True)
class SceneKind:
    """A family of scenes.

    Attributes:
        name: as reported to the caller.
        paint: an empty scene, RGB float (H, W, 3).
        surfaces: words that name it outright; each counts twice.
        moods: words that only suggest it.
        colours: how its own colours are called when dark, as they are, and when pale; empty when it takes the
            product's.
        light_z: where its light comes from, -1 (behind the product) to 1 (in front of it).
        cast: 0-1, how strong a shadow falls along its floor.
        gloss: 0-1, how strongly its floor mirrors the product.
        floor_y: where its floor begins, as a share of the height.
    """

    name: str
    paint: Callable[[Setting, np.random.Generator], Floats]
    surfaces: str
    moods: str
    colours: Sequence[str] = ()
    light_z: float = 1.0
    cast: float = 1.0
    gloss: float = 0.0
    floor_y: float = 0.70


_PAINTERS = {
    "studio": paint_studio,
    "wood table": paint_wood,
    "sunset water": paint_sunset,
    "glossy night floor": paint_night,
    "marble counter": paint_marble,
    "gradient": paint_gradient,
}
_DATA = json.loads(Path(__file__).with_name("scenes.json").read_text("utf-8"))
SCENES = tuple(SceneKind(name, paint, **_DATA["scenes"][name]) for name, paint in _PAINTERS.items())
STUDIO, WOOD, SUNSET, NIGHT, MARBLE, GRADIENT = SCENES
_WATER: str = _DATA["water"]
_DAYTIME: str = _DATA["daytime"]
_PROPS: dict[str, str] = _DATA["props"] | {"day": f"{_DATA['props']['day']} {_DAYTIME}"}
_MEAN_SOMETHING_ELSE: list[str] = _DATA["mean_something_else"]
"""Korean words that begin like one that counts."""


@dataclass(frozen=True)
class SceneChoice:
    """What a prompt asks for.

    Attributes:
        kind: the scene.
        props: what it holds.
        words: the prompt's words that decided, in order.
    """

    kind: SceneKind
    props: frozenset[str]
    words: tuple[str, ...]


def choose_scene(prompt: str) -> SceneChoice:
    """The scene that most words of `prompt` speak for; the first of equals; a studio when none does."""
    text = prompt.lower()
    for word in _MEAN_SOMETHING_ELSE:
        text = text.replace(word, " ")
    best, best_rank, words = STUDIO, (0, 0), dict[int, str]()
    for kind in SCENES:
        surfaces, moods = places_of(kind.surfaces.split(), text), places_of(kind.moods.split(), text)
        if kind is SUNSET:
            water = places_of(_WATER.split(), text)
            # Light falls on water, too.
            moods |= water | (places_of(_DAYTIME.split(), text) if surfaces or water else {})
        found = surfaces | moods
        rank = (2 * len(surfaces) + len(moods), -min(found, default=0))
        if found and (best_rank == (0, 0) or rank > best_rank):
            best, best_rank, words = kind, rank, found
    held = {name: places_of(known.split(), text) for name, known in _PROPS.items()}
    props = {name for name, found in held.items() if found}
    if "dusk" in props:
        # Sand may be golden at noon, too.
        is_day = set(held["dusk"].values()) == {"golden"} and bool(places_of(_DAYTIME.split(), text))
        props.discard("dusk" if is_day else "day")
    if best is SUNSET:
        words = words | {at: word for name in ("day", "dusk") if name in props for at, word in held[name].items()}
    return SceneChoice(best, frozenset(props), tuple(words[place] for place in sorted(words)))


def scene_name(choice: SceneChoice, palette: Palette) -> Text:
    """What was painted, for the caller: the scene, what it holds and whose colours it has."""
    kind, props = choice.kind, choice.props
    title, own = kind.name, kind.colours[round(float(np.sign(palette.lift))) + 1] if kind.colours else None
    if kind is SUNSET and "day" in props:
        title, own = "daylight water", "pale blue"
    elif kind is NIGHT and "neon" in props:
        own = "magenta and cyan"
    told, light = say(f"scenes.{title}"), next((prop for prop in ("leaf", "window") if prop in props), None)
    extras = [say(f"scenes.{extra}") for extra in (light, "podium" if "podium" in props else None) if extra]
    if kind is STUDIO and extras:
        told = say("engines.scene_with", scene=told, extras=extras)
    colours = palette.name if palette.words else say(f"scenes.{own or palette.name}")
    return say("engines.scene", scene=told, colours=colours)


def paint_scene(kind: SceneKind, setting: Setting, rng: np.random.Generator) -> Picture:
    """The empty scene, RGB (H, W, 3)."""
    return to_bytes(with_grain(shouldered(kind.paint(setting, rng)), rng, 0.004))
