"""Which models the diffusion engine can use, as data. Another preset is one entry, another family one module more.

Sizes and activations were measured on full-size architectures with random weights, in GiB. Knows nothing about
files, networks or devices, and imports no model library.
"""

from collections.abc import Mapping
from dataclasses import replace

from ..contract.errors import invalid
from ..contract.texts import say
from .families.birefnet import BIREFNET
from .families.flux1 import FLUX1
from .families.sdxl import SDXL
from .preset import Activation, Preset, Source

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
_EXACT = Preset(
    "exact", "FLUX.1-dev as published, in bfloat16", (FLUX1, SDXL, BIREFNET), "transformer-bf16", (_FLUX_DEV, *_OTHERS)
)
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
            activation=Activation(0.17, 0.88, 0.6),
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
