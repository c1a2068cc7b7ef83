"""Which models the diffusion engine can use, as data: sources, components, presets. Another preset is one entry.

Sizes and activations were measured on full-size architectures with random weights, in GiB. Knows nothing about
files, networks or devices, and imports no model library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..contract.errors import invalid
from ..contract.stages import Stage
from ..contract.texts import say
from .schedule import Stream, Use

GIB = 2**30
MEGAPIXEL = 2**20
ENCODE = "encode"
"""Every prompt of the job becomes numbers, before the first stage that paints."""
TABLE = "table"
"""The modulation of every FLUX step of the job is worked out."""
MODULATION = "modulation"


@dataclass(frozen=True)
class Source:
    """Where the weights of one role come from.

    Attributes:
        role: `flux`, `sdxl`, `controlnet` or `segmentation`; each has a setting that overrides it.
        repo: `owner/name` on the model hub.
        revision: a commit, or a branch; a branch's commit is looked up at the first download and kept from then on.
        is_gated: the hub gives it only to people who are logged in and have accepted its terms.
        download_gb: about how much is downloaded, in 10^9 bytes.
    """

    role: str
    repo: str
    revision: str
    licence: str
    licence_url: str
    is_commercial: bool
    is_gated: bool
    download_gb: float

    @property
    def terms(self) -> str:
        """Its licence, and whether that has to be accepted before anything can be downloaded."""
        return f"{self.licence}, gated" if self.is_gated else self.licence


@dataclass(frozen=True)
class Component:
    """One network of a source as it is prepared, or a folder of small files that is copied.

    Attributes:
        network: its class; empty for a folder that is copied.
        dtype: what its weights are stored in.
        nominal_gib: size of each of its segments in the published models.
        stream: read through the device while it runs, and never resident.
    """

    name: str
    role: str
    subfolder: str
    network: str = ""
    dtype: str = ""
    nominal_gib: tuple[float, ...] = ()
    stream: Stream | None = None


@dataclass(frozen=True)
class Activation:
    """Device memory that a stage needs beside the weights, the modulation table included.

    What grows with the picture and what a VAE tile of 512 takes, `tile_gib`, are not there at the same time.
    """

    fixed_gib: float
    gib_per_megapixel: float = 0.0
    tile_gib: float = 0.0

    def bytes_at(self, pixels: int) -> int:
        return int((self.fixed_gib + max(self.tile_gib, self.gib_per_megapixel * pixels / MEGAPIXEL)) * GIB)


@dataclass(frozen=True)
class Preset:
    """A choice of models and of how they run.

    Attributes:
        steps: FLUX steps of the scene where the caller names none.
        blend_steps: the same for the blend; None: the published default. A model of few steps wants so many that the
            default `composition_strength` leaves it all of those that it is made for.
        text_steps: the same for SDXL.
        text_guidance: classifier-free guidance of SDXL.
        edge_scale: how strongly the letters' outlines steer SDXL; 1 is full.
        true_cfg_scale: above 1, negative prompts act on FLUX, and each of its steps takes twice as long.
        max_sequence_length: tokens of a FLUX prompt, always filled up, so that compiled code is used again.
        vae_tiles: side of a VAE tile in pixels, and the smaller ones to try when memory is short.
    """

    name: str
    title: str
    transformer: str
    sources: tuple[Source, ...]
    steps: int = 28
    blend_steps: int | None = None
    text_steps: int = 28
    true_cfg_scale: float = 1.0
    text_guidance: float = 7.0
    edge_scale: float = 0.8
    max_sequence_length: int = 512
    vae_tiles: tuple[int, ...] = (512, 256)
    flux_activation: Activation = Activation(0.17, 0.46, 0.6)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """All that the preset runs on."""
        return tuple(c for c in COMPONENTS if not c.name.startswith("transformer-") or c.name == self.transformer)

    @cached_property
    def preset_values(self) -> Mapping[str, int]:
        """Request fields that have another value than the published one where the caller gives none."""
        if self.blend_steps is None:
            return {}
        return {"num_inference_steps": self.steps, "composition_steps": self.blend_steps}

    def source(self, role: str) -> Source:
        return next(source for source in self.sources if source.role == role)

    def use(self, stage: str, pixels: int) -> Use:
        """What `stage` needs on the device for a picture of `pixels`: nothing, if it runs no models."""
        models = _MODELS.get(stage, ())
        activation = self.flux_activation if "flux_vae" in models else _ACTIVATIONS.get(stage, Activation(0))
        names = tuple(self.transformer if name == "transformer" else name for name in models)
        return Use(stage, names, activation.bytes_at(pixels))


COMPONENTS = (
    Component("transformer-bf16", "flux", "transformer", "FluxTransformer2DModel", "bfloat16", (11.09, 5.06)),
    Component("transformer-fp8", "flux", "transformer", "FluxTransformer2DModel", "float8_e4m3fn", (8.15,)),
    Component(MODULATION, "flux", "transformer", "FluxTransformer2DModel", "bfloat16", (6.01,), stream="tensors"),
    Component("t5", "flux", "text_encoder_2", "T5EncoderModel", "bfloat16", (8.87,), stream="layers"),
    Component("clip_l", "flux", "text_encoder", "CLIPTextModel", "bfloat16", (0.23,)),
    Component("flux_vae", "flux", "vae", "AutoencoderKL", "bfloat16", (0.156,)),
    Component("flux_tokenizer", "flux", "tokenizer"),
    Component("flux_tokenizer_2", "flux", "tokenizer_2"),
    Component("flux_scheduler", "flux", "scheduler"),
    Component("unet", "sdxl", "unet", "UNet2DConditionModel", "float16", (4.78,)),
    Component("sdxl_vae", "sdxl", "vae", "AutoencoderKL", "bfloat16", (0.156,)),  # overflows in float16
    Component("sdxl_clip_l", "sdxl", "text_encoder", "CLIPTextModel", "float16", (0.23,)),
    Component("sdxl_clip_g", "sdxl", "text_encoder_2", "CLIPTextModelWithProjection", "float16", (1.29,)),
    Component("sdxl_tokenizer", "sdxl", "tokenizer"),
    Component("sdxl_tokenizer_2", "sdxl", "tokenizer_2"),
    Component("sdxl_scheduler", "sdxl", "scheduler"),
    Component("controlnet", "controlnet", "", "ControlNetModel", "float16", (2.33,)),
    Component("birefnet", "segmentation", "", "BiRefNet", "float16", (0.41,)),
)

_MODELS: Mapping[str, tuple[str, ...]] = {
    Stage.CUT_OUT: ("birefnet",),
    ENCODE: ("t5", "clip_l", "sdxl_clip_l", "sdxl_clip_g"),
    TABLE: ("transformer", MODULATION),
    Stage.BACKGROUND: ("transformer", "flux_vae"),
    Stage.REFINE: ("transformer", "flux_vae"),
    Stage.TEXT_PAINT: ("unet", "controlnet", "sdxl_vae"),
    Stage.TEXT_CUT_OUT: ("birefnet",),
    Stage.BLEND: ("transformer", "flux_vae"),
}
STAGES = tuple(_MODELS)
"""Every stage that runs models, in the order of a whole job."""
_ACTIVATIONS: Mapping[str, Activation] = {
    Stage.CUT_OUT: Activation(0.75),  # its square has always the same side
    ENCODE: Activation(0.8),
    TABLE: Activation(0.4),
    Stage.TEXT_PAINT: Activation(0.2, 0.57, 0.56),
    Stage.TEXT_CUT_OUT: Activation(0.75),
}

_HUB = "https://huggingface.co/"
_FLUX_DEV = Source(
    "flux", "black-forest-labs/FLUX.1-dev", "main", "FLUX.1 [dev] Non-Commercial License",
    f"{_HUB}black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md", is_commercial=False, is_gated=True, download_gb=33.9,
)  # fmt: skip
_OTHERS = (
    Source(
        "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "main", "CreativeML Open RAIL++-M",
        f"{_HUB}stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        is_commercial=True, is_gated=False, download_gb=7.1,
    ),
    Source(
        "controlnet", "diffusers/controlnet-canny-sdxl-1.0", "main", "CreativeML Open RAIL++-M",
        f"{_HUB}diffusers/controlnet-canny-sdxl-1.0", is_commercial=True, is_gated=False, download_gb=2.5,
    ),
    Source(
        "segmentation", "ZhengPeng7/BiRefNet", "e2bf8e4460fc8fa32bba5ea4d94b3233d367b0e4", "MIT",
        f"{_HUB}ZhengPeng7/BiRefNet", is_commercial=True, is_gated=False, download_gb=0.44,
    ),
)  # fmt: skip
_EXACT = Preset("exact", "FLUX.1-dev as published, in bfloat16", "transformer-bf16", (_FLUX_DEV, *_OTHERS))
_SCHNELL = Source(
    "flux", "black-forest-labs/FLUX.1-schnell", "main", "Apache-2.0",
    f"{_HUB}black-forest-labs/FLUX.1-schnell", is_commercial=True, is_gated=True, download_gb=33.9,
)  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        _EXACT,
        replace(
            _EXACT, name="fast", title="FLUX.1-dev with blocks in 8 bits, compiled", transformer="transformer-fp8",
            flux_activation=Activation(0.17, 0.88, 0.6),
        ),
        replace(
            _EXACT, name="schnell", title="FLUX.1-schnell in bfloat16: 4 steps, may be used commercially",
            sources=(_SCHNELL, *_OTHERS), steps=4, blend_steps=10, max_sequence_length=256,
        ),
    )
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        AdAgentError: `invalid_request`; there is none of that name.
    """
    if name not in PRESETS:
        raise invalid(say("models.no_preset", name=repr(name), presets=list(PRESETS)))
    return PRESETS[name]
