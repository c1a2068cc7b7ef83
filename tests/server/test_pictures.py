"""Layers and photos as small pictures."""

import io
from pathlib import Path

from PIL import Image

from ad_agent_mcp.server.pictures import encode_fitting


def test_a_photo_taken_sideways_is_shown_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg", exif=exif)
    data = encode_fitting(tmp_path / "photo.jpg", max_side=30, picture_format="webp", max_bytes=100_000)
    assert Image.open(io.BytesIO(data)).size == (20, 30)
