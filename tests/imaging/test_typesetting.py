import itertools
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import ImageFont, features

from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.imaging.typesetting import Typesetter
from ad_agent_mcp.media.fonts import FontCatalog

NAME = "NanumSquare/NanumSquareB.ttf"


@pytest.fixture(scope="module")
def typesetter():
    return Typesetter(FontCatalog(), NAME)


def ink(mask):
    rows, columns = np.flatnonzero(mask.max(axis=1) > 0), np.flatnonzero(mask.max(axis=0) > 0)
    return columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]


def test_a_shaping_engine_is_there():
    assert features.check("raqm")


@pytest.mark.parametrize("text", ["여름 세일", "Fresh from the forest every day", "가", "A\nB\nC", "1+1 행사 €5"])
@pytest.mark.parametrize("box", [(800, 200), (300, 500)])
def test_the_ink_fits_its_box_and_could_not_be_much_larger(typesetter, text, box):
    lines, size = typesetter.fit(text, box)
    width, height = ink(typesetter.draw(lines, size, padding_px=5).mask)
    assert width <= box[0] + 2
    assert height <= box[1] + 2
    width, height = ink(typesetter.draw(lines, round(size * 1.35), padding_px=5).mask)
    assert width > box[0] or height > box[1]


def test_no_word_is_lost_or_changed(typesetter):
    text = "아침을 여는 커피 한 잔 Slow Morning Coffee"
    lines, _ = typesetter.fit(text, (400, 400))
    assert " ".join(lines) == text
    assert len(lines) > 1


def test_lines_that_were_broken_stay_broken(typesetter):
    lines, _ = typesetter.fit("하나\n둘 셋", (900, 300))
    assert lines == ["하나", "둘 셋"]


def test_lines_are_of_even_width(typesetter):
    lines, _ = typesetter.fit("aaa bbb ccc ddd eee fff", (200, 300), max_lines=2)
    assert lines == ["aaa bbb ccc", "ddd eee fff"]


def test_a_word_is_broken_only_when_it_would_be_too_small(typesetter):
    word = "초고속무선충전보조배터리특별할인행사"
    assert typesetter.fit(word, (300, 300))[0] == [word]
    lines, size = typesetter.fit(word, (300, 300), min_size_px=40)
    assert len(lines) > 1
    assert "".join(lines) == word
    assert size >= 40


def test_line_boxes_hold_the_ink(typesetter):
    drawn = typesetter.draw(["가나다", "Abg"], 80, padding_px=9)
    assert drawn.mask.dtype == np.float32
    rest = drawn.mask.copy()
    for line in drawn.lines:
        x, y, width, height = line.box
        assert drawn.mask[y : y + height, x : x + width].max() == 1
        rest[y : y + height, x : x + width] = 0
    assert rest.max() == 0
    assert drawn.mask[:9].max() == drawn.mask[-9:].max() == drawn.mask[:, :9].max() == drawn.mask[:, -9:].max() == 0


@pytest.mark.parametrize("name", [NAME, "DejaVu/DejaVuSans-Bold.ttf", "BMJua/BMJUA_ttf.ttf"])
def test_kerning_is_applied(name):
    catalog = FontCatalog()
    kerned = ink(Typesetter(catalog, name).draw(["AVATAR To"], 200, padding_px=2).mask)[0]
    font = ImageFont.truetype(str(catalog.path_of(name)), 200)
    left, _, right, _ = font.getbbox("AVATAR To", features=["-kern"])
    assert kerned < 0.96 * (right - left)


def test_decomposed_hangul_is_set_like_composed(typesetter):
    text = "한글 값 뷁"
    apart = unicodedata.normalize("NFD", text)
    assert apart != text
    assert typesetter.fit(apart, (500, 300)) == typesetter.fit(text, (500, 300))
    one, two = (typesetter.draw([line], 100, padding_px=3) for line in (text, apart))
    assert (one.mask == two.mask).all()
    assert one.lines == two.lines


def test_arabic_letters_join():
    setter = Typesetter(FontCatalog(), "DejaVu/DejaVuSans-Bold.ttf")

    def pieces(text):
        return cv2.connectedComponents((setter.draw([text], 200, padding_px=3).mask > 0.5).astype(np.uint8))[0] - 1

    assert pieces("\u0645\u062d\u0645\u062f") == 1
    assert pieces("\u0645\u200c\u062d\u200c\u0645\u200c\u062f") == 4


def test_pieces_in_other_fonts_share_the_baseline_and_keep_their_distance(typesetter):
    """The euro sign is the fallback font's; digits around it stand on one line, none touches another."""
    drawn = typesetter.draw(["1€1"], 200, padding_px=3).mask > 0.5
    count, _, stats, _ = cv2.connectedComponentsWithStats(drawn.astype(np.uint8))
    boxes = sorted(stats[1:count].tolist())
    assert len(boxes) == 3
    bottoms = [top + height for _, top, _, height, _ in boxes]
    assert max(bottoms) - min(bottoms) <= 0.03 * 200
    gaps = [second[0] - first[0] - first[2] for first, second in itertools.pairwise(boxes)]
    assert all(0.01 * 200 < gap < 0.25 * 200 for gap in gaps)


def test_right_to_left_words_run_from_the_right():
    setter = Typesetter(FontCatalog(), "DejaVu/DejaVuSans-Bold.ttf")
    one, two = setter.draw(["אב"], 100, padding_px=0).mask, setter.draw(["א"], 100, padding_px=0).mask
    # The first letter is drawn last in space: the right end of the word.
    width = two.shape[1]
    top = min(one.shape[0], two.shape[0])
    right, left = one[-top:, -width:], one[-top:, :width]
    assert np.abs(right - two[-top:]).mean() < np.abs(left - two[-top:]).mean()


def test_an_unlisted_font_is_refused():
    with pytest.raises(AdAgentError):
        Typesetter(FontCatalog(), "Comic Sans")


def test_more_words_than_fit_are_broken_into_lines_and_not_set_in_a_single_one(typesetter):
    lines, _ = typesetter.fit("가나다라 마바사아 " * 20, (352, 115))
    assert len(lines) > 4
