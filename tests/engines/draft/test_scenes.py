"""The painted scenes: which one a prompt asks for, its colours, and that light, shadow and floor agree."""

import numpy as np
import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.document import Box
from ad_agent_mcp.contract.texts import Text, catalogue
from ad_agent_mcp.engines.base import CutOut, Scene
from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.engines.draft.palette import choose_palette, named_colours
from ad_agent_mcp.engines.draft.scenes.routing import SCENES, SceneKind, choose_scene, paint_scene, scene_name
from ad_agent_mcp.engines.draft.scenes.setting import Setting
from ad_agent_mcp.imaging.composite import merged, product_reflection
from ad_agent_mcp.imaging.picture import floats
from ad_agent_mcp.imaging.shadow import product_shadow

from ...imaging.products import bottle

PRODUCT = np.array(bottle(300))
BY_NAME = {kind.name: kind for kind in SCENES}


class Report:
    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []

    def iteration(self, done: int, total: int) -> None:
        pass

    def notice(self, code: str, text: Text) -> None:
        self.notices.append((code, text.en))

    def model_moved(self, *args: object, **kwargs: object) -> None:
        pass


def painted(prompt: str, *, seed: int = 1, size: tuple[int, int] = (320, 320)) -> tuple[Scene, Report]:
    report = Report()
    request = GenerateRequest(product_image="x", bg_prompt=prompt, text_content="hi")
    cut = CutOut(PRODUCT, (2, 4, 116, 290), 1.0, "alpha")
    return DraftEngine().paint_background(request, size=size, product=cut, seed=seed, report=report), report


def picture(
    kind: SceneKind, size: tuple[int, int], *, light_x: float = -1.0, seed: int = 3, prompt: str = ""
) -> np.ndarray:
    choice = choose_scene(f"{kind.surfaces.split()[0]} {prompt}")
    subject: Box = (size[0] * 3 // 8, size[1] // 3, max(1, size[0] // 4), size[1] // 2)
    setting = Setting(size, choose_palette(prompt, PRODUCT), light_x, kind.floor_y, subject, choice.props)
    return paint_scene(choice.kind, setting, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("", "studio"),
        ("a robot on Mars", "studio"),
        ("로봇", "studio"),
        ("a sunlit studio with palm leaves", "studio"),
        ("창가로 햇살이 드는 스튜디오", "studio"),
        ("a cosy cafe, coffee on the table", "wood table"),
        ("원목 테이블이 있는 카페", "wood table"),
        ("a wooden desk by the window", "wood table"),
        ("the ocean at sunset", "sunset water"),
        ("노을 지는 바닷가", "sunset water"),
        ("neon lights of a city at night", "glossy night floor"),
        ("도시의 밤거리와 네온사인", "glossy night floor"),
        ("luxury marble counter", "marble counter"),
        ("고급스러운 대리석 위", "marble counter"),
        ("minimal gradient", "gradient"),
        ("심플한 그라데이션 배경", "gradient"),
        # A surface outweighs a mood, and a word inside another one is not that word.
        ("luxury perfume on a wooden table", "wood table"),
        ("밤색 스튜디오", "studio"),
        ("대나무", "studio"),
    ],
)
def test_the_words_of_a_prompt_choose_the_scene(prompt: str, name: str):
    assert choose_scene(prompt).kind.name == name


def test_what_was_painted_is_reported_with_what_was_left_out():
    scene, report = painted("a cozy cafe with a robot")
    assert scene.name == "wood table, warm brown"
    [(code, message)] = report.notices
    assert code == "scene_simplified"
    assert "wood table, warm brown" in message
    assert "cozy, cafe" in message
    assert "robot" not in message


def test_without_a_prompt_a_clean_studio_is_painted_and_nothing_warned_of():
    scene, report = painted("")
    assert scene.name == "studio, product tones"
    assert report.notices == []


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("바다", "daylight water, pale blue"),
        ("노을 바다", "sunset water, coral dusk"),
        ("dark wood", "wood table, dark brown"),
        ("네온 거리", "glossy night floor, magenta and cyan"),
        ("짙은 코랄 스튜디오", "studio, deep coral"),
        ("palm leaf shadows, podium", "studio with leaf light and podium, product tones"),
        ("black and gold marble", "marble counter, black and gold"),
    ],
)
def test_a_scene_is_called_by_what_it_holds(prompt: str, name: str):
    assert scene_name(choose_scene(prompt), choose_palette(prompt, PRODUCT)).en == name


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("dark wood", "나무 탁자, 어두운 갈색"),
        ("palm leaf shadows, podium", "스튜디오(나뭇잎 그림자, 받침대 포함), 제품과 어울리는 색"),
        ("네온 거리", "밤거리의 윤나는 바닥, 자홍색과 청록색"),
    ],
)
def test_a_scene_has_a_name_in_korean(prompt: str, name: str):
    assert scene_name(choose_scene(prompt), choose_palette(prompt, PRODUCT)).in_("ko") == name


