"""What a reference to a picture may look like, and that none of its spellings leads out of the allowed folders."""

import base64
import os
import time
import unicodedata
import urllib.parse
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.jobs import in_place, near_files
from ad_agent_mcp.jobs.image_refs import ReferenceReader
from ad_agent_mcp.jobs.store import JobStore

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
NFC, NFD = (unicodedata.normalize(form, "봄 세럼") for form in ("NFC", "NFD"))


class Place:
    """An allowed folder beside one that is not, and a reader."""

    def __init__(self, base: Path, *further: Path) -> None:
        self.root, self.outside = base / "사진", base / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "secret.png").write_bytes(b"secret")
        settings = Settings(data_dir=base / "data", max_image_bytes=100_000)
        self.reader = ReferenceReader(settings, JobStore(base / "data"), (self.root, *further))

    def put(self, name: str, data: bytes = PNG) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def read(self, reference: str) -> bytes:
        return self.reader.read(reference, field="product_image")

    def refusal(self, reference: str) -> str:
        with pytest.raises(AdAgentError) as caught:
            self.read(reference)
        assert caught.value.info.code is ErrorCode.INVALID_REQUEST
        assert caught.value.info.field == "product_image"
        return caught.value.info.message


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


NAMES = {
    "composed for decomposed": (f"{NFD}.png", f"{NFC}.png"),
    "decomposed for composed": (f"{NFC}.png", f"{NFD}.png"),
    "folders decomposed": (f"{NFD}/{NFC}/{NFD}.png", f"{NFC}/{NFD}/{NFC}.png"),
    "a narrow blank": ("Screenshot 9.41.05\u202fAM.png", "Screenshot 9.41.05 AM.png"),
    "a hard blank asked for": ("my photo.png", "my\u00a0photo.png"),
    "two blanks": ("my photo.png", "my  photo.png"),
    "a curly quote": ("mum\u2019s cup.png", "mum's cup.png"),
    "a long dash": ("a \u2013 b.png", "a - b.png"),
    "letter case": ("IMG_1.JPG", "img_1.jpg"),
    "letter case of folders": ("Photos/Serum.PNG", "photos/serum.png"),
    "full width": ("ＩＭＧ１.png", "img1.png"),
    "an unseen character": ("serum\u200b.png", "serum.png"),
    "double quotes": ("a b.png", '"a b.png"'),
    "single quotes and a line end": ("a b.png", "'a b.png'\n"),
    "curly quotes round it": ("a.png", "\u201ca.png\u201d"),
    "escaped blanks": ("a b (1).png", "a\\ b\\ \\(1\\).png"),
    "blanks at the ends": ("a.png", "  a.png \r\n"),
    "percent-escapes": (f"{NFC}.png", urllib.parse.quote(f"{NFC}.png")),
    "percent-escapes and letter case": ("A B.png", "a%20b.PNG"),
    "everything at once": (f"Sommer/{NFD}\u202fB.PNG", f"' sommer/{NFC}%20b.png '"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_name_that_only_looks_the_same_is_found(name: str, is_absolute: bool, place: Place):
    stored, asked = NAMES[name]
    place.put(stored, b"this one")
    place.put("another.png", b"another")
    head = asked[: len(asked) - len(asked.lstrip(" '\"\u201c"))]
    assert place.read(f"{head}{place.root}/{asked[len(head) :]}" if is_absolute else asked) == b"this one"


@pytest.mark.parametrize("scheme", ["file://", "FILE://", "file:", "File://localhost", '"file://'])
def test_every_spelling_of_a_file_uri_is_read(scheme: str, place: Place):
    path = place.put(f"{NFD}.png", b"this one")
    assert place.read(scheme + urllib.parse.quote(str(path)) + ('"' if scheme[0] == '"' else "")) == b"this one"
    assert place.read(f"{scheme.strip(chr(34))}{place.root}/{NFC}.PNG") == b"this one"


def test_a_drive_letter_in_a_file_uri_is_no_folder(place: Place):
    assert near_files.spellings("file:///C:/Users/kim/a%20b.png")[1:] == [
        "C:/Users/kim/a%20b.png",
        "C:/Users/kim/a b.png",
    ]
    assert "Did you mean 'a b.png'?" in (place.put("a b.png"), place.refusal("C:\\Users\\kim\\a_b.png"))[1]


def test_a_tilde_is_the_home_and_an_unknown_one_a_name(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(place.root.parent))
    place.put("a.png", b"of home")
    place.put("~nobody-here.png", b"a name")
    assert place.read(f"~/{place.root.name}/A.png") == b"of home"
    assert place.read("~nobody-here.png") == b"a name"


def test_what_is_there_as_it_stands_comes_before_all_that_looks_the_same(place: Place):
    for stored in ("100%25.png", "'a.png'", "a\\ b.png", f"{NFD}.png", "A.png"):
        place.put(stored, stored.encode())
    for other in ("100%.png", "a.png", "a b.png", f"{NFC}.png"):
        place.put(other, b"other")
    for stored in ("100%25.png", "'a.png'", "a\\ b.png", f"{NFD}.png", "A.png"):
        assert place.read(stored) == stored.encode(), stored


def test_of_two_that_look_the_same_none_is_taken_and_both_are_told(place: Place):
    place.put(f"{NFD}.png")
    place.put(f"{NFC}.PNG")
    told = place.refusal(f"{NFC}.Png")
    assert repr(f"{NFD}.png") in told
    assert repr(f"{NFC}.PNG") in told


def test_the_nearest_names_are_told_as_they_can_be_given(place: Place):
    place.put("shop/serum-final.jpg")
    told = place.refusal("Shop/serum-finel.jpg")
    assert "Did you mean 'shop/serum-final.jpg'?" in told
    assert str(place.root / "shop" / "serum-final.jpg") in place.refusal(f"{place.root}/shop/serum-final.png")
    assert "Did you mean 'shop" not in place.refusal("chair.jpg")


@pytest.mark.parametrize(
    ("asked", "stored"), [("serum", "serum.png"), ("IMG_1234", "img_1234.jpg"), ("photo", "photo 1.png")]
)
def test_a_word_of_base64_letters_is_a_file_name_first(asked: str, stored: str, place: Place):
    place.put(stored)
    told = place.refusal(asked)
    assert f"there is no file {asked!r}. Did you mean {stored!r}?" in told
    place.put(asked, b"without a suffix")
    assert place.read(asked) == b"without a suffix"
    assert place.read(asked.upper()) == b"without a suffix"


TEXT = base64.b64encode(PNG).decode()
SAFE = base64.urlsafe_b64encode(PNG).decode()
ENCODED = {
    "bare": TEXT,
    "url-safe": SAFE,
    "url-safe without padding": SAFE.rstrip("="),
    "url-safe in lines": "\n".join(SAFE[start : start + 20] for start in range(0, len(SAFE), 20)),
    "in lines with returns": "\r\n".join(TEXT[start : start + 20] for start in range(0, len(TEXT), 20)),
    "in lines as JSON writes them": "\\n".join(TEXT[start : start + 20] for start in range(0, len(TEXT), 20)),
    "capitals": f"DATA:IMAGE/PNG;BASE64,{TEXT}",
    "url-safe data": f"data:image/png;base64,{SAFE}",
    "a charset": f"data:image/png;charset=utf-8;base64,{TEXT}",
    "a name with a comma": f'data:image/png;name="a, b.png";base64,{TEXT}',
    "base64 not at the end": f"data:image/png;base64;charset=utf-8,{TEXT}",
    "blanks in the header": f"data:image/png; base64, {TEXT}",
    "no type": f"data:;base64,{TEXT}",
    "percent-escapes": f"data:image/png;base64,{urllib.parse.quote(TEXT, safe='')}",
    "percent-escapes in the header": urllib.parse.quote(f"data:image/png;base64,{TEXT}", safe=""),
    "a header without its scheme": f"image/png;base64,{TEXT}",
    "half a header": f"BASE64,{TEXT}",
    "quotes and a line end": f'"data:image/png;base64,{TEXT}"\n',
}


@pytest.mark.parametrize("name", ENCODED)
def test_base64_is_read_in_every_dress(name: str, place: Place):
    assert place.read(ENCODED[name]) == PNG


def test_slashes_as_json_may_write_them_are_read(place: Place):
    data = PNG + b"\xff" * 9
    assert place.read(base64.b64encode(data).decode().replace("/", "\\/")) == data


@pytest.mark.parametrize("size", [3_000, 60_000])
def test_long_url_safe_base64_in_lines_is_read(size: int, place: Place):
    data = PNG + bytes(range(256)) * (size // 256)
    text = base64.urlsafe_b64encode(data).decode()
    assert "-" in text
    assert "_" in text
    assert place.read("\n".join(text[start : start + 76] for start in range(0, len(text), 76))) == data


@pytest.mark.parametrize(
    "uri", ["data:image/svg+xml,%3Csvg/%3E", "data:image/png,%89PNG", "data:image/png;base64", "data:,"]
)
def test_a_data_uri_that_is_not_base64_is_refused_in_plain_words(uri: str, place: Place):
    assert "does not say base64" in place.refusal(uri)


# safety


@pytest.mark.parametrize(
    "asked", ["LINK.png", "Linked/secret.png", "linked/SECRET.png", "../OUTSIDE/secret.png", "linked/secre.png"]
)
def test_a_near_name_leads_out_of_no_folder_and_tells_nothing_from_outside(asked: str, place: Place):
    (place.root / "link.png").symlink_to(place.outside / "secret.png")
    (place.root / "linked").symlink_to(place.outside)
    told = place.refusal(asked)
    assert "Did you mean" not in told or "linked" not in told.split("Did you mean")[1]


def test_a_near_name_may_be_a_link_inside_the_folder(place: Place):
    place.put("real.png", b"real")
    (place.root / "Link.png").symlink_to(place.root / "real.png")
    assert place.read("link.PNG") == b"real"


def test_a_folder_swapped_for_a_link_after_it_was_found_is_not_followed(place: Place, monkeypatch: pytest.MonkeyPatch):
    path = place.put("shop/secret.png", b"allowed")
    opened = os.open

    def swap_first(target: Path, flags: int, *rest: int) -> int:
        if not path.parent.is_symlink():
            path.parent.rename(place.root / "moved")
            path.parent.symlink_to(place.outside)
        return opened(target, flags, *rest)

    assert place.read("shop/secret.png") == b"allowed"
    monkeypatch.setattr(in_place.os, "open", swap_first)
    assert "cannot be read" in place.refusal("shop/secret.png")


def test_a_folder_swapped_for_a_link_before_it_is_listed_tells_no_names(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.put("shop/cup.png")
    opened = os.open

    def swap_first(target: Path, flags: int, *rest: int) -> int:
        if Path(target).name == "shop" and not (place.root / "shop").is_symlink():
            (place.root / "shop").rename(place.root / "moved")
            (place.root / "shop").symlink_to(place.outside)
        return opened(target, flags, *rest)

    monkeypatch.setattr(in_place.os, "open", swap_first)
    assert "secret.png" not in place.refusal("shop/secre.png").split("Did you mean")[-1]
    assert (place.root / "shop").is_symlink()


def test_a_huge_folder_holds_nobody_up(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near_files, "MAX_LISTED", 300)
    read = 0

    def count(name: str, *, folded=near_files.folded) -> str:
        nonlocal read
        read += 1
        return folded(name)

    monkeypatch.setattr(near_files, "folded", count)
    for folder in ("", "a/", "b/"):
        for index in range(400):
            place.put(f"{folder}product photo number {index}.png", b"")
    started = time.perf_counter()
    place.refusal("A/Product fhoto number x.png")
    assert read < 400
    assert time.perf_counter() - started < 5


def test_a_folder_that_may_not_be_listed_is_only_a_missing_file(place: Place, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    place.put("a.png")
    monkeypatch.setattr(in_place.os, "open", refuse)
    assert "there is no file 'b.png'. Give" in place.refusal("b.png")
