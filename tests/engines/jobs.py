"""Whole jobs in this process, with everything they tell remembered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import Inputs, StartJob
from ad_agent_mcp.contract.schemas import Check
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.contract.texts import Text
from ad_agent_mcp.engines.base import Engine
from ad_agent_mcp.engines.diffusion.info import describe
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.pipeline.run import run_job

from ..imaging.products import bottle, file_bytes

INFO = describe(PRESETS["exact"], {"guidance_embeds": True})
STEPS = 3
REQUEST: dict[str, Any] = {
    "text_content": "Sale",
    "bg_prompt": "a wooden table",
    "seed": 5,
    "width": 256,
    "height": 256,
    "num_inference_steps": STEPS,
    "composition_steps": 4,
}


class Events:
    """Job events and stage reports in one, because stages come one after the other.

    Args:
        on_iteration: called with (stage, done) of each iteration; may raise.
        on_load: called with the name of each model that begins to load; may raise.
    """

    def __init__(
        self,
        on_iteration: Callable[[Stage, int], None] = lambda stage, done: None,
        on_load: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.on_iteration, self.on_load = on_iteration, on_load
        self.stage: Stage | None = None
        self.progress: list[tuple[Stage, int, int]] = []
        self.notices: list[tuple[str, str]] = []
        self.loaded: list[tuple[Stage, str]] = []
        self.steps: list[int] = []

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.notices]

    @property
    def loaded_models(self) -> set[str]:
        return {name.split("/")[0] for _, name in self.loaded}

    def of(self, stage: Stage) -> list[tuple[int, int]]:
        """What `stage` told of its iterations, the beginning left out."""
        return [(done, total) for told, done, total in self.progress if told is stage and done]

    def text_of(self, code: str) -> str:
        return "\n".join(message for told, message in self.notices if told == code)

    def open_stage(self, stage: Stage) -> "Events":
        self.stage = stage
        return self

    def iteration(self, done: int, total: int) -> None:
        assert self.stage is not None
        self.progress.append((self.stage, done, total))
        self.on_iteration(self.stage, done)

    def notice(self, code: str, text: Text) -> None:
        self.notices.append((code, text.en))

    def model_moved(self, model: str, state: str, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        assert self.stage is not None
        if state == "loading":
            self.on_load(model)
        elif state == "loaded":
            self.loaded.append((self.stage, model))

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        self.steps.append(step)


def asked_for(**request: object) -> GenerateRequest:
    """`REQUEST` with other values; None: the field is not set."""
    return GenerateRequest.model_validate(
        {name: value for name, value in (REQUEST | request).items() if value is not None}
    )


def make(
    engine: Engine,
    out_dir: Path,
    *,
    steps: tuple[int, ...] = (1, 2, 3),
    inputs: Inputs | None = None,
    events: Events | None = None,
    picture: Image.Image | None = None,
    skip: frozenset[Stage] = frozenset(),
    **request: object,
) -> tuple[Events, dict[str, Check]]:
    """Run `steps` of a job, as `asked_for`, into `out_dir`, from the layers there or from a transparent bottle."""
    out_dir.mkdir(exist_ok=True)
    if inputs is None:
        given = out_dir / "given.png"
        if 1 in steps:
            given.write_bytes(file_bytes(picture or bottle(400)))
        inputs = Inputs(product=given, has_step1_layers=1 not in steps)
    asked = asked_for(**request)
    plan = INFO.plan(steps, dict.fromkeys(skip, 0))
    events = events or Events()
    job = StartJob(job_id="job-1", request=asked, plan=plan, inputs=inputs, out_dir=out_dir)
    checks = run_job(job, engine, events)
    return events, {check.name: check for check in checks}


def pixels(path: Path, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(path).convert(mode))
