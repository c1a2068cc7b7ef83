# pyright: basic
"""The engine with models: FLUX paints, refines and blends, SDXL with a ControlNet paints letters, BiRefNet cuts out.

Knows what is painted with what, and in which order; what is on the device when is residency's affair.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image

from ...config import Settings
from ...contract.errors import AdAgentError
from ...contract.layout import Box
from ...contract.schemas import CompositionMode, GenerateRequest
from ...contract.stages import EngineName, Plan, Stage
from ...imaging import cutout
from ...imaging.edges import canny_map
from ...imaging.picture import Matte, Picture, alpha_over, blur, dilate, floats, mix, resize, to_bytes
from ..base import CutOut, Scene, StageReport
from .devices import CpuDevice, CudaDevice, Device
from .host import free_host_bytes
from .library import ModelLibrary, unavailable
from .memory_plan import host_budget, vram_budget
from .models import Models
from .modulation import Row, flux_rows
from .presets import ENCODE, MEGAPIXEL, TABLE, preset_named
from .prompts import FLUX_STAGES, Prompt, prompts_of, unused_fields
from .residency import Residency, Use
from .text import PromptCache, PromptEncoder

logger = logging.getLogger(__name__)

ROUNDING_BYTES = 256 << 20
"""What torch may reserve above what is asked of it."""
_ENCODERS = ("t5", "clip_l", "clip_g", "tokenizer", "tokenizer_2")
_SDXL_MULTIPLE = 64
_SDXL_TOKENS = 77
_FLOOR_Y = 0.7
_LETTER_REACH = 0.02
_BLEND_REACH = 0.03
_CORE_SHARE = 0.6


class _Pass(NamedTuple):
    """One run of FLUX in this job."""

    prompt: Prompt
    steps: int
    strength: float | None
    guidance: float


@dataclass
class _JobState:
    """What is known of the running job."""

    request: GenerateRequest
    stages: tuple[Stage, ...]
    passes: Mapping[Stage, _Pass]
    prompts: Mapping[Stage, Prompt]
    unused: list[str]
    new_texts: list[tuple[PromptEncoder, list[str]]]
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

    @property
    def device(self) -> str:
        """Where it computes, as shown to people."""
        return self._models.device_name

    @property
    def presets(self) -> tuple[str, ...]:
        """The preset that is loaded."""
        return (self._preset.name,)

    def prepare(self, plan: Plan, request: GenerateRequest) -> None:
        """See `Engine`."""
        stages = tuple(planned.stage for planned in plan.stages)
        prompts = prompts_of(request)
        steps = request.num_inference_steps or self._preset.steps
        passes = {
            Stage.BACKGROUND: _Pass(prompts[Stage.BACKGROUND], steps, None, request.guidance_scale),
            Stage.REFINE: _Pass(prompts[Stage.REFINE], steps, request.strength, request.guidance_scale),
            Stage.BLEND: _Pass(
                prompts[Stage.BLEND],
                request.composition_steps,
                request.composition_strength,
                request.composition_guidance_scale,
            ),
        }
        self._job = _JobState(
            request,
            stages,
            {stage: run for stage, run in passes.items() if stage in stages},
            prompts,
            unused_fields(request, stages, has_negative=self._has_negative, has_guidance=self._models.has_guidance),
            self._new_texts(stages, prompts),
        )
        self._models.begin_job()
        has_new_words = bool(self._state.new_texts)
        self._residency.plan(self._uses(stages, request.width * request.height, has_new_words=has_new_words))

    def cut_out(self, photo: Picture, *, product_box: Box | None, report: StageReport) -> CutOut:
        """See `Engine`."""
        self._report_unused(report)
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
        return self._flux(Stage.REFINE, _size(image), seed, report, image=_pillow(image))

    def paint_text(self, mask: Matte, *, request: GenerateRequest, seed: int, report: StageReport) -> Picture:
        """See `Engine`: SDXL over the mask's edges; nothing is transparent yet."""
        self._report_unused(report)
        self._encode(report)
        width, height = sdxl_size(mask.shape[1] / mask.shape[0], self._models.sdxl_side)
        edges = Image.fromarray(canny_map(mask, (width, height)))
        steps = request.num_inference_steps or self._preset.text_steps
        prompt = self._state.prompts[Stage.TEXT_PAINT]
        for name, text in (("text_model_prompt", prompt.positive), ("negative_prompt", prompt.negative)):
            if self._models.sdxl_token_count(text) > _SDXL_TOKENS:
                report.notice(
                    "prompt_truncated",
                    f"{name} is too long: the model that paints letters reads about its first 50 words and leaves out "
                    "the rest. Say what matters first, in fewer words.",
                )

        def body() -> Picture:
            positive = self._models.sdxl_text.embedding(prompt.positive, self._models.device)
            negative = self._models.sdxl_text.embedding(prompt.negative, self._models.device)
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
            image=_pillow(plain),
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

    @property
    def _has_negative(self) -> bool:
        """Whether negative prompts act on FLUX."""
        return self._preset.true_cfg_scale > 1

    def _new_texts(
        self, stages: tuple[Stage, ...], prompts: Mapping[Stage, Prompt]
    ) -> list[tuple[PromptEncoder, list[str]]]:
        """What no earlier job had encoded, for each encoder that has any."""
        flux = [prompts[stage] for stage in stages if stage in FLUX_STAGES]
        texts = [prompt.positive for prompt in flux]
        texts += [prompt.negative for prompt in flux if self._has_negative]
        letters = list(prompts[Stage.TEXT_PAINT]) if Stage.TEXT_PAINT in stages else []
        recalled = [
            (encoder, encoder.recall(wanted))
            for encoder, wanted in ((self._models.flux_text, texts), (self._models.sdxl_text, letters))
        ]
        return [(encoder, new) for encoder, new in recalled if new]

    def _uses(self, stages: tuple[Stage, ...], pixels: int, *, has_new_words: bool) -> list[Use]:
        # Without step 1 the product may have to be found in the picture that is there.
        uses = [] if Stage.CUT_OUT in stages else [self._models.use(Stage.CUT_OUT, pixels)]
        told: set[str] = set() if has_new_words else {ENCODE}
        for stage in stages:
            if stage in (*FLUX_STAGES, Stage.TEXT_PAINT) and ENCODE not in told:
                told.add(ENCODE)
                uses.append(self._models.use(ENCODE, pixels))
            if stage in FLUX_STAGES and TABLE not in told:
                told.add(TABLE)
                uses.append(self._models.use(TABLE, pixels))
            if self._preset.models_of(stage):
                uses.append(self._models.use(stage, pixels))
        return uses

    def _run(self, stage: str, body: Callable[[], Any], report: StageReport) -> Any:
        def inferring() -> Any:
            with torch.inference_mode():
                return body()

        try:
            return self._residency.run(stage, inferring, report, shrink=self._models.shrinks())
        except AdAgentError:  # out of memory: nothing of this job is needed any more
            self._models.forget()
            raise

    def _encode(self, report: StageReport) -> None:
        """Embeddings of every prompt of the job that are not known yet, in one go."""
        if not self._state.new_texts:
            return

        def body() -> None:
            for encoder, texts in self._state.new_texts:
                encoder.encode(texts)

        self._run(ENCODE, body, report)
        self._state.new_texts = []

    def _tabulate(self, size: tuple[int, int], report: StageReport) -> None:
        """The modulation of every step of every FLUX pass of the job."""
        state = self._state
        if state.table_size == size:
            return
        device = self._models.device

        def body() -> None:
            rows: list[Row] = []
            for stage, run in state.passes.items():
                pooled = self._models.flux_text.embedding(run.prompt.positive, device)["pooled"]
                negative = None
                if self._has_negative:
                    negative = self._models.flux_text.embedding(run.prompt.negative, device)["pooled"]
                made = flux_rows(
                    self._models.flux_scheduler_config,
                    steps=run.steps,
                    strength=run.strength,
                    image_tokens=self._models.image_tokens(size),
                    guidance=run.guidance if self._models.has_guidance else None,
                    pooled=pooled,
                    negative_pooled=negative,
                )
                state.rows[stage] = range(len(rows), len(rows) + len(made))
                rows += made
            self._models.fill_table(rows, report)

        self._run(TABLE, body, report)
        state.table_size = size

    def _flux(
        self, stage: Stage, size: tuple[int, int], seed: int, report: StageReport, **pictures: Image.Image
    ) -> Picture:
        self._report_unused(report)
        self._encode(report)
        self._tabulate(size, report)
        state = self._state
        run = state.passes[stage]
        rows = state.rows[stage]
        steps = len(rows) // 2 if self._has_negative else len(rows)

        def body() -> Picture:
            report.iteration(0, steps)  # nothing is loading any more
            device = self._models.device
            positive = self._models.flux_text.embedding(run.prompt.positive, device)
            arguments: dict[str, Any] = dict(pictures)
            if self._has_negative:
                negative = self._models.flux_text.embedding(run.prompt.negative, device)
                arguments |= {
                    "true_cfg_scale": self._preset.true_cfg_scale,
                    "negative_prompt_embeds": negative["embeds"],
                    "negative_pooled_prompt_embeds": negative["pooled"],
                }
            if run.strength is not None:
                arguments["strength"] = run.strength
            with self._models.modulation.reading(rows):
                result = self._models.flux(stage)(
                    prompt_embeds=positive["embeds"],
                    pooled_prompt_embeds=positive["pooled"],
                    width=size[0],
                    height=size[1],
                    num_inference_steps=run.steps,
                    guidance_scale=run.guidance,
                    generator=_generator(seed),
                    callback_on_step_end=_step_callback(report, steps, device),
                    output_type="np",
                    **arguments,
                )
            return to_bytes(result.images[0])

        try:
            return self._run(stage, body, report)
        except AdAgentError:
            raise
        except Exception as error:  # a missing C compiler alone shows as any of several types
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


