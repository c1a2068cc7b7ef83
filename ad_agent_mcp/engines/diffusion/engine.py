# pyright: basic
"""The engine with models: FLUX paints, refines and blends, SDXL with a ControlNet paints letters, BiRefNet cuts out.

Knows what is painted with what, and in which order; what is on the device when is residency's affair.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from subprocess import SubprocessError
from typing import Any, NamedTuple

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
from ...hardware import free_host_bytes
from ...imaging import cutout
from ...imaging.edges import canny_map
from ...imaging.picture import Matte, Picture, alpha_over, blur, dilate, floats, mix, resize, to_bytes
from ...imaging.transparency import settled
from ...models.catalog import ENCODE, MEGAPIXEL, TABLE, preset_named
from ...models.library import ModelLibrary, unavailable
from ...models.memory_plan import host_budget, vram_budget
from ...models.schedule import Use
from ..base import CutOut, Scene, StageReport
from .devices import CudaDevice, Device
from .models import Models
from .modulation import Row, flux_rows
from .prompts import FLUX_STAGES, prompts_of, unused_fields
from .residency import Residency
from .text import Embedding, PromptCache, PromptEncoder

logger = logging.getLogger(__name__)

COMPILING = "flux_compile"
"""Told as a model that is loading, because a step waits for it."""
ROUNDING_BYTES = 256 << 20
"""What torch may reserve above what is asked of it."""
_SDXL_MULTIPLE = 64
_FLOOR_Y = 0.7
_LETTER_REACH = 0.02
_BLEND_REACH = 0.03
_CORE_SHARE = 0.6


class _Pass(NamedTuple):
    """One run of FLUX in this job."""

    steps: int
    guidance: float
    strength: float | None = None


@dataclass
class _JobState:
    """What is known of the running job."""

    passes: Mapping[Stage, _Pass]
    prompts: Mapping[Stage, Mapping[str, str]]
    unused: list[str]
    cut: set[tuple[str, str]] = field(default_factory=set)
    table_size: tuple[int, int] | None = None
    rows: dict[Stage, range] = field(default_factory=dict)


class DiffusionEngine:
    """Implements `engines.base.Engine` with models. Owned by one thread; `prepare` begins a job."""

    name = EngineName.DIFFUSION

    def __init__(self, models: Models, residency: Residency) -> None:
        self._models = models
        self._residency = residency
        self._preset = models.preset
        self._job: _JobState | None = None

    def prepare(self, plan: Plan, request: GenerateRequest) -> None:
        """See `Engine`."""
        stages = tuple(planned.stage for planned in plan.stages)
        has_negative = self._preset.true_cfg_scale > 1
        prompts = prompts_of(request, has_negative=has_negative)
        steps = request.num_inference_steps or self._preset.steps
        passes = {
            Stage.BACKGROUND: _Pass(steps, request.guidance_scale),
            Stage.REFINE: _Pass(steps, request.guidance_scale, request.strength),
            Stage.BLEND: _Pass(
                request.composition_steps, request.composition_guidance_scale, request.composition_strength
            ),
        }
        self._job = _JobState(
            {stage: run for stage, run in passes.items() if stage in stages},
            prompts,
            unused_fields(request, stages, has_negative=has_negative, has_guidance=self._models.has_guidance),
        )
        for encoder, its_stages in (
            (self._models.flux_text, FLUX_STAGES),
            (self._models.sdxl_text, (Stage.TEXT_PAINT,)),
        ):
            encoder.recall([text for stage in stages if stage in its_stages for text in prompts[stage].values()])
        self._models.begin_job()
        uses = self._uses(stages, request.width * request.height, has_new_words=self._has_new_words())
        self._residency.plan(uses)

    def cut_out(self, photo: Picture, *, product_box: Box | None, report: StageReport) -> CutOut:
        """See `Engine`."""
        self._report_unused(report)
        photo = settled(photo)
        if photo.shape[2] == 4:
            report.iteration(0, 1)
            cut = cutout.cut_out(photo, product_box=product_box)
        else:
            cut = cutout.from_model(
                photo,
                lambda part: self._run(Stage.CUT_OUT, lambda: self._models.matte(part), report),
                product_box=product_box,
            )
            if cut.confidence < 0.5 or cut.route != "model":
                report.notice(
                    "cutout_uncertain",
                    "The product may be cut out badly: its outline is unsure. Look at the cutout; a product_box, "
                    "or a PNG with transparency gives a better one.",
                )
        report.iteration(1, 1)
        return cut

    def paint_background(
        self, request: GenerateRequest, *, size: tuple[int, int], product: CutOut, seed: int, report: StageReport
    ) -> Scene:
        """See `Engine`."""
        image = self._flux(Stage.BACKGROUND, size, seed, report)
        return Scene(image, "flux", _FLOOR_Y, _light_x(image))

    def refine(self, image: Picture, *, seed: int, report: StageReport) -> Picture:
        """See `Engine`."""
        return self._flux(Stage.REFINE, _size(image), seed, report, image=Image.fromarray(image))

    def paint_text(self, mask: Matte, *, request: GenerateRequest, seed: int, report: StageReport) -> Picture:
        """See `Engine`: SDXL over the mask's edges; nothing is transparent yet."""
        self._read(Stage.TEXT_PAINT, report)
        width, height = sdxl_size(mask.shape[1] / mask.shape[0], self._models.sdxl_side)
        edges = Image.fromarray(canny_map(mask, (width, height)))
        steps = self._preset.text_steps

        def body() -> Picture:
            positive, negative = self._embeddings(Stage.TEXT_PAINT)
            result = self._models.sdxl(
                prompt_embeds=positive["embeds"],
                pooled_prompt_embeds=positive["pooled"],
                negative_prompt_embeds=negative["embeds"],
                negative_pooled_prompt_embeds=negative["pooled"],
                image=edges,
                width=width,
                height=height,
                num_inference_steps=steps,
                guidance_scale=self._preset.text_guidance,
                controlnet_conditioning_scale=self._preset.edge_scale,
                generator=_generator(seed),
                callback_on_step_end=_step_callback(report, steps, self._models.device),
                output_type="latent",
            )
            return self._models.sdxl_picture(result.images)

        painted = self._run(Stage.TEXT_PAINT, body, report)
        rgb = to_bytes(resize(floats(floats(painted) / 255), (mask.shape[1], mask.shape[0])))
        return np.dstack([rgb, np.full(mask.shape, 255, np.uint8)])

    def cut_out_text(self, painting: Picture, mask: Matte, *, report: StageReport) -> Picture:
        """See `Engine`."""
        matte = self._run(Stage.TEXT_CUT_OUT, lambda: self._models.matte(painting[..., :3]), report)
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
        painted = self._flux(
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
        self._models.forget()
        self._residency.unload()

    def preload(self, report: StageReport) -> None:
        """See `Engine`: what cuts out, then what paints."""
        self._residency.plan(self._uses(tuple(Stage), MEGAPIXEL, has_new_words=True))
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
    def _state(self) -> _JobState:
        assert self._job is not None  # noqa: S101  # the pipeline prepares first
        return self._job

    def _encoder(self, stage: Stage) -> PromptEncoder:
        return self._models.sdxl_text if stage is Stage.TEXT_PAINT else self._models.flux_text

    def _embeddings(self, stage: Stage) -> list[Embedding]:
        """Of the stage's prompts, on the device."""
        texts = self._state.prompts[stage].values()
        return [self._encoder(stage).embedding(text, self._models.device) for text in texts]

    def _has_new_words(self) -> bool:
        """Whether the job has prompts that no earlier one had."""
        return bool(self._models.flux_text.missing or self._models.sdxl_text.missing)

    def _uses(self, stages: tuple[Stage, ...], pixels: int, *, has_new_words: bool) -> list[Use]:
        # Without step 1 the product may have to be found in the picture that is there.
        uses = [] if Stage.CUT_OUT in stages else [self._preset.use(Stage.CUT_OUT, pixels)]
        told: set[str] = set() if has_new_words else {ENCODE}
        for stage in stages:
            if stage in (*FLUX_STAGES, Stage.TEXT_PAINT) and ENCODE not in told:
                told.add(ENCODE)
                uses.append(self._preset.use(ENCODE, pixels))
            if stage in FLUX_STAGES and TABLE not in told:
                told.add(TABLE)
                uses.append(self._preset.use(TABLE, pixels))
            uses.append(self._preset.use(stage, pixels))
        return [use for use in uses if use.models]

    def _run(self, stage: str, body: Callable[[], Any], report: StageReport) -> Any:
        def inferring() -> Any:
            with torch.inference_mode():
                return body()

        try:
            return self._residency.run(stage, inferring, report, shrink=self._models.smaller_tiles)
        except AdAgentError:  # out of memory: nothing of this job is needed any more
            self._models.forget()
            raise

    def _read(self, stage: Stage, report: StageReport) -> None:
        """Have the embeddings of a stage's prompts: of every prompt of the job that is not known yet, in one go."""
        self._report_unused(report)
        encoder, what = self._encoder(stage), "letters" if stage is Stage.TEXT_PAINT else "pictures"
        for source, text in self._state.prompts[stage].items():
            words = encoder.words_read(text)
            if words is not None and (source, what) not in self._state.cut:
                self._state.cut.add((source, what))
                report.notice(
                    "prompt_truncated",
                    f"{source} is too long: the model that paints {what} reads about its first {words} words and "
                    "leaves out the rest. Say what matters first, in fewer words.",
                )

        def body() -> None:
            self._models.flux_text.encode()
            self._models.sdxl_text.encode()

        if self._has_new_words():
            self._run(ENCODE, body, report)

    def _tabulate(self, size: tuple[int, int], report: StageReport) -> None:
        """The modulation of every step of every FLUX pass of the job."""
        state = self._state
        if state.table_size == size:
            return

        def body() -> None:
            rows: list[Row] = []
            for stage, run in state.passes.items():
                words, *negative = self._embeddings(stage)
                made = flux_rows(
                    self._models.flux_scheduler_config,
                    steps=run.steps,
                    strength=run.strength,
                    image_tokens=self._models.image_tokens(size),
                    guidance=run.guidance if self._models.has_guidance else None,
                    pooled=words["pooled"],
                    negative_pooled=negative[0]["pooled"] if negative else None,
                )
                state.rows[stage] = range(len(rows), len(rows) + len(made))
                rows += made
            self._models.fill_table(rows, report)

        self._run(TABLE, body, report)
        state.table_size = size

    def _flux(
        self, stage: Stage, size: tuple[int, int], seed: int, report: StageReport, **pictures: Image.Image
    ) -> Picture:
        self._read(stage, report)
        self._tabulate(size, report)
        state = self._state
        run, rows = state.passes[stage], state.rows[stage]
        steps = len(rows) // len(state.prompts[stage])
        strength = {} if run.strength is None else {"strength": run.strength}

        def body() -> Picture:
            report.iteration(0, steps)  # nothing is loading any more
            if self._models.begins_compiling(size):
                report.model_moved(COMPILING, "loading")  # until the first step is told
            words, *negative = self._embeddings(stage)
            guided = (
                {
                    "true_cfg_scale": self._preset.true_cfg_scale,
                    "negative_prompt_embeds": negative[0]["embeds"],
                    "negative_pooled_prompt_embeds": negative[0]["pooled"],
                }
                if negative
                else {}
            )
            with self._models.modulation.reading(rows):
                result = self._models.flux[stage](
                    prompt_embeds=words["embeds"],
                    pooled_prompt_embeds=words["pooled"],
                    width=size[0],
                    height=size[1],
                    num_inference_steps=run.steps,
                    guidance_scale=run.guidance,
                    generator=_generator(seed),
                    callback_on_step_end=_step_callback(report, steps, self._models.device),
                    output_type="np",
                    **guided,
                    **strength,
                    **pictures,
                )
            return to_bytes(result.images[0])

        try:
            return self._run(stage, body, report)
        except (RuntimeError, OSError, SubprocessError, FailOnRecompileLimitHit) as error:
            # What torch's compilers raise, or let through of triton's: no C compiler, no headers, one that fails.
            if not self.is_usable() or not self._models.interpret():
                raise
            kind = type(error).__name__
            logger.warning("compiled FLUX failed with %s: %s", kind, str(error)[:500])
        report.notice(
            "not_compiled",
            f"FLUX could not be compiled here ({kind}), so it runs slower until the server starts again. Compiling "
            "needs a C compiler and Python's headers: install gcc and python3-dev (the server's log has the details).",
        )
        return self._run(stage, body, report)

    def _report_unused(self, report: StageReport) -> None:
        names, self._state.unused = self._state.unused, []
        if names:
            report.notice(
                "not_supported",
                f"This preset ({self._preset.name}) has no use for: {', '.join(names)}. FLUX is guided by what a "
                "prompt says, so say what should be there instead.",
            )


def sdxl_size(aspect: float, side: int) -> tuple[int, int]:
    """Width and height at which SDXL paints a picture of this width by height: as many pixels as it was trained on."""
    aspect = min(4.0, max(0.25, aspect))
    width, height = side * aspect**0.5, side / aspect**0.5
    return _multiple(width), _multiple(height)


def _multiple(length: float) -> int:
    return max(1, round(length / _SDXL_MULTIPLE)) * _SDXL_MULTIPLE


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
        models = Models(preset, library, device=device.torch_device, residency=residency, cache=cache)
    except ValueError as error:
        raise unavailable(str(error)) from error
    return DiffusionEngine(models, residency)
