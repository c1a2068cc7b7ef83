"""How many lines of finished ads a machine reads exactly: every lettering style in every scene, NanumSquare EB.

`python -m bench.legibility` (needs tesseract with kor and eng).
"""

import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from ad_agent_mcp.commands.generate import example_photo
from ad_agent_mcp.contract.document import Lettering, read_document
from ad_agent_mcp.imaging.placement import ink_of
from bench.contact_sheet import EB, make_ad
from tests.imaging.test_legibility import LINES, STYLES, plain, read

SCENES = ("studio", "wood table cafe", "sunset beach", "night neon city", "marble luxury", "gradient")


def main() -> None:
    """Make an ad of every combination, read it, and count."""
    cases = [(*pair, LINES[index % len(LINES)]) for index, pair in enumerate(product(STYLES, SCENES))]
    with ProcessPoolExecutor(2) as pool:
        hits = list(pool.map(_is_read, cases))
    by_style, by_scene = Counter[str](), Counter[str]()
    for (style, scene, words), hit in zip(cases, hits, strict=True):
        by_style[style] += hit
        by_scene[scene] += hit
        if not hit:
            Console().print(f"not read: {words!r} in {style} on {scene}")
    Console().print(f"{sum(hits)} of {len(hits)} lines read exactly ({100 * sum(hits) / len(hits):.0f} %)")
    Console().print(f"of {len(SCENES)} by style: {dict(by_style)}")
    Console().print(f"of {len(STYLES)} by scene: {dict(by_scene)}")


def _is_read(case: tuple[str, str, str]) -> bool:
    style, scene, words = case
    with tempfile.TemporaryDirectory() as folder:
        request = {"bg_prompt": scene, "text_content": words, "text_model_prompt": STYLES[style], "font_name": EB}
        make_ad(Path(folder), example_photo(), {**request, "width": 1024, "height": 1024, "seed": 3})
        return all(_line_is_read(Path(folder), index) for index in range(_line_count(Path(folder))))


def _lettering(folder: Path) -> Lettering | None:
    return read_document((folder / "layout.json").read_bytes()).lettering


def _line_count(folder: Path) -> int:
    lettering = _lettering(folder)
    return len(lettering.words.lines) if lettering and lettering.words else 0


def _line_is_read(folder: Path, index: int) -> bool:
    """The line as a viewer sees it, 64 px high; it and its negative, of which one may be read."""
    where = _lettering(folder)
    if where is None or where.words is None or where.box is None:
        return False
    ink = ink_of(np.asarray(Image.open(folder / "step2.png").convert("RGBA")))
    line = where.words.lines[index]
    x, y = (where.box[axis] + (line.box[axis] - ink[axis]) * where.scale for axis in (0, 1))
    width, height = line.box[2] * where.scale, line.box[3] * where.scale
    final = Image.open(folder / "final.png").convert("L")
    crop = final.crop((round(x - 4), round(y - 4), round(x + width + 4), round(y + height + 4)))
    crop = crop.resize((round(crop.width * 64 / crop.height), 64), Image.Resampling.LANCZOS)
    sheet = np.pad(np.asarray(crop), 20, mode="edge")
    return any(plain(read(Image.fromarray(shown), "kor+eng")) == plain(line.text) for shown in (sheet, 255 - sheet))


if __name__ == "__main__":
    main()
