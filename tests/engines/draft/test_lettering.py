import time

import cv2
import numpy as np
import pytest

from ad_agent_mcp.engines.draft.lettering import paint_letters
from ad_agent_mcp.engines.draft.styles import STYLES, wish_of
from ad_agent_mcp.imaging.picture import alpha_over
from ad_agent_mcp.imaging.typesetting import Typesetter
from ad_agent_mcp.media.fonts import FontCatalog

DEFAULT = "3D render of Gold foil balloon text, inflated, shiny metallic texture"
PROMPTS = {
    "flat": "flat black letters",
    "balloon": DEFAULT,
    "neon": "pink neon sign",
    "wood": "carved wooden letters",
    "stone": "회색 돌 글자",
    "candy": "glossy red candy",
    "plain": "blue 3D letters",
    "chisel": "chrome",
}


@pytest.fixture(scope="module")
def mask():
    setter = Typesetter(FontCatalog(), "NanumSquare/NanumSquareEB.ttf")
    return setter.draw(["여름 세일", "SALE 50%"], 90, padding_px=30).mask


def name_of(prompt):
    return next(name for name, one in STYLES.items() if one is wish_of(prompt).style)


def mean_colour(letters):
    return letters[letters[..., 3] == 255][:, :3].mean(axis=0)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        *((prompt, name) for name, prompt in PROMPTS.items()),
        ("", "balloon"),
        ("은색 풍선", "balloon"),
        ("네온 사인", "neon"),
        ("나무 질감", "wood"),
        ("대리석", "stone"),
        ("젤리 같은 글자", "candy"),
        ("금색 3D 글자", "chisel"),
        ("rose gold", "chisel"),
        ("파란 글자", "flat"),
        ("dark brown", "flat"),
        ("파란 입체 글자", "plain"),
        ("3D render of blue letters", "plain"),
        ("metallic red", "chisel"),
        ("심플하게", "flat"),
        ("3D letters, flat background, gold", "chisel"),
        ("goldfish", "balloon"),
    ],
)
def test_words_choose_the_style(prompt, name):
    assert name_of(prompt) == name


def test_every_style_has_a_prompt_here():
    assert set(PROMPTS) == set(STYLES)


@pytest.mark.parametrize("name", STYLES)
def test_every_style_is_named_in_both_languages(name):
    said = wish_of(PROMPTS[name]).said
    assert said.en.split(",")[0] == name
    assert any("가" <= character <= "힣" for character in said.in_("ko"))


def test_the_default_letters_are_gold(mask):
    red, green, blue = mean_colour(paint_letters(mask, DEFAULT, seed=1))
    assert red > green > blue
    assert red - blue > 90


@pytest.mark.parametrize("style", ["candy", "balloon", "neon", "flat"])
def test_colour_words_act(mask, style):
    red = mean_colour(paint_letters(mask, f"red {style}", seed=1))
    blue = mean_colour(paint_letters(mask, f"파란 {style}", seed=1))
    assert red[0] - red[2] > blue[0] - blue[2] + 60


@pytest.mark.parametrize(
    "prompt",
    [
        "dark brown",
        "진한 갈색",
        "고동색 풍선",
        "brown balloon",
        "밤색 입체",
        "갈색 사탕",
        "적갈색",
        "흑갈색 풍선",
        "mahogany",
    ],
)
def test_brown_letters_are_brown(mask, prompt):
    red, green, blue = mean_colour(paint_letters(mask, prompt, seed=1))
    assert red > 1.15 * green > 1.25 * blue
    assert 0.4 * red < green < 0.85 * red


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("#00A0E9", "#00a0e9"),
        ("flat letters in #0a9", "#00aa99"),
        ("rgb(255, 90, 0)", "#ff5a00"),
        ("rgba(10, 20, 30, 0.5) text", "#0a141e"),
        ("blue, exactly #1e5fd0", "#1e5fd0"),
        ("0xFF8800 letters", "#ff8800"),
        ("hex code 1e5fd0", "#1e5fd0"),
        ("RGB: 10, 20, 30", "#0a141e"),
    ],
)
def test_exact_colours_are_kept(mask, prompt, code):
    letters = paint_letters(mask, prompt, seed=1)
    assert mean_colour(letters) == pytest.approx([int(code[at : at + 2], 16) for at in (1, 3, 5)], abs=1)


@pytest.mark.parametrize(
    "prompt",
    [
        "gold balloon but blue",
        "blue balloon, not gold",
        "blue balloon without any gold",
        "blue balloon instead of gold or silver",
        "금색 말고 파란 풍선",
        "금색이 아닌 파란 풍선",
        "금색 풍선인데 파란색으로",
        "do not make it gold; blue balloon",
        "gold? no, blue balloon",
        "gold balloon -> blue",
        "골드 금지, 파란 풍선",
    ],
)
def test_what_is_not_wanted_does_not_count(mask, prompt):
    assert (paint_letters(mask, prompt, seed=1) == paint_letters(mask, "blue balloon", seed=1)).all()


def test_balloons_that_are_not_to_be_gold_are_not_gold(mask):
    assert np.ptp(mean_colour(paint_letters(mask, "balloon, no gold", seed=1))) < 40


@pytest.mark.parametrize("thing", ["gold balloon", "wood", "red candy", "blue", "stone"])
@pytest.mark.parametrize(("darker", "paler"), [("dark", "pale"), ("deep", "light"), ("진한", "연한")])
def test_adjectives_count_for_every_material(mask, thing, darker, paler):
    dark, plain, pale = (
        mean_colour(paint_letters(mask, f"{word} {thing}", seed=1)).mean() for word in (darker, "", paler)
    )
    assert dark + 1 < plain < pale - 1