def _pillow(image: Picture) -> Image.Image:
    return Image.fromarray(image)


def open_engine(settings: Settings) -> DiffusionEngine:
    """The engine for `settings`, on the GPU if there is one. Loads no weights.

    Raises:
        AdAgentError: `model_unavailable`; a model is not prepared, or is not what its configuration says.
    """
    diffusers.utils.logging.set_verbosity_error()  # what they warn of quotes prompts
    transformers.utils.logging.set_verbosity_error()
    preset, library = preset_named(settings.preset), ModelLibrary.of(settings)
    on_host = host_budget(settings.host_budget_gb, free_host_bytes())
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        cap = vram_budget(settings.vram_budget_gb, torch.cuda.mem_get_info()[0])
        device: Device = CudaDevice(cap_bytes=cap)
        budget, host = cap - ROUNDING_BYTES, on_host
    else:
        device, budget, host = CpuDevice(), on_host, 0
    residency = Residency(device, budget_bytes=budget, host_budget_bytes=host, policy=settings.residency)

    def identity(role: str) -> str:
        location = library.locate(preset, role)
        recorded = library.manifest(location)
        encoders = [c.name for c in preset.components if c.role == role and c.name.endswith(_ENCODERS)]
        return f"{location.key} {json.dumps({name: recorded.get(name) for name in encoders}, sort_keys=True)}"

    try:
        models = Models(
            preset,
            lambda name: library.prepared(preset, name),
            identity=identity,
            device=device.torch_device,
            residency=residency,
            cache=PromptCache(settings.data_dir / "prompts"),
        )
    except ValueError as error:
        raise unavailable(str(error)) from error
    return DiffusionEngine(models, residency)
