import io

import numpy as np
import pytest
from PIL import Image

from ad_agent_mcp.contract.ad import TextPosition
from ad_agent_mcp.imaging.composite import place_product, product_box
from ad_agent_mcp.imaging.contrast import legibility, luminance, ratio, relit, scrim_density
from ad_agent_mcp.imaging.cutout import cut_out
from ad_agent_mcp.imaging.picture import alpha_over, core_of, encode_png
from ad_agent_mcp.imaging.placement import find_spots, safe_area
from ad_agent_mcp.imaging.shadow import product_shadow

from .products import bottle, photo

CANVASES = [(1024, 1024), (1080, 1920), (1200, 628), (256, 2048), (300, 256)]


@pytest.mark.parametrize("size", [(150, 400), (300, 700)])
def test_a_placed_product_is_a_plain_resize_of_its_photo(size):
    original = photo(bottle(), "gradient")
    cut = cut_out(np.asarray(original))
    placed = place_product(original, cut.rgba, source_box=cut.box, placed_box=(60, 50, *size), canvas=(500, 800))
    x, y, width, height = cut.box
    wanted = np.asarray(original.resize(size, Image.Resampling.LANCZOS, box=(x, y, x + width, y + height)))
    part = placed[50 : 50 + size[1], 60 : 60 + size[0]]
    core = core_of(part[..., 3])
    assert core.sum() > 0.4 * core.size
    assert np.abs(part[core][:, :3].astype(int) - wanted[core]).max() <= 1


def test_hidden_colours_of_empty_pixels_do_not_bleed_into_the_edge():
    product = np.array(bottle())
    product[product[..., 3] == 0, :3] = (255, 0, 255)
    original = Image.fromarray(product)
    cut = cut_out(product)
    placed = place_product(original, cut.rgba, source_box=cut.box, placed_box=(0, 0, 90, 240), canvas=(90, 240))
    edge = (placed[..., 3] > 10) & (placed[..., 3] < 255)
    red, green, blue = placed[edge][:, :3].astype(int).T
    assert ((red - green > 60) & (blue - green > 60)).mean() < 0.02


def test_laying_over_is_exact_where_alpha_is_full_or_none():
    rng = np.random.default_rng(1)
    image, layer = rng.integers(0, 256, (60, 50, 3), np.uint8), rng.integers(0, 256, (60, 50, 4), np.uint8)
    layer[:20, :, 3], layer[40:, :, 3] = 0, 255
    result = alpha_over(image, layer)
    assert (result[:20] == image[:20]).all()
    assert (result[40:] == layer[40:, :, :3]).all()


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("source", [(300, 760), (900, 200), (40, 40)])
@pytest.mark.parametrize("side", [None, *TextPosition])
def test_a_product_stands_inside_the_canvas_in_its_own_shape(canvas, source, side):
    x, y, width, height = product_box(source, canvas, floor_y=0.7, side=side)
    assert x >= 0
    assert y >= 0
    assert x + width <= canvas[0]
    assert y + height <= canvas[1]
    assert abs(width / height / (source[0] / source[1]) - 1) < 0.15


def test_a_shadow_lies_under_the_product_and_away_from_the_light():
    matte = np.zeros((400, 600), np.float32)
    matte[100:300, 250:350] = 1
    left = product_shadow(matte, product=(250, 100, 100, 200), light_x=1)[..., 3].astype(float)
    right = product_shadow(matte, product=(250, 100, 100, 200), light_x=-1)[..., 3].astype(float)
    assert left[:, :250].sum() > left[:, 350:].sum()
    assert right[:, 350:].sum() > right[:, :250].sum()
    assert left[280:320, 250:350].max() > 100
    assert left[:150].max() < 5


def test_a_scrim_leaves_something_of_the_picture_round_words_in_its_middle():
    for box, canvas in (((61, 384, 902, 256), (1024, 1024)), ((100, 600, 880, 500), (1080, 1920))):
        density = scrim_density(box, canvas, font_size_px=100)
        assert max(density[0].max(), density[-1].max()) < 0.2