@pytest.mark.parametrize("kind", SCENES, ids=lambda kind: kind.name)
def test_every_scene_and_its_own_colours_are_named_in_the_catalogue(kind: SceneKind):
    assert {f"scenes.{name}" for name in (kind.name, *(kind.colours or ()))} <= catalogue().keys()


@pytest.mark.parametrize(
    "prompt",
    [
        "water by day",
        "물결 낮",
        "호수 낮에",
        "beach at noon",
        "바다 한낮",
        "a lake on a sunny afternoon",
        "waves in daylight",
        "맑은 오후의 호수",
        "아침 호수",
        "햇살 비치는 호수",
        "햇살 가득한 물결",
        "sunlit waves",
        "water under the sun",
        "river by day",
        "수영장 한낮",
        "오전의 수면",
    ],
)
def test_water_is_painted_by_day_where_a_word_says_day(prompt: str):
    choice = choose_scene(prompt)
    assert scene_name(choice, choose_palette(prompt, PRODUCT)).en == "daylight water, pale blue"
    red, _, blue = painted(prompt)[0].image[:60].mean(axis=(0, 1))
    assert blue > 150
    assert blue > red + 20


@pytest.mark.parametrize(
    "prompt",
    [
        "dawn over the ocean",
        "새벽 바다",
        "해변의 황혼",
        "the sea at twilight",
        "golden beach",
        "여름밤 바다",
        "the setting sun over waves",
        "a full moon over water",
    ],
)
def test_water_is_not_painted_by_day_where_a_word_says_another_time(prompt: str):
    choice = choose_scene(prompt)
    assert choice.kind.name == "sunset water"
    assert "day" not in choice.props


def test_golden_sand_at_noon_is_no_dusk():
    assert "day" in choose_scene("golden sand, the sea at midday").props


def test_a_low_table_is_not_the_day():
    assert "day" not in choose_scene("호숫가의 낮은 탁자").props


def test_the_word_for_the_time_is_told_among_those_that_are_followed():
    assert choose_scene("water by day").words == ("water", "day")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("coral", "#ff7f50"),
        ("코랄빛", "#ff7f50"),
        ("a navy wall", "#000080"),
        ("sky blue", "#87ceeb"),
        ("하늘색", "#87ceeb"),
        ("hot pink", "#ff69b4"),
        ("빨간색", "#ff0000"),
    ],
)
def test_colour_names_are_the_standard_ones(words: str, code: str):
    [(_, colour)] = named_colours(words)
    assert np.allclose(np.array(colour) * 255, [int(code[i : i + 2], 16) for i in (1, 3, 5)], atol=0.5)


@pytest.mark.parametrize(
    ("adjective", "is_darker"),
    [
        ("deep", True),
        ("dark", True),
        ("짙은", True),
        ("pale", False),
        ("pastel", False),
        ("연한", False),
        ("파스텔", False),
    ],
)
def test_adjectives_shift_a_colour(adjective: str, is_darker: bool):
    (_, plain), (_, shifted) = named_colours("coral")[0], named_colours(f"{adjective} coral")[0]
    assert (sum(shifted) < sum(plain)) is is_darker
    wall, plain_wall = (float(choose_palette(words, PRODUCT).wall.sum()) for words in (f"{adjective} coral", "coral"))
    assert (wall < plain_wall) is is_darker


def test_vivid_strengthens_and_muted_weakens():
    spread = {word: np.ptp(named_colours(f"{word} salmon")[0][1]) for word in ("vivid", "muted")}
    assert spread["muted"] < np.ptp(named_colours("salmon")[0][1]) < spread["vivid"]


def test_korean_prefixes_shift_a_colour():
    pale, plain, deep = (sum(named_colours(word)[0][1]) for word in ("연보라", "보라", "진보라"))
    assert deep < plain < pale


def test_an_adjective_belongs_to_the_colour_after_it():
    assert [name for name, _ in named_colours("deep warm coral and cream")] == ["deep coral", "cream"]
    assert [name for name, _ in named_colours("soft morning light, peach tones")] == ["peach"]


def test_an_adjective_alone_darkens_or_lifts_the_scene():
    lifts = [choose_palette(words, PRODUCT).lift for words in ("dark wood", "wood in soft light", "light oak wood")]
    assert lifts[0] < lifts[1] == 0 < lifts[2]


def test_a_colour_word_overrides_the_products_hue():
    red, green, blue = choose_palette("파란 스튜디오", PRODUCT).wall
    assert blue > green > red
    red, green, blue = choose_palette("스튜디오", PRODUCT).wall
    assert green > max(red, blue)