@pytest.mark.parametrize(
    ("prompt", "unheeded"),
    [
        (DEFAULT, ()),
        ("dark brown letters", ()),
        ("파란 풍선 글자", ()),
        ("deep green candy", ()),
        ("blue balloon, not gold", ()),
        ("silver chrome with sparkling diamonds", ("sparkling", "diamonds")),
        ("blue and gold balloon", ("gold",)),
        ("navy blue", ()),
        ("mint green neon", ()),
        ("deep emerald green candy", ()),
        ("초콜릿 갈색", ()),
        ("red blue letters", ("blue",)),
        ("불타는 네온 글자", ("불타는",)),
        ("soft wood", ()),
        ("bold red neon", ("bold",)),
    ],
)
def test_words_without_effect_are_known(prompt, unheeded):
    assert wish_of(prompt).unheeded == unheeded


def test_a_colour_beats_the_mere_word_metallic(mask):
    red, green, _ = mean_colour(paint_letters(mask, "shiny metallic red foil balloon", seed=1))
    assert red - green > 60


@pytest.mark.parametrize("metal", ["gold", "rose gold", "chrome"])
def test_a_metal_can_be_flat(mask, metal):
    letters = paint_letters(mask, f"flat {metal}", seed=1)
    assert np.ptp(letters[letters[..., 3] == 255][:, :3], axis=0).max() == 0


def test_metals_differ(mask):
    gold, chrome, rose = (
        mean_colour(paint_letters(mask, f"{metal} balloon", seed=1)) for metal in ("gold", "chrome", "rose gold")
    )
    assert np.ptp(chrome) < 40
    assert gold[1] - gold[2] > rose[1] - rose[2] + 30


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_faces_keep_the_mask_and_only_an_extrusion_is_as_solid(mask, prompt):
    letters = paint_letters(mask, prompt, seed=1)
    assert letters.shape == (*mask.shape, 4)
    assert (letters[letters[..., 3] == 0] == 0).all()
    solid, face = letters[..., 3] > 127, mask > 0.5
    assert (solid & face).sum() >= 0.99 * face.sum()
    if wish_of(prompt).style.depth:
        assert 1.1 < solid.sum() / face.sum() < 1.6
    else:
        assert (solid & ~face).sum() <= 0.01 * face.sum()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_nothing_is_cut_at_the_border(mask, prompt):
    alpha = paint_letters(mask, prompt, seed=1)[..., 3]
    assert max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) < 8


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_the_same_seed_gives_the_same_bytes(mask, prompt):
    assert (paint_letters(mask, prompt, seed=4) == paint_letters(mask, prompt, seed=4)).all()


def test_the_bytes_do_not_depend_on_how_many_threads_share_the_work():
    setter = Typesetter(FontCatalog(), "NanumSquare/NanumSquareEB.ttf")
    large = setter.draw(["여름 세일", "SALE 50%"], 210, padding_px=63).mask
    threads = cv2.getNumThreads()
    try:
        painted: list[bytes] = []
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            painted.append(paint_letters(large, DEFAULT, seed=3).tobytes())
    finally:
        cv2.setNumThreads(threads)
    assert len(set(painted)) == 1


@pytest.mark.parametrize("prompt", [prompt for name, prompt in PROMPTS.items() if name != "flat"])
def test_letters_are_modelled(mask, prompt):
    letters = paint_letters(mask, prompt, seed=1)
    values = letters[letters[..., 3] == 255][:, :3].mean(axis=1)
    assert np.percentile(values, 98) - np.percentile(values, 5) > 70


def test_an_inflated_stroke_has_no_seam():
    """Along a straight tube of candy nothing changes: no ridge, no ladder of dots."""
    bar = np.zeros((400, 120), np.float32)
    bar[20:380, 40:80] = 1
    rgb = paint_letters(bar, "red candy", seed=1)[100:300, 42:78, :3].astype(np.float32)
    assert rgb.std(axis=0).max() < 3


def test_neon_glows_on_dark_and_stands_out_on_light(mask):
    letters = paint_letters(mask, "cyan neon", seed=1)
    ring = (mask < 0.01) & (letters[..., 3] > 40)
    assert ring.sum() > 0.3 * (mask > 0.5).sum()
    dark = np.full((*mask.shape, 3), 15, np.uint8)
    assert alpha_over(dark, letters)[ring].mean() > 40
    light = np.full((*mask.shape, 3), 235, np.uint8)
    assert alpha_over(light, letters)[ring][:, 0].mean() < 190


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_painting_is_quick(prompt):
    setter = Typesetter(FontCatalog(), "NanumSquare/NanumSquareEB.ttf")
    large = setter.draw(["여름 맞이 세일", "SALE 50%"], 150, padding_px=45).mask
    times: list[float] = []
    for _ in range(3):
        started = time.process_time()
        paint_letters(large, prompt, seed=1)
        times.append(time.process_time() - started)
    assert min(times) < 0.6


@pytest.mark.parametrize("shape", [(16, 16), (40, 300)])
def test_no_letters_and_tiny_letters_are_no_error(shape):
    empty = np.zeros(shape, np.float32)
    assert not paint_letters(empty, DEFAULT, seed=1).any()
    empty[7:9, 7:9] = 1
    for prompt in PROMPTS.values():
        assert paint_letters(empty, prompt, seed=1)[..., 3].max() > 200


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_strokes_too_thin_to_fill_a_pixel_are_painted_as_faint_as_they_are(mask, prompt):
    faint = mask * np.float32(0.4)
    assert np.abs(paint_letters(faint, prompt, seed=1)[..., 3] / 255 - faint).max() < 0.01
