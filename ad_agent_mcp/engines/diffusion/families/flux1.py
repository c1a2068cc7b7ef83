# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""FLUX.1: one transformer in three pipelines, its modulation read from a table, its prompts through T5 and CLIP."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

from diffusers import FlowMatchEulerDiscreteScheduler, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from transformers import AutoTokenizer

from ....contract.stages import Stage
from ....imaging.picture import Picture, to_bytes
from ....models.families.flux1 import MODULATION, TABLE
from ...base import StageReport
from ..models import NO_WORDS, Models, quiet
from ..painter import Painter, Pass, Work
from ..text import Embedding, one_by_one
from .flux1_modulation import Modulation, Row, flux_rows

_PIPELINES = {
    Stage.BACKGROUND: FluxPipeline,
    Stage.REFINE: FluxImg2ImgPipeline,
    Stage.BLEND: FluxInpaintPipeline,
}


class Flux1(Painter):
    """Its passes share a table of their modulation, worked out before the first one."""

    def __init__(self, models: Models) -> None:
        preset = models.preset
        self._models = models
        self._tokens = preset.max_sequence_length
        transformer = models.make(preset.transformer)
        self.modulation = Modulation(transformer)
        models.add(preset.transformer, transformer)
        models.add(MODULATION)
        self._has_guidance = bool(transformer.config.guidance_embeds)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(models.folder("flux_scheduler"))
        self._words = FluxPipeline(
            scheduler=scheduler,
            vae=None,
            text_encoder_2=models.shell("t5"),
            text_encoder=models.shell("clip_l"),
            tokenizer=AutoTokenizer.from_pretrained(models.folder("flux_tokenizer")),
            tokenizer_2=AutoTokenizer.from_pretrained(models.folder("flux_tokenizer_2")),
            transformer=None,
        )
        vae = models.vae("flux_vae")
        self.pipelines = {
            stage: quiet(
                pipeline(
                    scheduler=FlowMatchEulerDiscreteScheduler.from_config(scheduler.config),
                    vae=vae,
                    **NO_WORDS,
                    transformer=transformer,
                )
            )
            for stage, pipeline in _PIPELINES.items()
        }
        self.text = models.encoder("flux", self._encode, self._words.tokenizer_2, most_tokens=self._tokens)

    def begin(self, passes: Mapping[Stage, Pass]) -> None:
        """See `Painter`."""
        super().begin(passes)
        self._rows: dict[Stage, range] = {}
        self._table_size: tuple[int, int] | None = None

    def preparation(self, size: tuple[int, int]) -> tuple[str, Callable[[StageReport], None]] | None:
        """See `Painter`: the modulation of every step of every pass of the job."""
        return None if self._table_size == size else (TABLE, partial(self._tabulate, size))

    def paint(self, work: Work) -> Picture:
        """See `Painter`."""
        run = self.passes[work.stage]
        words = self._words_of(run)
        strength = {} if run.strength is None else {"strength": run.strength}
        with self.modulation.reading(self._rows[work.stage]):
            result = self.pipelines[work.stage](
                prompt_embeds=words["embeds"],
                pooled_prompt_embeds=words["pooled"],
                width=work.size[0],
                height=work.size[1],
                num_inference_steps=run.steps,
                guidance_scale=run.guidance,
                generator=work.generator,
                callback_on_step_end=work.on_step,
                output_type="np",
                **strength,
                **work.pictures,
            )
        return to_bytes(result.images[0])

    def forget(self) -> None:
        """See `Painter`."""
        super().forget()
        self.modulation.clear()

    def _tabulate(self, size: tuple[int, int], report: StageReport) -> None:
        side = self.pipelines[Stage.BACKGROUND].vae_scale_factor * 2
        rows: list[Row] = []
        for stage, run in self.passes.items():
            made = flux_rows(
                self._words.scheduler.config,
                steps=run.steps,
                strength=run.strength,
                image_tokens=(size[0] // side) * (size[1] // side),
                guidance=run.guidance if self._has_guidance else None,
                pooled=self._words_of(run)["pooled"],
            )
            self._rows[stage] = range(len(rows), len(rows) + len(made))
            rows += made
        groups = [(f"{name}.weight", f"{name}.bias") for name in self.modulation.names]
        with closing(self._models.residency.reading(MODULATION, groups, report)) as read:
            pairs = zip(groups, read, strict=True)
            self.modulation.fill(rows, ((here[weight], here[bias]) for (weight, bias), here in pairs))
        self._table_size = size

    def _words_of(self, run: Pass) -> Embedding:
        return self.text.embedding(run.prompts[0], self._models.device)

    def _encode(self, texts: Sequence[str]) -> list[Embedding]:
        embeds, pooled, _ = self._words.encode_prompt(
            list(texts), None, device=self._models.device, max_sequence_length=self._tokens
        )
        return one_by_one(embeds=embeds, pooled=pooled)
