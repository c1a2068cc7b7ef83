"""How many ads pass their checks: words x letter styles x scenes x canvases x modes x positions, in this process.

`python -m bench.ad_checks --count 160 --out DIR`; `--hard` paints noise, stripes and gradients instead of the scenes.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import Inputs, StartJob
from ad_agent_mcp.contract.schemas import Check
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.contract.texts import Text
from ad_agent_mcp.engines.base import Scene
from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.imaging.picture import blur, floats
from ad_agent_mcp.pipeline.run import run_job
from tests.imaging.products import bottle, jar

TEXTS = (
    "여름 세일",
    "봄을 담은\n첫 번째 세럼",
    "오늘만 1+1",
    "NEW ARRIVAL",
    "Slow\nMorning",
    "신제품 GLOW 출시",
    "50% OFF 한정 수량",
    "가을의 향기를 당신의 집으로 가져오세요",
    "FRESH",
    "달콤한 하루",
)
SCENES = ("studio", "wood table cafe", "sunset beach", "night neon city", "marble luxury", "gradient")
STYLES = ("gold foil balloon", "chrome", "rose gold", "candy", "neon", "wood", "flat white", "flat navy", "flat red")
SIZES = ((640, 640), (608, 760), (540, 960), (800, 420))
HARD = ("noise", "stripes", "split", "ramp", "mid grey", "busy")
MODES = ("overlay", "blend", "behind")
POSITIONS = ("auto", "top", "center", "bottom")
Case = dict[str, Any]


def cases(count: int, *, hard: bool) -> list[Case]:
    """`count` requests, the same ones every time."""
    chance = random.Random(11)  # noqa: S311
    rows: list[Case] = []
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        rows.append(
            {
                "index": index,
                "product": ("bottle", "jar")[chance.randrange(2)],
                "text_content": TEXTS[index % len(TEXTS)],
                "bg_prompt": chance.choice(HARD if hard else SCENES),
                "text_model_prompt": chance.choice(STYLES),
                "composition_mode": chance.choice(MODES),
                "text_position": chance.choice(POSITIONS),
                "width": width,
                "height": height,
                "seed": index,
            }
        )
    return rows


class HardEngine(DraftEngine):
    """Paints what no words are easily read on."""

    def paint_background(self, request: GenerateRequest, **rest: Any) -> Scene:
        scene = super().paint_background(request, **rest)
        return Scene(hard_ground(request.bg_prompt, rest["size"], rest["seed"]), "hard", scene.floor_y, scene.light_x)


def hard_ground(kind: str, size: tuple[int, int], seed: int) -> Any:
    """RGB of `size` (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    match kind:
        case "noise":
            values = 127 + 260 * blur(floats(rng.standard_normal((height, width, 3))), 3)
        case "stripes":
            values = np.where(((x + y) // (width // 14)) % 2, 225.0, 40.0)[..., None]
        case "split":
            values = np.where(x > 0.45 * width, 240.0, 18.0)[..., None]
        case "ramp":
            values = (255 * y / height)[..., None]
        case "mid grey":
            values = np.full((height, width, 1), 122.0)
        case _:
            values = 127 + 900 * blur(floats(rng.standard_normal((height, width, 3))), 14)
    return np.clip(values * np.ones(3), 0, 255).astype(np.uint8)


class Quiet:
    """Events that only remember the notices."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def open_stage(self, stage: Stage) -> "Quiet":
        return self

    def iteration(self, done: int, total: int) -> None: ...

    def notice(self, code: str, text: Text) -> None:
        self.codes.append(code)

    def step_finished(self, *_: object) -> None: ...

    def model_moved(self, *_: object, **__: object) -> None: ...


def make(case: Case, out: Path | None, *, hard: bool) -> tuple[Case, tuple[Check, ...], list[str], float]:
    """One ad; its folder is kept under `out`."""
    request = GenerateRequest.model_validate({key: case[key] for key in case if key not in ("index", "product")})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out / f"{case['index']:03}"
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        source = folder / "inputs" / "product_image"
        (bottle(700) if case["product"] == "bottle" else jar(500)).save(source, "PNG")
        plan = INFO.plan((1, 2, 3))
        job = StartJob(job_id="bench", request=request, plan=plan, inputs=Inputs(product=source), out_dir=folder)
        events = Quiet()
        start = time.perf_counter()
        checks = run_job(job, HardEngine() if hard else DraftEngine(), events)
        return case, checks, events.codes, time.perf_counter() - start


def main() -> None:
    """Print pass rates, and every ad that failed a check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--hard", action="store_true")
    options = parser.parse_args()
    passed: Counter[str] = Counter()
    told: Counter[str] = Counter()
    over_in_auto, took = 0, 0.0
    rows = cases(options.count, hard=options.hard)
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(partial(make, out=options.out, hard=options.hard), rows))
    for case, checks, codes, seconds in results:
        told.update(codes)
        took += seconds
        for check in checks:
            passed[check.name] += check.passed is not False
            if check.passed is False:
                print(check.name, check.value, check.limit, case)  # noqa: T201
            if (
                check.name == "text_product_overlap"
                and case["text_position"] == "auto"
                and "behind" not in case["composition_mode"]
            ):
                over_in_auto += bool(check.value)
    for name, count in passed.items():
        print(f"{name:24} {count / len(results):7.1%} of {len(results)}")  # noqa: T201
    print(f"auto over the product: {over_in_auto}; {took / len(results):.2f} s each; notices: {dict(told)}")  # noqa: T201


if __name__ == "__main__":
    main()
