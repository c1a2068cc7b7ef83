"""Two dozen ads on one sheet: all scenes, styles, modes, positions and formats, for the eye.

`python -m bench.contact_sheet OUT_FOLDER` writes every ad at full size and `sheet.jpg`.
"""

import argparse
import io
import time
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from ad_agent_mcp.commands.generate import example_photo
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import Inputs, StartJob
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.contract.texts import Text
from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.pipeline.run import run_job
from tests.imaging import graded

COLUMNS, CELL_PX, GAP_PX = 6, 420, 12
EB = "NanumSquare/NanumSquareEB.ttf"
JUA, DOHYEON = "BMJua/BMJUA_ttf.ttf", "BMDoHyeon/BMDOHYEON_ttf.ttf"
SQUARE, FEED, STORY, BANNER = (1024, 1024), (1080, 1350), (1080, 1920), (1200, 628)

# product, scene, words, letters, size, and what else is set
ADS: tuple[tuple[str, str, str, str, tuple[int, int], dict[str, Any]], ...] = (
    (
        "example",
        "sunny studio, palm leaf shadows, peach",
        "봄을 담은\n첫 번째 세럼",
        "rose gold 3D letters",
        SQUARE,
        {},
    ),
    ("mug", "wooden table in a cozy cafe", "오늘의 휴식", "gold foil balloon text", SQUARE, {}),
    ("example", "sunset beach, calm water", "Summer Glow", "glossy white candy letters", FEED, {}),
    ("can", "neon city night, glossy floor", "MIDNIGHT\nSALE 50%", "neon sign, cyan", SQUARE, {}),
    ("example", "luxury white marble", "피부가 기억하는 빛", "gold chiselled letters", STORY, {}),
    ("shoe", "minimal lavender gradient", "New Run 출시", "chrome letters", BANNER, {}),
    ("orange", "", "제주 햇살 한 알", "candy letters, orange", SQUARE, {"font_name": JUA}),
    ("jar", "marble, soft grey", "PURE", "flat dark green", FEED, {"composition_mode": "behind"}),
    (
        "bottle",
        "blue studio, window light",
        "시원하게, 한 모금",
        "balloon, silver foil",
        FEED,
        {"text_position": "bottom"},
    ),
    ("tube", "pastel pink gradient", "촉촉한 하루의 시작", "flat white", SQUARE, {"text_position": "auto"}),
    ("laptop", "dark walnut desk, warm light", "WORK,\nLIGHTER", "flat cream", BANNER, {"text_position": "auto"}),
    ("plant", "bright studio, leaves", "초록이 있는 방", "wood letters", STORY, {"text_position": "auto"}),
    ("camera", "night city lights", "빛을 담다", "chrome", SQUARE, {"composition_mode": "blend"}),
    ("handbag", "beige studio", "가을 신상 20%", "gold", SQUARE, {"font_name": DOHYEON}),
    ("two", "luxury black marble", "둘이라서 더 좋은", "rose gold", SQUARE, {"text_position": "bottom"}),
    ("pump", "mint gradient", "NATURAL CARE", "flat deep teal", FEED, {}),
    ("glass", "sunset ocean", "노을 한 잔", "neon, pink", SQUARE, {"composition_mode": "blend"}),
    ("white box", "studio, sky blue", "선물이 왔어요!", "candy letters, red", SQUARE, {"font_name": JUA}),
    ("orange", "rustic wooden table", "수확의 계절", "stone letters", BANNER, {"text_position": "auto"}),
    ("bottle", "neon night, purple", "오늘 밤 10시", "neon sign, magenta", STORY, {"text_position": "center"}),
    ("mug", "", "Good morning", "flat", SQUARE, {"composition_mode": "behind"}),
    ("jar", "sunset beach", "바다를 닮은 크림", "chrome", STORY, {"composition_mode": "blend"}),
    ("can", "lime green gradient", "1+1 톡 쏘는 여름", "balloon, red foil", FEED, {"text_position": "center"}),
    ("example", "cream studio, window light", "MAUM — 마음을 바르다", "flat brown", BANNER, {}),
)


def main() -> None:
    """Make the ads, one after the other, and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    pictures = [_ad(out / f"{index:02}", *row) for index, row in enumerate(ADS)]
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL_PX + GAP_PX) + GAP_PX, rows * (CELL_PX + GAP_PX) + GAP_PX), "white")
    for index, picture in enumerate(pictures):
        picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
        left = GAP_PX + index % COLUMNS * (CELL_PX + GAP_PX) + (CELL_PX - picture.width) // 2
        top = GAP_PX + index // COLUMNS * (CELL_PX + GAP_PX) + (CELL_PX - picture.height) // 2
        sheet.paste(picture, (left, top))
    sheet.save(out / "sheet.jpg", quality=86, optimize=True)


def _ad(
    folder: Path, product: str, scene: str, words: str, letters: str, size: tuple[int, int], more: dict[str, Any]
) -> Image.Image:
    folder.mkdir(parents=True, exist_ok=True)
    source = example_photo() if product == "example" else folder / "photo.png"
    if product != "example":
        source.write_bytes(_photo(product))
    request = {
        "bg_prompt": scene,
        "text_content": words,
        "text_model_prompt": letters,
        "font_name": EB,
        "width": size[0],
        "height": size[1],
        "seed": 7,
    }
    began = time.perf_counter()
    codes, failed = make_ad(folder, source, {**request, **more})
    Console().print(f"{folder.name} {time.perf_counter() - began:.1f} s  {' '.join(codes)}  {' '.join(failed)}")
    with Image.open(folder / "final.png") as final:
        return final.convert("RGB")


def make_ad(folder: Path, photo: Path, request: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Make one ad in this process: the codes of its notices, and the checks that failed."""
    plan = INFO.plan((1, 2, 3))
    job = StartJob(
        job_id=folder.name,
        request=GenerateRequest.model_validate(request),
        plan=plan,
        inputs=Inputs(product=photo),
        out_dir=folder,
    )
    events = _Quiet()
    checks = run_job(job, DraftEngine(), events)
    return events.codes, [f"FAILED {check.name} {check.value}" for check in checks if check.passed is False]


def _photo(product: str) -> bytes:
    picture = graded.photo(product, "grey gradient")
    buffer = io.BytesIO()
    Image.fromarray(picture.picture).save(buffer, "PNG")
    return buffer.getvalue()


class _Quiet:
    """A job's events, of which only the notices' codes are kept."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def open_stage(self, stage: Stage) -> "_Quiet":
        return self

    def iteration(self, done: int, total: int) -> None: ...

    def notice(self, code: str, text: Text) -> None:
        self.codes.append(code)

    def model_moved(self, *arguments: object, **options: object) -> None: ...

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None: ...


if __name__ == "__main__":
    main()