@pytest.mark.parametrize("kind", SCENES, ids=BY_NAME)
@pytest.mark.parametrize("size", [(256, 256), (257, 2048), (2048, 259), (601, 401)])
def test_every_scene_fills_any_size(kind: SceneKind, size: tuple[int, int]):
    image = picture(kind, size)
    assert image.shape == (size[1], size[0], 3)
    assert image.dtype == np.uint8
    assert 8 < image.mean() < 250
    assert (image == 255).mean() < 0.05
    assert (image == 0).mean() < 0.2


@pytest.mark.parametrize("prompt", ["podium leaf", "window podium", "red", "black gold", "pale", "dark", "바다"])
@pytest.mark.parametrize("kind", SCENES, ids=BY_NAME)
def test_every_scene_takes_every_colour_and_prop(kind: SceneKind, prompt: str):
    assert picture(kind, (256, 272), prompt=prompt).std() > 1


@pytest.mark.parametrize("kind", SCENES, ids=BY_NAME)
def test_the_same_seed_paints_the_same_bytes(kind: SceneKind):
    first = picture(kind, (300, 280), prompt="leaf podium")
    assert np.array_equal(first, picture(kind, (300, 280), prompt="leaf podium"))
    assert not np.array_equal(first, picture(kind, (300, 280), prompt="leaf podium", seed=4))


@pytest.mark.parametrize(
    "kind", [kind for kind in SCENES if kind.name != "glossy night floor"], ids=lambda kind: kind.name
)
@pytest.mark.parametrize("light_x", [-1.0, 1.0])
def test_the_shadow_falls_away_from_the_lit_side(kind: SceneKind, light_x: float):
    size = (480, 480)
    bright = np.mean([picture(kind, size, light_x=light_x, seed=seed).mean(axis=2)[:320] for seed in range(4)], axis=0)
    lit = bright[:, :240].mean() - bright[:, 240:].mean()
    matte = np.zeros(size, np.float32)
    matte[200:400, 190:290] = 1
    shadow = floats(
        product_shadow(matte, product=(190, 200, 100, 200), light_x=light_x, light_z=kind.light_z, cast=kind.cast)[
            ..., 3
        ]
    )
    fallen = shadow[:, :190].sum() - shadow[:, 290:].sum()
    assert np.sign(lit) == -light_x
    assert np.sign(fallen) == light_x


def test_a_sun_behind_the_product_throws_its_shadow_towards_the_camera():
    matte = np.zeros((400, 400), np.float32)
    matte[100:300, 150:250] = 1
    before, behind = (
        floats(product_shadow(matte, product=(150, 100, 100, 200), light_x=-1, light_z=z)[..., 3]) for z in (1, -1)
    )
    assert behind[310:].sum() > 3 * before[310:].sum()
    assert before[:290].sum() > behind[:290].sum()


def test_the_sun_of_a_banner_is_in_the_picture():
    for seed in range(6):
        scene, _ = painted("sunset", seed=seed, size=(480, 240))
        assert scene.light_x < 0


def test_only_glossy_floors_mirror_the_product():
    assert {kind.name for kind in SCENES if kind.gloss > 0.1} == {"glossy night floor", "marble counter"}
    assert painted("night")[0].gloss > 0.3
    assert painted("studio")[0].gloss == 0


def test_a_reflection_hangs_from_the_foot_and_fades():
    cutout = np.zeros((400, 300, 4), np.uint8)
    cutout[100:280, 100:200] = (200, 60, 40, 255)
    layer = product_reflection(cutout, product=(100, 100, 100, 180), gloss=0.5)
    column = layer[:, 150, 3].astype(int)
    assert column[:280].max() == 0
    assert 100 < column[281] < 128
    assert column[300] > column[330] > column[360]
    assert abs(int(layer[290, 150, 0]) - 200) < 4
    assert not product_reflection(cutout, product=(100, 100, 100, 180), gloss=0.0).any()


@pytest.mark.parametrize("tall", range(172, 182))
def test_a_reflection_of_any_height_ends_in_nothing(tall: int):
    cutout = np.full((400, 300, 4), 255, np.uint8)
    cutout[20 + tall :] = 0
    layer = product_reflection(cutout, product=(0, 20, 300, tall), gloss=1.0)
    assert layer[20 + tall + round(0.55 * tall) - 1, 150, 3] < 3


def test_a_reflection_survives_a_product_that_the_canvas_cuts():
    cutout = np.zeros((200, 200, 4), np.uint8)
    cutout[:, :, :] = 255
    assert not product_reflection(cutout, product=(-20, 10, 260, 190), gloss=0.5).any()


def test_merged_layers_look_like_one_over_the_other():
    under, over = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    under[:] = (20, 20, 20, 100)
    over[:2] = (200, 100, 50, 128)
    layer = merged(under, over)
    assert np.array_equal(layer[2:], under[2:])
    assert layer[0, 0, 3] == round(255 * (1 - (1 - 100 / 255) * (1 - 128 / 255)))
    assert 100 < layer[0, 0, 0] < 200
