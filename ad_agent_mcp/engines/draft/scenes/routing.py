"""Which scene a prompt asks for, in Korean or English, and how it is painted."""

from collections.abc import Callable
from dataclasses import dataclass

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
        colours: how its own colours are called when dark, as they are, and when pale; None when it takes the
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
    colours: tuple[str, str, str] | None = None
    light_z: float = 1.0
    cast: float = 1.0
    gloss: float = 0.0
    floor_y: float = 0.70


STUDIO = SceneKind(
    "studio",
    paint_studio,
    "studio backdrop 스튜디오 촬영장",
    "window sunlight sunlit morning leaf leaves palm tropical nature natural forest garden organic podium pedestal "
    "창가 창문 햇살 햇빛 아침 잎 나뭇잎 야자 자연 숲 정원 유기농 단상 받침대",
)
WOOD = SceneKind(
    "wood table",
    paint_wood,
    "wood wooden timber oak walnut 원목 나무 우드 목재",
    "table desk cafe café coffee coffeehouse bakery bread kitchen rustic cozy cosy restaurant autumn "
    "테이블 식탁 탁자 책상 카페 커피 베이커리 빵집 주방 부엌 식당 아늑한 가을",
    colours=("dark brown", "warm brown", "pale brown"),
    light_z=0.5,
    gloss=0.05,
    floor_y=0.67,
)
_WATER = (
    "water wave waves ripple ripples river riverside pool poolside "
    "물결 파도 수면 바닷물 강물 강가 물가 수영장 풀장 계곡"
)
SUNSET = SceneKind(
    "sunset water",
    paint_sunset,
    "sunset sunrise dusk beach ocean sea seaside seashore lake 노을 석양 일몰 일출 바다 바닷가 해변 해안 호수",
    f"{_WATER} summer holiday vacation sky resort 여름 휴가 휴양지 하늘",
    colours=("coral dusk", "coral dusk", "coral dusk"),
    light_z=-0.6,
    cast=0.45,
)
NIGHT = SceneKind(
    "glossy night floor",
    paint_night,
    "night neon midnight nightlife bokeh 밤 네온 야경 심야 한밤",
    "city urban street glossy club party cyberpunk lights 도시 도심 거리 클럽 파티 광택 조명",
    cast=0.25,
    gloss=0.42,
)
MARBLE = SceneKind(
    "marble counter",
    paint_marble,
    "marble 대리석 마블",
    "luxury luxurious premium elegant stone perfume 럭셔리 고급 프리미엄 우아한 명품 향수",
    colours=("black", "white", "white"),
    cast=0.55,
    gloss=0.16,
    floor_y=0.67,
)
GRADIENT = SceneKind(
    "gradient",
    paint_gradient,
    "gradient 그라데이션 그라디언트 그러데이션",
    "minimal minimalist minimalism simple plain solid abstract 미니멀 심플 단순한 단색 깔끔한",
    cast=0.55,
    floor_y=0.66,
)
SCENES = (STUDIO, WOOD, SUNSET, NIGHT, MARBLE, GRADIENT)

_DAYTIME = (
    "day daytime daylight midday noon noonday noontime afternoon morning sun sunlight sunlit sunny sunshine "
    "낮 한낮 대낮 정오 오전 오후 아침 햇살 햇빛 햇볕 맑은 맑게 화창 청명"
)
_PROPS = {
    "leaf": "leaf leaves palm tropical nature natural forest garden organic 잎 나뭇잎 야자 자연 숲 정원 유기농",
    "window": "window sunlight sunlit morning light sunny 창가 창문 햇살 햇빛 아침 빛",
    "neon": "neon cyberpunk club 네온 클럽",
    "podium": "podium pedestal plinth 단상 받침대 포디움",
    "day": f"ocean sea beach seaside summer sky resort 바다 바닷가 해변 해안 여름 하늘 휴양지 {_DAYTIME}",
    "dusk": "sunset sunrise dusk dawn daybreak twilight nightfall evening setting night nighttime midnight moon "
    "moonlight moonlit golden 노을 석양 일몰 일출 저녁 새벽 황혼 해질녘 해돋이 해넘이 동틀 여명 밤 "
    "여름밤 한밤 야간 심야 달빛 달밤",
}
# Korean words that begin like one of those above but mean something else.
_NOT = ("밤색", "밤나무", "하늘색", "하늘빛", "물결무늬", "낮은", "낮게", "낮고", "낮춘", "낮추")
_TIMES = ("day", "dusk")


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
    for word in _NOT:
        text = text.replace(word, " ")
    best, best_rank, words = STUDIO, (0, 0), dict[int, str]()
    for kind in SCENES:
        surfaces, moods = places_of(kind.surfaces.split(), text), places_of(kind.moods.split(), text)
        if kind is SUNSET and (surfaces or places_of(_WATER.split(), text)):
            moods |= places_of(_DAYTIME.split(), text)  # light falls on water, too
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
        words = words | {at: word for name in _TIMES if name in props for at, word in held[name].items()}
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
