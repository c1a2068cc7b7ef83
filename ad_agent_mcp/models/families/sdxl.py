"""SDXL with a ControlNet for outlines paints letters."""

from ...contract.stages import Stage, StageInfo
from ..preset import Activation, Component, Family, Run

SDXL = Family(
    "sdxl",
    components=(
        Component("unet", "sdxl", "unet", "UNet2DConditionModel", "float16", (4.78,)),
        Component("sdxl_vae", "sdxl", "vae", "AutoencoderKL", "bfloat16", (0.156,)),  # overflows in float16
        Component("sdxl_clip_l", "sdxl", "text_encoder", "CLIPTextModel", "float16", (0.23,)),
        Component("sdxl_clip_g", "sdxl", "text_encoder_2", "CLIPTextModelWithProjection", "float16", (1.29,)),
        Component("sdxl_tokenizer", "sdxl", "tokenizer"),
        Component("sdxl_tokenizer_2", "sdxl", "tokenizer_2"),
        Component("sdxl_scheduler", "sdxl", "scheduler"),
        Component("controlnet", "controlnet", "", "ControlNetModel", "float16", (2.33,)),
    ),
    runs={Stage.TEXT_PAINT: Run(("unet", "controlnet", "sdxl_vae"), Activation(0.2, 0.57, 0.56))},
    infos={Stage.TEXT_PAINT: StageInfo(label="sdxl_text_generation", prior_s=12 / 28, load_s=6)},
    encoders=("sdxl_clip_l", "sdxl_clip_g"),
)
