# pyright: basic
"""The engine with models: one family paints, refines and blends, another paints letters, BiRefNet cuts out.

Knows what is painted in which order; how a model paints is its family's affair, what is on the device when residency's.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from torch._dynamo.exc import FailOnRecompileLimitHit

from ...config import Settings
from ...contract.ad import CompositionMode
from ...contract.call import GenerateRequest
from ...contract.document import Box
from ...contract.errors import AdAgentError
from ...contract.stages import EngineName, Plan, Stage
from ...contract.texts import say
from ...hardware import free_host_bytes
from ...imaging import cutout
from ...imaging.edges import canny_map
from ...imaging.picture import Matte, Picture, alpha_over, blur, dilate, floats, mix, resize, to_bytes
from ...imaging.transparency import settled
from ...models.catalog import preset_named
from ...models.library import ModelLibrary, unavailable
from ...models.memory_plan import host_budget, vram_budget
from ...models.preset import ENCODE, MEGAPIXEL
from ..base import CutOut, Scene, StageReport
from ..cutout import birefnet
from .compiling import Compiling
from .devices import CudaDevice, Device
from .families import open_painters
from .models import Models
from .painter import Painter, Pass, Work
from .prompts import prompts_of
from .residency import Residency
from .text import PromptCache

logger = logging.getLogger(__name__)

COMPILING = "flux_compile"
"""Told as a model that is loading, because a step waits for it."""
ROUNDING_BYTES = 256 << 20
"""What torch may reserve above what is asked of it."""
_FLOOR_Y = 0.7
_LETTER_REACH = 0.02
_BLEND_REACH = 0.03
_CORE_SHARE = 0.6


@dataclass
class _JobState:
    """What is known of the running job: what is painted, from which fields its prompts are made, and what was cut."""

    passes: Mapping[Stage, Pass]
    prompts: Mapping[Stage, Mapping[str, str]]
    cut: set[tuple[str, str]] = field(default_factory=set)


class DiffusionEngine:
    """Implements `engines.base.Engine` with models. Owned by one thread; `prepare` begins a job."""

    name = EngineName.DIFFUSION

    def __init__(self, models: Models) -> None:
        self._models = models
        self._residency = models.residency
        self._preset = models.preset
        self._painters = open_painters(models)
        self._birefnet = models.shell("birefnet")
        self._compiling = Compiling(models.transformer, models.device)
        self._job = _JobState({}, {})

    def prepare(self, plan: Plan, request: GenerateRequest) -> None:
        """See `Engine`."""
        stages = tuple(planned.stage for planned in plan.stages)
        prompts = prompts_of(request)
        steps = request.num_inference_steps or self._preset.steps
        numbers = {
            Stage.BACKGROUND: (steps, request.guidance_scale),
            Stage.REFINE: (steps, request.guidance_scale, request.strength),
            Stage.TEXT_PAINT: (self._preset.text_steps, self._preset.text_guidance),
            Stage.BLEND: (request.composition_steps, request.composition_guidance_scale, request.composition_strength),
        }
        passes = {stage: Pass(tuple(prompts[stage].values()), *numbers[stage]) for stage in stages if stage in numbers}
        self._job = _JobState(passes, prompts)
        self._models.begin_job()
        self._compiling.begin_job()
        for painter in self._each_painter:
            its = {stage: run for stage, run in passes.items() if self._painters[stage] is painter}
            painter.begin(its)
            painter.text.recall([text for run in its.values() for text in run.prompts])
        pixels = request.width * request.height
        self._residency.plan(self._preset.uses(stages, pixels, has_new_words=self._has_new_words()))

    def cut_out(self, photo: Picture, *, product_box: Box | None, report: StageReport) -> CutOut:
        """See `Engine`."""
        photo = settled(photo)
        if photo.shape[2] == 4:
            report.iteration(0, 1)
            cut = cutout.cut_out(photo, product_box=product_box)
        else:
            cut = cutout.from_model(
                photo, lambda part: self._matte(Stage.CUT_OUT, part, report), product_box=product_box
            )
            if cut.confidence < 0.5 or cut.route != "model":
                report.notice("cutout_uncertain", say("engines.cutout_unsure"))
        report.iteration(1, 1)
        return cut

    def paint_background(
        self, request: GenerateRequest, *, size: tuple[int, int], product: CutOut, seed: int, report: StageReport
    ) -> Scene:
        """See `Engine`."""
        image = self._paint(Stage.BACKGROUND, size, seed, report)
        return Scene(image, "flux", _FLOOR_Y, _light_x(image))

    def refine(self, image: Picture, *, seed: int, report: StageReport) -> Picture:
        """See `Engine`."""
        return self._paint(Stage.REFINE, _size(image), seed, report, image=Image.fromarray(image))

    def paint_text(self, mask: Matte, *, request: GenerateRequest, seed: int, report: StageReport) -> Picture:
        """See `Engine`: SDXL over the mask's edges; nothing is transparent yet."""
        size = self._painters[Stage.TEXT_PAINT].painted_size((mask.shape[1], mask.shape[0]))
        edges = Image.fromarray(canny_map(mask, size))
        painted = self._paint(Stage.TEXT_PAINT, size, seed, report, image=edges)
        rgb = to_bytes(resize(floats(floats(painted) / 255), (mask.shape[1], mask.shape[0])))
        return np.dstack([rgb, np.full(mask.shape, 255, np.uint8)])

    def cut_out_text(self, painting: Picture, mask: Matte, *, report: StageReport) -> Picture:
        """See `Engine`."""
        matte = self._matte(Stage.TEXT_CUT_OUT, painting[..., :3], report)
        reach = max(2, round(_LETTER_REACH * min(mask.shape)))
        near = np.clip(blur(floats(dilate(mask > 0.5, reach)), reach / 3), 0, 1)
        letters = painting.copy()
        letters[..., 3] = to_bytes(matte * near)
        letters[letters[..., 3] == 0] = 0
        report.iteration(1, 1)
        return letters

    def blend_text(
        self, image: Picture, letters: Picture, *, mode: CompositionMode, seed: int, report: StageReport
    ) -> Picture:
        """See `Engine`: what is round the letters is painted anew; in `blend` mode their faces take its light too."""
        plain = alpha_over(image, letters)
        covered = letters[..., 3] > 0
        reach = max(4, round(_BLEND_REACH * min(covered.shape)))
        region = dilate(covered, reach)
        painted = self._paint(
            Stage.BLEND,
            _size(image),
            seed,
            report,
            image=Image.fromarray(plain),
            mask_image=Image.fromarray(region.astype(np.uint8) * 255),
        )
        soft = floats(np.clip(blur(floats(region), reach / 3), 0, 1))
        blended = mix(plain, painted, soft)
        # Mixed, not laid over: a glow is in both pictures already.
        share = _CORE_SHARE if mode is CompositionMode.BLEND else 1
        return mix(blended, plain, floats(floats(letters[..., 3]) / 255 * share))

    def unload(self) -> None:
        """See `Engine`."""
        self._forget()
        self._residency.unload()

    def preload(self, report: StageReport) -> None:
        """See `Engine`: what cuts out, then what paints."""
        self._residency.plan(self._preset.uses(tuple(Stage), MEGAPIXEL))
        for stage in (Stage.CUT_OUT, Stage.BACKGROUND):
            with self._residency.use(stage, report):
                pass

    @property
    def holds_device(self) -> bool:
        """See `Engine`."""
        return self._residency.resident_bytes > 0

    def is_usable(self) -> bool:
        """See `Engine`: a CUDA error comes back at every call until the process ends."""
        try:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True

    # how

    @property
    def _each_painter(self) -> list[Painter]:
        return list(dict.fromkeys(self._painters.values()))

    def _has_new_words(self) -> bool:
        """Whether the job has prompts that no earlier one had."""
        return any(painter.text.missing for painter in self._each_painter)

    def _forget(self) -> None:
        for painter in self._each_painter:
            painter.forget()

    def _run(self, stage: str, body: Callable[[], Any], report: StageReport) -> Any:
        try:
            return self._residency.run(stage, torch.inference_mode()(body), report, shrink=self._models.smaller_tiles)
        except AdAgentError:  # out of memory: nothing of this job is needed any more
            self._forget()
            raise

    def _matte(self, stage: Stage, picture: Picture, report: StageReport) -> Matte:
        return self._run(stage, lambda: birefnet.matte(self._birefnet, picture), report)

    def _read(self, stage: Stage, report: StageReport) -> None:
        """Have the embeddings of a stage's prompts: of every prompt of the job that is not known yet, in one go."""
        what = "letters" if stage is Stage.TEXT_PAINT else "pictures"
        for source, text in self._job.prompts[stage].items():
            words = self._painters[stage].text.words_read(text)
            if words is not None and (source, what) not in self._job.cut:
                self._job.cut.add((source, what))
                report.notice("prompt_truncated", say(f"engines.prompt_truncated_{what}", source=source, words=words))

        def body() -> None:
            for painter in self._each_painter:
                painter.text.encode()

        if self._has_new_words():
            self._run(ENCODE, body, report)

    def _paint(
        self, stage: Stage, size: tuple[int, int], seed: int, report: StageReport, **pictures: Image.Image
    ) -> Picture:
        """One pass: RGB of `size`. Where compiling fails, once more and from then on without."""
        self._read(stage, report)
        painter, steps = self._painters[stage], self._job.passes[stage].iterations
        may_be_compiled = painter is self._painters[Stage.BACKGROUND]
        if (preparation := painter.preparation(size)) is not None:
            its_stage, prepare = preparation
            self._run(its_stage, lambda: prepare(report), report)

        def body() -> Picture:
            report.iteration(0, steps)  # nothing is loading any more
            if may_be_compiled and self._compiling.begins(size):
                report.model_moved(COMPILING, "loading")  # until the first step is told
            on_step = _step_callback(report, steps, self._models.device)
            return painter.paint(Work(stage, size, _generator(seed), on_step, pictures))

        try:
            return self._run(stage, body, report)
        except (RuntimeError, OSError, SubprocessError, FailOnRecompileLimitHit) as error:
            # What torch's compilers raise, or let through of triton's: no C compiler, no headers, one that fails.
            if not may_be_compiled or not self.is_usable() or not self._compiling.give_up():
                raise
            kind = type(error).__name__
            logger.warning("compiled FLUX failed with %s: %s", kind, str(error)[:500])
        report.notice("not_compiled", say("engines.not_compiled", kind=kind))
        return self._run(stage, body, report)


