"""Layers and photos as small pictures; a preview goes along with every answer about a finished job."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.media.preview import encode_fitting, encode_preview


def test_many_who_ask_at_once_have_one_picture_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "final.png"
    Image.new("RGB", (600, 600), "red").save(path)
    opened: list[object] = []
    really_open = Image.open
    monkeypatch.setattr(Image, "open", lambda source: opened.append(source) or really_open(source))
    with ThreadPoolExecutor(16) as pool:
        previews = set(pool.map(encode_preview, [path] * 16))
    assert len(previews) == len(opened) == 1


def test_a_picture_that_was_made_again_has_a_new_preview_and_one_that_is_gone_has_none(tmp_path: Path):
    path = tmp_path / "step1.png"
    previews: set[bytes] = set()
    for at, colour in ((1, "red"), (2, "blue")):
        Image.new("RGB", (600, 600), colour).save(tmp_path / "new.png")
        os.utime(tmp_path / "new.png", (at, at))
        (tmp_path / "new.png").replace(path)
        previews.add(encode_preview(path))
    assert len(previews) == 2
    path.unlink()
    with pytest.raises(AdAgentError):
        encode_preview(path)


def test_a_photo_taken_sideways_is_shown_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg", exif=exif)
    data = encode_fitting(tmp_path / "photo.jpg", max_side=30, picture_format="webp", max_bytes=100_000)
    assert Image.open(io.BytesIO(data)).size == (20, 30)


def test_too_little_memory_for_a_layer_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "final.png")

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "thumbnail", exhausted)
    with pytest.raises(AdAgentError) as caught:
        encode_fitting(tmp_path / "final.png", max_side=30, picture_format="webp", max_bytes=100_000)
    assert caught.value.info.code is ErrorCode.OUT_OF_MEMORY
