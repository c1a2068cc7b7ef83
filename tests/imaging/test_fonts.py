import shutil
import time

import pytest

from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.imaging.fonts import FALLBACK_NAME, FontCatalog, bundled_font_root

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


@pytest.mark.parametrize("name", ["NanumSquareB", "../pyproject.toml", "/etc/passwd", ""])
def test_only_listed_names_are_known(catalog, name):
    with pytest.raises(AdAgentError) as caught:
        catalog.path_of(name)
    assert caught.value.info.field == "font_name"


def test_an_unknown_name_is_answered_with_the_nearest(catalog):
    with pytest.raises(AdAgentError, match=NAME):
        catalog.path_of("NanumSquareB")


def test_making_a_catalogue_reads_nothing():
    started = time.perf_counter()
    FontCatalog.with_user_folders([bundled_font_root() / "nowhere"])
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
    names = {font.name for font in FontCatalog.with_user_folders([tmp_path]).fonts()}
    assert names - {font.name for font in catalog.fonts()} == {"Mine.TTF"}


def test_a_missing_user_folder_is_no_error(tmp_path):
    assert FontCatalog.with_user_folders([tmp_path / "gone"]).fonts()
