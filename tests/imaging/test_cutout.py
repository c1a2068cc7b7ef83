import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.imaging.cutout import cut_out, from_model

from .products import bottle, file_bytes, photo, product_corner

SIZE = (700, 800)


def truth(product=None):
    product = product or bottle()
    sheet = Image.new("L", SIZE)
    sheet.paste(product.getchannel("A"), product_corner(product, SIZE))
    return np.asarray(sheet)


def overlap(alpha, wanted):
    one, other = alpha > 127, wanted > 127
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("backdrop", ["white", "gradient"])
def test_a_plain_backdrop_is_cut_away(backdrop):
    picture = np.asarray(photo(bottle(), backdrop))
    cut = cut_out(picture)
    alpha = cut.rgba[..., 3]
    assert cut.route == "plain"
    assert cut.confidence > 0.8
    assert overlap(alpha, truth()) > 0.98
    x, y, width, height = cut.box
    assert alpha.sum() == alpha[y : y + height, x : x + width].sum()
    # Colours are the photo's own wherever the product is solid, and it is solid nearly everywhere.
    solid = alpha == 255
    assert (cut.rgba[solid][:, :3] == picture[solid]).all()
    assert solid.sum() > 0.9 * (truth() == 255).sum()


def test_the_soft_edge_is_freed_from_the_backdrop():
    picture = np.asarray(photo(bottle(), "white"))
    cut = cut_out(picture)
    alpha = cut.rgba[..., 3]
    edge = (alpha > 20) & (alpha < 200)
    edge[:, :] &= np.indices(alpha.shape)[0] > 520  # beside the body below the label, which is one green
    assert edge.sum() > 50
    brightness = cut.rgba[edge][:, :3].mean(axis=1)
    assert np.median(brightness) < 110
    assert np.median(picture[edge].mean(axis=1)) > np.median(brightness)


def test_real_alpha_is_taken_as_it_is():
    product = np.array(bottle())
    cut = cut_out(product)
    assert cut.route == "alpha"
    assert cut.confidence == 1
    kept = product[..., 3] >= 4
    assert (cut.rgba[kept] == product[kept]).all()


def test_clutter_is_cut_at_a_guess_and_says_so():
    cut = cut_out(np.asarray(photo(bottle(), "stripes")))
    assert cut.route == "clutter"
    assert 0 <= cut.confidence <= 1
    assert cut.rgba.shape == (800, 700, 4)


def test_nothing_outside_the_product_box_is_kept():
    two = Image.new("RGB", (1000, 600), (250, 250, 250))
    small = bottle(400)
    for left in (120, 700):
        two.paste(small, (left, 100), small)
    cut = cut_out(np.asarray(two), product_box=(110, 90, 190, 420))
    assert cut.rgba[..., 3].any()
    assert not cut.rgba[:, 500:, 3].any()


def test_an_empty_picture_or_a_box_beside_it_is_refused():
    with pytest.raises(AdAgentError):
        cut_out(np.zeros((50, 50, 4), np.uint8))
    with pytest.raises(AdAgentError):
        cut_out(np.zeros((50, 50, 3), np.uint8), product_box=(400, 400, 10, 10))


def test_a_picture_of_nothing_still_gives_a_product():
    cut = cut_out(np.full((300, 300, 3), 128, np.uint8))
    assert cut.confidence < 0.5
    assert cut.box[2] > 0


def test_the_same_photo_gives_the_same_bytes():
    for backdrop in ("gradient", "stripes"):
        picture = np.asarray(photo(bottle(), backdrop))
        assert cut_out(picture).rgba.tobytes() == cut_out(picture).rgba.tobytes()


def matte_of(*, softness=0.0):
    """The bottle's true matte, blurred at its edge."""
    matte = truth().astype(np.float32) / 255
    return cv2.GaussianBlur(matte, (0, 0), softness) if softness else matte


def test_a_models_cut_keeps_the_photos_colours_and_frees_the_edge_from_the_backdrop():
    picture = np.asarray(photo(bottle(), "white"))
    cut = from_model(picture, lambda part: matte_of(softness=1.0))
    alpha = cut.rgba[..., 3]
    assert cut.route == "model"
    assert cut.confidence > 0.9
    assert overlap(alpha, truth()) > 0.98
    solid = alpha == 255
    assert (cut.rgba[solid][:, :3] == picture[solid]).all()
    edge = (alpha > 20) & (alpha < 200) & (np.indices(alpha.shape)[0] > 600)
    assert np.median(cut.rgba[edge][:, :3].mean(axis=1)) < 110


def test_a_model_that_is_nearly_sure_of_the_inside_blurs_no_detail_there():
    picture = np.asarray(photo(bottle(), "white"))
    matte = matte_of()
    label = np.s_[420:520, 300:400]
    matte[label] *= 0.95
    cut = from_model(picture, lambda part: matte)
    assert np.abs(cut.rgba[label][..., :3].astype(int) - picture[label]).max() <= 2


