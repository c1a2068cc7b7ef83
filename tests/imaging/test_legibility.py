"""Painted letters are read by a machine: every style, line by line, on a plain dark ground of enough contrast."""

import os
import re
import shutil
import subprocess
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ad_agent_mcp.engines.draft.lettering import paint_letters
from ad_agent_mcp.imaging.picture import alpha_over
from ad_agent_mcp.imaging.typesetting import Typesetter
from ad_agent_mcp.media.fonts import FontCatalog

LINES = [
    "여름 세일",
    "신선한 커피",
    "봄 한정 특가",
    "오늘의 추천",
    "50% 할인",
    "SUMMER SALE",
    "Fresh Coffee",
    "NEW 2027",
]
GROUND = (50, 56, 70)
"""Of enough contrast to all of them; too little is what `text_contrast` is for."""
STYLES = {
    "flat": "flat white",
    "gold balloon": "Gold foil balloon",
    "silver balloon": "silver balloon",
    "gold": "gold",
    "chrome": "chrome",
    "rose gold": "rose gold",
    "candy": "glossy candy",
    "neon": "neon",
    "wood": "wood",
    "stone": "stone",
}
WANTED_SHARE = 0.85


def has_tesseract():
    if shutil.which("tesseract") is None:
        return False
    listed = subprocess.run(["tesseract", "--list-langs"], capture_output=True, text=True, check=False).stdout.split()
    return {"kor", "eng"} <= set(listed)


pytestmark = pytest.mark.skipif(not has_tesseract(), reason="tesseract with kor and eng is not installed")


def plain(text):
    return re.sub(r"[^0-9a-z가-힣%+]", "", unicodedata.normalize("NFC", text).lower())


def read(image, language):
    pixels = np.asarray(image)
    data = b"P5 %d %d 255\n" % (image.width, image.height) + pixels.tobytes()
    command = ["tesseract", "stdin", "stdout", "-l", language, "--psm", "7"]
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    return subprocess.run(command, input=data, capture_output=True, check=True, env=environment).stdout.decode()


def crops(prompt, text):
    """The line as a viewer sees it, 64 px high, as it is and inverted."""
    drawn = Typesetter(FontCatalog(), "NanumSquare/NanumSquareEB.ttf").draw([text], 120, padding_px=36)
    letters = paint_letters(drawn.mask, prompt, seed=1)
    ground = np.empty((*drawn.mask.shape, 3), np.uint8)
    ground[:] = GROUND
    picture = Image.fromarray(alpha_over(ground, letters)).convert("L")
    x, y, width, height = drawn.lines[0].box
    line = picture.crop((x - 4, y - 4, x + width + 4, y + height + 4))
    line = line.resize((round(line.width * 64 / line.height), 64), Image.Resampling.LANCZOS)
    sheet = np.pad(np.asarray(line), 20, mode="edge")
    return [Image.fromarray(255 - sheet), Image.fromarray(sheet)]


def is_read(prompt, text):
    language = "eng" if text.isascii() else "kor"
    return any(plain(read(image, language)) == plain(text) for image in crops(prompt, text))


@pytest.mark.parametrize("style", STYLES)
def test_lines_are_read_exactly(style):
    with ThreadPoolExecutor(2) as pool:
        hits = list(pool.map(lambda text: is_read(STYLES[style], text), LINES))
    missed = [text for text, hit in zip(LINES, hits, strict=True) if not hit]
    assert sum(hits) >= WANTED_SHARE * len(LINES), f"{style}: not read: {missed}"
