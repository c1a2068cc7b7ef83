# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportPrivateImportUsage=false
"""The models of a preset as modules whose weights come and go, and the pipelines that are built on them.

Builds shells without weights; residency fills them. Knows no jobs.
"""

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from torch import nn
from transformers import AutoTokenizer

from ...contract.stages import Stage
from ...imaging.picture import Matte, Picture, to_bytes
from ...models.catalog import MODULATION, Component, Preset
from ...models.library import ModelLibrary
from ..base import StageReport
from ..cutout import birefnet
from .flat import FlatFile
from .fp8 import multiply_on, replace_linears
from .modulation import Modulation, Row
from .networks import empty_network
from .residency import Residency
from .text import Embedding, PromptCache, PromptEncoder

_FLUX_PIPELINES = {
    Stage.BACKGROUND: FluxPipeline,
    Stage.REFINE: FluxImg2ImgPipeline,
    Stage.BLEND: FluxInpaintPipeline,
}
_NO_WORDS: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
_ENCODERS = ("t5", "clip_l", "clip_g", "tokenizer", "tokenizer_2")
_RECOMPILES = 64
_COMPILERS = 4
_SDXL_TOKENS = 77


class Models:
    """Everything a preset runs on. Owned by the engine's thread.

    Args:
        preset: which models, and how they run.
        library: where its prepared components lie.
        device: where models run.
        residency: what brings their weights there.
        cache: embeddings kept on disk.
    """

    def __init__(
        self,
        preset: Preset,
        library: ModelLibrary,
        *,
        device: torch.device,
        residency: Residency,
        cache: PromptCache,
    ) -> None:
        def folder(name: str) -> Path:
            return library.prepared(preset, name)

        def identity(role: str) -> str:
            """What the embeddings of its text encoders depend on."""
            location = library.locate(preset, role)
            recorded = library.manifest(location)
            encoders = [c.name for c in preset.components if c.role == role and c.name.endswith(_ENCODERS)]
            made_of = json.dumps({name: recorded.get(name) for name in encoders}, sort_keys=True)
            return f"{role} {location.prepared.name} {made_of}"

        self.preset = preset
        self.device = device
        self._residency = residency
        self._tile_index = 0
        self._jobs = 0
        self._compiled_for: set[tuple[int, int]] = set()
        shells: dict[str, Any] = {}
        for component in preset.components:
            if not component.network:
                continue
            path = folder(component.name)
            files = {
                f"{component.name}/{file.stem}": FlatFile.open(file) for file in sorted(path.glob("*.safetensors"))
            }
            if component.name != MODULATION:
                shells[component.name] = self._shell(component, path)
            residency.add(component.name, shells.get(component.name), files, stream=component.stream)
        self._shells = shells
        self._transformer = shells[preset.transformer]
        self.has_guidance = bool(self._transformer.config.guidance_embeds)
        flux_scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder("flux_scheduler"))
        self.flux_scheduler_config = flux_scheduler.config
        self.flux = {
            stage: _quiet(
                pipeline(
                    scheduler=FlowMatchEulerDiscreteScheduler.from_config(flux_scheduler.config),
                    vae=shells["flux_vae"],
                    **_NO_WORDS,
                    transformer=self._transformer,
                )
            )
            for stage, pipeline in _FLUX_PIPELINES.items()
        }
        self.sdxl = _quiet(
            StableDiffusionXLControlNetPipeline(
                vae=shells["sdxl_vae"],
                **_NO_WORDS,
                unet=shells["unet"],
                controlnet=shells["controlnet"],
                scheduler=EulerDiscreteScheduler.from_pretrained(folder("sdxl_scheduler")),
                add_watermarker=False,
            )
        )
        self._flux_words = FluxPipeline(
            scheduler=flux_scheduler,
            vae=None,
            text_encoder=shells["clip_l"],
            tokenizer=AutoTokenizer.from_pretrained(folder("flux_tokenizer")),
            text_encoder_2=shells["t5"],
            tokenizer_2=AutoTokenizer.from_pretrained(folder("flux_tokenizer_2")),
            transformer=None,
        )
        self._sdxl_words = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=shells["sdxl_clip_l"],
            text_encoder_2=shells["sdxl_clip_g"],
            tokenizer=AutoTokenizer.from_pretrained(folder("sdxl_tokenizer")),
            tokenizer_2=AutoTokenizer.from_pretrained(folder("sdxl_tokenizer_2")),
            unet=None,
            scheduler=self.sdxl.scheduler,
            add_watermarker=False,
        )
        self.flux_text = PromptEncoder(
            f"{identity('flux')} {preset.max_sequence_length}",
            self._encode_flux,
            cache,
            tokens=lambda text: len(self._flux_words.tokenizer_2(text).input_ids),
            most_tokens=preset.max_sequence_length,
        )
        self.sdxl_text = PromptEncoder(
            identity("sdxl"),
            self._encode_sdxl,
            cache,
            tokens=lambda text: len(self._sdxl_words.tokenizer(text).input_ids),
            most_tokens=_SDXL_TOKENS,
        )
        self._set_tiles()

    def begin_job(self) -> None:
        """Compile from the second job on: the first picture of a fresh worker is there sooner without."""
        self._jobs += 1
        if self._tile_index:
            self._tile_index = 0
            self._set_tiles()
        if self._jobs == 2 and self.device.type == "cuda":
            torch._dynamo.config.recompile_limit = _RECOMPILES
            torch._inductor.config.compile_threads = min(_COMPILERS, os.cpu_count() or 1)
            self._transformer.compile_repeated_blocks(fullgraph=True)

    def begins_compiling(self, size: tuple[int, int]) -> bool:
        """Whether the next step of FLUX waits until it is compiled for pictures of `size`; true once."""
        if size in self._compiled_for or not self._compiled:
            return False
        self._compiled_for.add(size)
        return True

    def interpret(self) -> bool:
        """Run FLUX uncompiled from now on; whether it was compiled."""
        compiled = self._compiled
        for module in compiled:
            module._compiled_call_impl = None
        self._compiled_for.clear()
        return bool(compiled)

    @property
    def _compiled(self) -> list[nn.Module]:
        return [one for one in self._transformer.modules() if one._compiled_call_impl is not None]

    def image_tokens(self, size: tuple[int, int]) -> int:
        """How many tokens a picture of `size` (width, height) is to the transformer."""
        side = self.flux[Stage.BACKGROUND].vae_scale_factor * 2
        return (size[0] // side) * (size[1] // side)

    @property
    def sdxl_side(self) -> int:
        """Side in pixels of the square pictures that SDXL was trained on."""
        return self.sdxl.unet.config.sample_size * self.sdxl.vae_scale_factor

    def sdxl_picture(self, latents: torch.Tensor) -> Picture:
        """RGB of one image's SDXL `latents`; in the VAE's own type, because it overflows in float16."""
        vae = self._shells["sdxl_vae"]
        decoded = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]
        return to_bytes(self.sdxl.image_processor.postprocess(decoded, output_type="np")[0])

    def fill_table(self, rows: Sequence[Row], report: StageReport) -> None:
        """Compute the modulation of all `rows`, streaming its weights; the transformer is on the device."""
        groups = [(f"{name}.weight", f"{name}.bias") for name in self.modulation.names]
        with closing(self._residency.reading(MODULATION, groups, report)) as read:
            pairs = zip(groups, read, strict=True)
            self.modulation.fill(rows, ((here[weight], here[bias]) for (weight, bias), here in pairs))

    def matte(self, picture: Picture) -> Matte:
        """What BiRefNet takes for the foreground of an RGB picture."""
        return birefnet.matte(self._shells["birefnet"], picture)

    def smaller_tiles(self) -> str | None:
        """Need less memory; tells how, or None when nothing smaller is left."""
        if self._tile_index + 1 >= len(self.preset.vae_tiles):
            return None
        self._tile_index += 1
        self._set_tiles()
        return f"pictures are decoded in tiles of {self.preset.vae_tiles[self._tile_index]} pixels"

    def forget(self) -> None:
        """Let go of embeddings and tables."""
        self.flux_text.forget()
        self.sdxl_text.forget()
        self.modulation.clear()

    def _shell(self, component: Component, folder: Path) -> nn.Module:
        """A network without weights; what its files do not hold, such as position ids, is on the device already."""
        shell = empty_network(component, json.loads((folder / "config.json").read_text("utf-8")))
        for module in shell.modules():
            for name in module._non_persistent_buffers_set:
                if (buffer := module._buffers[name]) is not None:
                    module._buffers[name] = buffer.to(self.device)
        if component.stream:  # its weights are on the CPU, where the pipeline therefore puts what it is given
            shell.register_forward_pre_hook(lambda _, given: tuple(one.to(self.device) for one in given))
        if component.name == self.preset.transformer:
            self.modulation = Modulation(shell)
            if component.dtype.startswith("float8"):
                replace_linears(shell, lambda name: "transformer_blocks." in name, multiply_on(self.device))
        return shell

    def _set_tiles(self) -> None:
        side = self.preset.vae_tiles[self._tile_index]
        for name in ("flux_vae", "sdxl_vae"):
            vae = self._shells[name]
            vae.enable_tiling()
            vae.tile_sample_min_size = side  # at the trained size, the default, nothing would be tiled
            vae.tile_latent_min_size = side // 2 ** (len(vae.config.block_out_channels) - 1)

    def _encode_flux(self, texts: Sequence[str]) -> list[Embedding]:
        embeds, pooled, _ = self._flux_words.encode_prompt(
            list(texts), None, device=self.device, max_sequence_length=self.preset.max_sequence_length
        )
        return _one_by_one(embeds, pooled)

    def _encode_sdxl(self, texts: Sequence[str]) -> list[Embedding]:
        embeds, _, pooled, _ = self._sdxl_words.encode_prompt(
            list(texts), device=self.device, do_classifier_free_guidance=False
        )
        return _one_by_one(embeds, pooled)


def _one_by_one(embeds: torch.Tensor, pooled: torch.Tensor) -> list[Embedding]:
    return [{"embeds": one, "pooled": its} for one, its in zip(embeds.split(1), pooled.split(1), strict=True)]


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
