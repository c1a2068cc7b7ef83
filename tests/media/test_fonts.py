import io
import shutil
import subprocess
import sys
import time

import pytest
from PIL import Image, ImageFont

from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.media.fonts import FALLBACK_NAME, FontCatalog, bundled_font_root

NAME = "NanumSquare/NanumSquareB.ttf"


@pytest.fixture(scope="module")
def catalog():
    return FontCatalog()


def test_bundled_fonts_are_listed_by_relative_path(catalog):
    fonts = {font.name: font for font in catalog.fonts()}
    assert fonts[NAME].hangul
    assert fonts[NAME].family
    assert not fonts[FALLBACK_NAME].hangul
    assert catalog.path_of(NAME).is_file()


@pytest.mark.parametrize(
    "name", ["../pyproject.toml", "/etc/passwd", "", " ", "/", ".ttf", "../fonts/NanumPen/NanumPen.ttf"]
)
def test_only_listed_names_are_known(catalog, name):
    with pytest.raises(AdAgentError) as caught:
        catalog.path_of(name)
    assert caught.value.info.field == "font_name"


CALLED = {
    "NanumPen": "NanumPen/NanumPen.ttf",
    "nanumpen.TTF": "NanumPen/NanumPen.ttf",
    "Nanum Pen": "NanumPen/NanumPen.ttf",
    "Nanum Pen Script": "NanumPen/NanumPen.ttf",
    "nanum-pen-script-regular": "NanumPen/NanumPen.ttf",
    "nanumpen/nanumpen": "NanumPen/NanumPen.ttf",
    "NanumSquareB": NAME,
    "NanumSquare Bold": NAME,
    "NanumSquare/NanumSquareB": NAME,
    "ＮａｎｕｍＳｑｕａｒｅＢ": NAME,
    "BM Jua": "BMJua/BMJUA_ttf.ttf",
    "DejaVu Sans": FALLBACK_NAME,
}


@pytest.mark.parametrize("called", CALLED)
def test_a_font_is_known_by_what_people_call_it_where_one_fits(catalog, called):
    name = CALLED[called]
    assert catalog.name_of(called) == name
    assert catalog.path_of(called) == catalog.path_of(name)
    assert catalog.runs("가€", called) == catalog.runs("가€", name)
    assert catalog.uncovered("가\U0001fae0", called) == ["\U0001fae0"]
    assert catalog.sample(called) == catalog.sample(name)


@pytest.mark.parametrize(
    ("called", "near"), [("NanumSquare", NAME), ("nanum", "Nanum"), ("NanumSquareX.ttf", NAME), ("Jua", "BMJua")]
)
def test_a_name_that_fits_several_fonts_or_none_is_answered_with_the_nearest(catalog, called, near):
    with pytest.raises(AdAgentError, match=f"Nearest: .*{near}"):
        catalog.path_of(called)


def test_making_a_catalogue_reads_nothing():
    started = time.perf_counter()
    FontCatalog([bundled_font_root() / "nowhere"])
    assert time.perf_counter() - started < 0.05


def test_characters_that_no_font_covers_are_named_once(catalog):
    assert catalog.uncovered("여름 세일\n50% SALE €", NAME) == []
    assert catalog.uncovered("가\U0001fae0나\U0001fae0ไ", NAME) == ["\U0001fae0", "ไ"]


def test_a_fallback_draws_only_what_the_named_font_lacks(catalog):
    runs = catalog.runs("커피 €5 세일", NAME)
    assert [text for text, _ in runs] == ["커피 ", "€", "5 세일"]
    assert runs[0][1] == runs[2][1] == catalog.path_of(NAME)
    assert runs[1][1] == catalog.path_of(FALLBACK_NAME)


def test_a_right_to_left_line_stays_in_one_piece(catalog):
    assert catalog.runs("مرحبا 50% sale", NAME) == [("مرحبا 50% sale", catalog.path_of(FALLBACK_NAME))]


def test_user_folders_add_fonts_and_nothing_from_outside(tmp_path, catalog):
    shutil.copy(catalog.path_of(NAME), tmp_path / "Mine.TTF")
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    (tmp_path / "leak.ttf").symlink_to(catalog.path_of(NAME))
    (tmp_path / "notes.txt").write_text("x")
    names = {font.name for font in FontCatalog([tmp_path]).fonts()}
    assert names - {font.name for font in catalog.fonts()} == {"Mine.TTF"}


def test_a_missing_user_folder_is_no_error(tmp_path):
    assert FontCatalog([tmp_path / "gone"]).fonts()


BUNDLED = sorted(path.parent for path in bundled_font_root().glob("*/*.ttf"))
EVERYDAY = [bytes([row, cell]).decode("euc_kr") for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF)]
SYLLABLES = [chr(point) for point in range(0xAC00, 0xD7A4)]


def has_ink(path, characters):
    font = ImageFont.truetype(str(path), 16)
    return [font.getmask(character).getbbox() is not None for character in characters]


@pytest.mark.parametrize("folder", sorted(set(BUNDLED)), ids=lambda folder: folder.name)
def test_every_bundled_font_comes_with_its_licence(folder):
    text = (folder / "LICENSE.txt").read_text()
    assert "SIL OPEN FONT LICENSE" in text or "Bitstream" in text


def test_every_bundled_display_font_draws_everyday_korean(catalog):
    assert len(EVERYDAY) == 2350
    for font in catalog.fonts():
        assert font.hangul == (font.name != FALLBACK_NAME), font.name
        if font.hangul:
            assert all(has_ink(catalog.path_of(font.name), EVERYDAY)), font.name


def test_each_of_the_11172_syllables_is_drawn_by_some_font(catalog):
    runs = catalog.runs("".join(SYLLABLES), "BMJua/BMJUA_ttf.ttf")
    assert "".join(text for text, _ in runs) == "".join(SYLLABLES)
    for path in {path for _, path in runs}:
        assert all(has_ink(path, "".join(text for text, at in runs if at == path))), path


def test_a_syllable_that_a_font_lists_and_leaves_empty_is_drawn_by_another(catalog):
    name = "BMJua/BMJUA_ttf.ttf"
    assert has_ink(catalog.path_of(name), "똠") == [False]
    runs = catalog.runs("똠양꿍", name)
    assert [text for text, _ in runs] == ["똠", "양꿍"]
    assert has_ink(runs[0][1], "똠") == [True]
    assert catalog.uncovered("똠양꿍", name) == []


def test_emoji_are_refused_by_name(catalog):
    assert catalog.uncovered("여름 \U0001f389 세일 \U0001f6cd", NAME) == ["\U0001f389", "\U0001f6cd"]


def test_each_font_has_a_sample_of_its_own(catalog):
    samples = {font.name: catalog.sample(font.name) for font in catalog.fonts()}
    assert len(set(samples.values())) == len(samples)
    for data in samples.values():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert picture.getextrema()[0] == 0
    with pytest.raises(AdAgentError):
        catalog.sample("../x.ttf")


def test_the_font_module_needs_no_array_library():
    code = f"import sys, ad_agent_mcp.media.fonts as f; f.FontCatalog().sample({NAME!r}); "
    code += "sys.exit(bool({'numpy', 'cv2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=bundled_font_root().parent)
