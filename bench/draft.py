"""How long the draft engine takes, by stage."""

import statistics
from collections.abc import Iterator
from typing import Any

import anyio
from PIL import Image

from ad_agent_mcp.contract.stages import STAGES, Stage
from tests.e2e.support import Place
from tests.imaging import graded

from .report import Row
from .traces import record

JOB = {"text_content": "Summer Sale", "bg_prompt": "wooden table in a cozy cafe", "width": 1024, "height": 1024}
BACKDROPS = {"plain": ("grey gradient", 4.0), "clutter": ("blurred clutter", 6.0)}
"""What the photo shows behind the product, and the seconds that a job may take."""


def measure_draft(place: Place, *, jobs: int = 6) -> Iterator[Row]:
    """Whole jobs of 1024 px on one worker, the first of them left out."""
    for name, (backdrop, limit_s) in BACKDROPS.items():
        photo = place.pictures / f"{name}.png"
        Image.fromarray(graded.photo("bottle", backdrop).picture).save(photo)
        told = anyio.run(record, [JOB] * jobs, place.data / name, photo)[1:]
        totals = [job["events"][-1][0] for job in told]
        figure = f"median {statistics.median(totals):.2f} s, max {max(totals):.2f} s"
        what = f"draft job of 1024 px, photo on {name} ground, {len(told)} jobs"
        yield Row(what, figure, f"median <= {limit_s:g} s", statistics.median(totals) <= limit_s)
        stages = [stage_seconds(job["events"]) for job in told]
        medians = {stage: statistics.median(took[stage] for took in stages) for stage in stages[0]}
        yield Row(f"  its stages, {name}", ", ".join(f"{stage} {s:.2f}" for stage, s in medians.items()), "", None)


def stage_seconds(events: list[list[Any]]) -> dict[Stage, float]:
    """Seconds from each stage's begin to the next one's; saving what it made is part of it."""
    begins: dict[Stage, float] = {}
    for at, kind, *_ in events:
        if kind in list(STAGES):
            begins.setdefault(Stage(kind), at)
    ends = [*list(begins.values())[1:], events[-1][0]]
    return {stage: end - begin for (stage, begin), end in zip(begins.items(), ends, strict=True)}
