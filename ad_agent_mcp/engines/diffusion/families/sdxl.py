# pyright: basic, reportArgumentType=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false
"""SDXL with a ControlNet, which keeps to the outlines of a picture."""

from collections.abc import Sequence

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from transformers import AutoTokenizer

from ....imaging.picture import Picture, to_bytes
from ..models import NO_WORDS, Models, quiet
from ..painter import Painter, Work
from ..text import Embedding, one_by_one

_TOKENS = 77
_MULTIPLE = 64


class Sdxl(Painter):
    """Has an `image` of outlines in each pass."""

    def __init__(self, models: Models) -> None:
        self._models = models
        unet = models.shell("unet")
        self._vae = models.vae("sdxl_vae")
        self._words = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=models.shell("sdxl_clip_l"),
            text_encoder_2=models.shell("sdxl_clip_g"),
            tokenizer=AutoTokenizer.from_pretrained(models.folder("sdxl_tokenizer")),
            tokenizer_2=AutoTokenizer.from_pretrained(models.folder("sdxl_tokenizer_2")),
            unet=None,
            scheduler=EulerDiscreteScheduler.from_pretrained(models.folder("sdxl_scheduler")),
            add_watermarker=False,
        )
        self.pipeline = quiet(
            StableDiffusionXLControlNetPipeline(
                vae=self._vae,
                **NO_WORDS,
                unet=unet,
                controlnet=models.shell("controlnet"),
                scheduler=self._words.scheduler,
                add_watermarker=False,
            )
        )
        self.text = models.encoder("sdxl", self._encode, self._words.tokenizer, most_tokens=_TOKENS)

    def painted_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `Painter`: as many pixels as it was trained on."""
        trained_side = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        return sized(size[0] / size[1], trained_side)

    def paint(self, work: Work) -> Picture:
        """See `Painter`."""
        run = self.passes[work.stage]
        words, unwanted = (self.text.embedding(text, self._models.device) for text in run.prompts)
        result = self.pipeline(
            prompt_embeds=words["embeds"],
            pooled_prompt_embeds=words["pooled"],
            negative_prompt_embeds=unwanted["embeds"],
            negative_pooled_prompt_embeds=unwanted["pooled"],
            width=work.size[0],
            height=work.size[1],
            num_inference_steps=run.steps,
            guidance_scale=run.guidance,
            controlnet_conditioning_scale=self._models.preset.edge_scale,
            generator=work.generator,
            callback_on_step_end=work.on_step,
            output_type="latent",
            **work.pictures,
        )
        return self._picture(result.images)

    def _picture(self, latents: torch.Tensor) -> Picture:
        """RGB of one image's `latents`; in the VAE's own type, because it overflows in float16."""
        latents = (latents / self._vae.config.scaling_factor).to(self._vae.dtype)
        decoded = self._vae.decode(latents).sample
        return to_bytes(self.pipeline.image_processor.postprocess(decoded, output_type="np")[0])

    def _encode(self, texts: Sequence[str]) -> list[Embedding]:
        embeds, _, pooled, _ = self._words.encode_prompt(
            list(texts), device=self._models.device, do_classifier_free_guidance=False
        )
        return one_by_one(embeds=embeds, pooled=pooled)


def sized(aspect: float, side: int) -> tuple[int, int]:
    """Width and height of a picture of this width by height with as many pixels as a square of `side`."""
    aspect = min(4.0, max(0.25, aspect))
    return _multiple(side * aspect**0.5), _multiple(side / aspect**0.5)


def _multiple(length: float) -> int:
    return max(1, round(length / _MULTIPLE)) * _MULTIPLE