@pytest.mark.parametrize(
    ("box", "full", "clear"),
    [
        ((60, 10, 80, 40), np.s_[:50, :], np.s_[150:, :]),  # at the top, in the middle: as wide as the picture
        ((60, 150, 80, 40), np.s_[150:, :], np.s_[:50, :]),  # at the bottom
        ((5, 5, 60, 190), np.s_[:, :65], np.s_[:, 160:]),  # beside the product of a banner
        ((90, 90, 20, 20), np.s_[90:110, 90:110], np.s_[:, :5]),  # far from every border
    ],
)
def test_a_scrim_reaches_to_the_borders_near_the_letters_and_fades_elsewhere(box, full, clear):
    density = scrim_density(box, (200, 200), font_size_px=20)
    assert density.shape == (200, 200)
    assert (density[full] == 1).all()
    assert (density[clear] == 0).all()
    steps = np.abs(np.concatenate([np.diff(density, axis=0).ravel(), np.diff(density, axis=1).ravel()]))
    assert steps.max() < 0.03


def test_contrast_ratios_are_those_of_wcag():
    black, white, grey = (np.array([value], np.uint8) for value in ([0, 0, 0], [255] * 3, [119] * 3))
    assert ratio(luminance(black), luminance(white))[0] == pytest.approx(21, abs=0.01)
    assert ratio(luminance(white), luminance(grey))[0] == pytest.approx(4.48, abs=0.02)


def test_legibility_sees_how_far_letters_stand_out():
    letters = np.zeros((120, 200), np.float32)
    letters[40:80, 40:160] = 1
    seen = []
    for value in (0, 120, 200):
        picture = np.full((120, 200, 3), 210, np.uint8)
        picture[letters > 0] = value
        seen.append(legibility(picture, letters))
    assert [measured.is_light for measured in seen] == [False, False, False]
    assert seen[0].worst > 12 > seen[1].worst > 2 > seen[2].worst


def test_relighting_leaves_the_shape_alone():
    letters = np.random.default_rng(2).integers(0, 256, (20, 20, 4), np.uint8)
    darker = relit(letters, towards_light=False, amount=0.4)
    assert (darker[..., 3] == letters[..., 3]).all()
    assert (darker[..., :3] <= letters[..., :3]).all()


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("position", list(TextPosition))
def test_letters_always_lie_inside_the_safe_area(canvas, position):
    picture = np.full((canvas[1], canvas[0], 3), 180, np.uint8)
    safe = safe_area(canvas)
    spot = find_spots(picture, None, (round(canvas[0] * 0.95), 60), area=safe, position=position)[0]
    x, y, width, height = spot.box
    assert x >= safe[0]
    assert y >= safe[1]
    assert x + width <= safe[0] + safe[2]
    assert y + height <= safe[1] + safe[3]


def test_auto_keeps_off_the_product_and_the_clutter():
    picture = np.full((800, 800, 3), 200, np.uint8)
    picture[:300] = np.random.default_rng(3).integers(0, 256, (300, 800, 3), np.uint8)
    product = np.zeros((800, 800), np.float32)
    product[300:560, 200:600] = 1
    spot = find_spots(picture, product, (500, 90), area=safe_area((800, 800)), position=TextPosition.AUTO)[0]
    assert spot.box[1] >= 560


def test_png_layers_are_lossless():
    picture = np.random.default_rng(4).integers(0, 256, (40, 30, 4), np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(picture)))) == picture).all()


def test_laying_over_rounds_each_mixed_level_to_the_nearest():
    ground, layer = np.mgrid[0:256, 0:256].astype(np.uint8)
    for alpha in range(256):
        over = np.dstack([layer, layer, layer, np.full_like(layer, alpha)])
        mixed = alpha_over(np.dstack([ground] * 3), over)[..., 0]
        exact = (ground.astype(np.int64) * (255 - alpha) + layer.astype(np.int64) * alpha) / 255
        assert (np.abs(mixed - exact) <= 0.5).all()