def _step_callback(report: StageReport, total: int, device: torch.device) -> Callable[..., dict[str, Any]]:
    """Tells each finished step; on a GPU at most one step runs ahead of what is told, so that a stop is quick."""
    finished: list[torch.cuda.Event] = []

    def step(_pipe: object, index: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            finished.append(event)
            if len(finished) > 1:
                finished.pop(0).synchronize()
        report.iteration(index + 1, total)
        return tensors

    return step


def _light_x(image: Picture) -> float:
    """Where the light of a painted scene comes from: the brighter side of its upper part."""
    upper = floats(image[: max(1, image.shape[0] * 2 // 3)]).mean(axis=2)
    half = upper.shape[1] // 2
    left, right = float(upper[:, :half].mean()), float(upper[:, -half:].mean())
    return float(np.clip(4 * (right - left) / max(1.0, left + right), -1, 1))


def _generator(seed: int) -> torch.Generator:
    """On the CPU, so that a seed gives the same noise on every device."""
    return torch.Generator("cpu").manual_seed(seed)


def _size(image: Picture) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def open_engine(settings: Settings) -> DiffusionEngine:
    """The engine for `settings`, on the GPU if there is one. Loads no weights.

    Raises:
        AdAgentError: `model_unavailable`; a model is not prepared, or is not what its configuration says.
    """
    diffusers.utils.logging.set_verbosity_error()  # what they warn of quotes prompts
    transformers.utils.logging.set_verbosity_error()
    preset, library = preset_named(settings.preset), ModelLibrary(settings)
    on_host = host_budget(settings.host_budget_gb, free_host_bytes())
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        cap = vram_budget(settings.vram_budget_gb, torch.cuda.mem_get_info()[0])
        device: Device = CudaDevice(cap_bytes=cap)
        budget, host = cap - ROUNDING_BYTES, on_host
    else:
        device, budget, host = Device(), on_host, 0
    residency = Residency(device, budget_bytes=budget, host_budget_bytes=host, policy=settings.residency)

    try:
        cache = PromptCache(settings.data_dir / "prompts")
        return DiffusionEngine(Models(preset, library, device.torch_device, residency, cache))
    except ValueError as error:
        raise unavailable(say("engines.unusable", reason=error)) from error