def test_a_model_sees_only_the_product_box():
    picture = np.asarray(photo(bottle(), "white"))
    seen = []

    def segment(part):
        seen.append(part.shape)
        return np.ones(part.shape[:2], np.float32)

    cut = from_model(picture, segment, product_box=(100, 200, 200, 300))
    assert seen == [(336, 236, 3)]
    assert cut.box == (82, 182, 236, 336)


def test_an_unsure_model_gives_little_confidence():
    cut = from_model(np.asarray(photo(bottle())), lambda part: np.full(part.shape[:2], 0.6, np.float32))
    assert cut.confidence < 0.5


def test_where_a_model_finds_nothing_the_backdrop_decides():
    picture = np.asarray(photo(bottle(), "white"))
    cut = from_model(picture, lambda part: np.zeros(part.shape[:2], np.float32))
    assert cut.route == "plain"
    assert overlap(cut.rgba[..., 3], truth()) > 0.98


def with_alpha(image, alpha):
    return np.dstack([np.asarray(image), np.asarray(alpha, np.uint8)])


def rounded(size, radius):
    sheet = Image.new("L", size)
    ImageDraw.Draw(sheet).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, fill=255)
    return np.asarray(sheet)


@pytest.mark.parametrize("kind", ["corners", "pixel", "column", "nearly opaque"])
def test_an_alpha_that_is_no_matte_leaves_the_backdrop_to_be_cut_away(kind):
    alpha = np.full((800, 700), 254 if kind == "nearly opaque" else 255)
    if kind == "corners":
        alpha = rounded(SIZE, 40)
    elif kind != "nearly opaque":
        alpha[5 if kind == "pixel" else slice(None), 0] = 0
    cut = cut_out(with_alpha(photo(bottle(), "gradient"), alpha))
    assert cut.route == "plain"
    assert overlap(cut.rgba[..., 3], truth()) > 0.98


def test_haze_and_stray_pixels_are_no_part_of_a_product():
    matte = np.maximum(truth(), 10)
    matte[3, 3] = matte[790, 690] = 255
    cut = cut_out(with_alpha(photo(bottle(), "white"), matte))
    x, y, width, height = cut.box
    left, top = product_corner(bottle(), SIZE)
    assert cut.route == "alpha"
    assert abs(x - left) < 15
    assert abs(y - top) < 15
    assert abs(width - 220) < 12
    assert abs(height - 600) < 20


@pytest.mark.parametrize("ink", [0, 255])
def test_a_photo_between_bars_is_cut_out_inside_them(ink):
    framed = Image.new("RGB", (1000, 800), (ink,) * 3)
    framed.paste(photo(bottle(), "gradient"), (150, 0))
    cut = cut_out(np.asarray(framed))
    assert overlap(cut.rgba[:, 150:850, 3], truth()) > 0.97
    assert not cut.rgba[:, :150, 3].any()


def test_a_pale_product_before_white_is_whole_or_uncertain():
    for body in (252, 249, 246):
        picture = np.full((640, 480, 3), 255, np.uint8)
        picture[200:575, 160:320] = body
        picture[90:210, 206:274] = 30
        picture[350:385, 194:240] = (200, 30, 30)
        cut = cut_out(picture)
        wanted = np.zeros((640, 480), np.uint8)
        wanted[200:575, 160:320] = wanted[90:210, 206:274] = 255
        assert overlap(cut.rgba[..., 3], wanted) > 0.95 or cut.confidence < 0.75


@pytest.mark.parametrize("side", [300, 400, 600])
def test_a_small_jpeg_leaves_no_backdrop_on_its_product(side):
    product = bottle(round(0.8 * side))
    data = file_bytes(photo(product, "white", (side, side)), "JPEG", quality=75, subsampling=2)
    cut = cut_out(np.asarray(Image.open(io.BytesIO(data))))
    wanted = Image.new("L", (side, side))
    wanted.paste(product.getchannel("A"), product_corner(product, (side, side)))
    near = cv2.dilate(np.asarray(wanted), np.ones((7, 7), np.uint8)) > 0
    assert ((cut.rgba[..., 3] > 127) & ~near).sum() < 40


@pytest.mark.parametrize("quality", [75, 90])
@pytest.mark.parametrize("backdrop", ["white", "gradient"])
def test_what_compression_leaves_beside_a_product_raises_no_doubt(backdrop, quality):
    side = 300
    data = file_bytes(photo(bottle(round(0.8 * side)), backdrop, (side, side)), "JPEG", quality=quality, subsampling=2)
    assert cut_out(np.asarray(Image.open(io.BytesIO(data)))).confidence > 0.75


@pytest.mark.parametrize("radius", [180, 250, 350])
def test_a_photo_cut_round_is_doubted_and_a_round_product_is_not(radius):
    oval = rounded(SIZE, radius)
    assert cut_out(with_alpha(photo(bottle(), "gradient"), oval)).confidence < 0.75
    plate = Image.new("RGB", SIZE, (200, 60, 50))
    assert cut_out(with_alpha(plate, oval)).confidence == 1
