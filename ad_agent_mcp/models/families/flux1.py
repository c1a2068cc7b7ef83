"""FLUX.1 paints scenes. Its transformer runs without its modulation, which is worked out before."""

from ...contract.stages import Stage, StageInfo
from ..preset import Activation, Component, Family, Run

MODULATION = "modulation"
TABLE = "table"
"""The modulation of every step of the job is worked out."""

_PASS = Run(("transformer", "flux_vae"), Activation(0.17, 0.46, 0.6))
_MODULATES = r"(^|\.)norm\w*\.linear\.\w+"
_TRANSFORMER = ("flux", "transformer", "FluxTransformer2DModel")

FLUX1 = Family(
    "flux1",
    components=(
        Component("transformer-bf16", *_TRANSFORMER, "bfloat16", (11.09, 5.06), tensors=f"^(?!.*{_MODULATES})"),
        Component("transformer-fp8", *_TRANSFORMER, "float8_e4m3fn", (8.15,), tensors=f"^(?!.*{_MODULATES})"),
        Component(MODULATION, *_TRANSFORMER, "bfloat16", (6.01,), stream="tensors", tensors=_MODULATES),
        Component("t5", "flux", "text_encoder_2", "T5EncoderModel", "bfloat16", (8.87,), stream="layers"),
        Component("clip_l", "flux", "text_encoder", "CLIPTextModel", "bfloat16", (0.23,)),
        Component("flux_vae", "flux", "vae", "AutoencoderKL", "bfloat16", (0.156,)),
        Component("flux_tokenizer", "flux", "tokenizer"),
        Component("flux_tokenizer_2", "flux", "tokenizer_2"),
        Component("flux_scheduler", "flux", "scheduler"),
    ),
    runs={
        TABLE: Run(("transformer", MODULATION), Activation(0.4)),
        Stage.BACKGROUND: _PASS,
        Stage.REFINE: _PASS,
        Stage.BLEND: _PASS,
    },
    infos={
        Stage.BACKGROUND: StageInfo(label="flux_bg_generation", prior_s=1, load_s=22),
        Stage.REFINE: StageInfo(label="flux_refinement", prior_s=1),
        Stage.BLEND: StageInfo(label="flux_inpainting", prior_s=1),
    },
    encoders=("t5", "clip_l"),
    before=(TABLE,),
    unused=("bg_negative_prompt", "bg_composition_negative_prompt", "composition_negative_prompt"),
    unused_without={"guidance_embeds": ("guidance_scale", "composition_guidance_scale")},
)
