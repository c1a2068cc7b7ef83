# pyright: basic
"""Tiny random models in the folder layout of their hub repositories; every one loads without a network.

Shapes keep what the real ones have: sharded FLUX files, the `text_model.` prefix of CLIP keys, fp16 variants of SDXL,
single-file checkpoints that nobody asked for, layer widths that fp8 can multiply (multiples of 16).
"""

import json
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from ad_agent_mcp.engines.cutout.birefnet import BiRefNet, BiRefNetConfig

torch.set_num_threads(1)  # threads of tensors this small do nothing but wait for each other

TRANSFORMER: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (8, 12, 12),
}
T5: dict[str, Any] = {
    "d_model": 64,
    "d_ff": 128,
    "d_kv": 16,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "vocab_size": 256,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.0,
}
CLIP: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 77,
    "vocab_size": 512,
    "projection_dim": 32,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
CLIP_G: dict[str, Any] = CLIP | {"hidden_size": 48, "projection_dim": 48, "hidden_act": "gelu"}
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 8,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}
SDXL_VAE = VAE | {
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "shift_factor": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
CONTROLNET: dict[str, Any] = {
    "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": CLIP["hidden_size"] + CLIP_G["hidden_size"],
    "transformer_layers_per_block": (1, 1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": CLIP_G["projection_dim"] + 6 * 32,
}
UNET = CONTROLNET | {
    "sample_size": 16,
    "out_channels": 4,
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}

BIREFNET: dict[str, Any] = {
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "heads": (1, 1, 2, 2),
    "window": 4,
    "decoder_dim": 8,
    "aspp_dim": 8,
    "side": 128,
}


def build_flux(folder: Path, *, guidance_embeds: bool = True) -> Path:
    """FLUX.1: with guidance embeddings like `dev`, without like `schnell`. Weights bfloat16."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        dynamic: dict[str, Any] = {"use_dynamic_shifting": True, "shift": 3.0} if guidance_embeds else {"shift": 1.0}
        pipeline = FluxPipeline(
            transformer=FluxTransformer2DModel(**TRANSFORMER, guidance_embeds=guidance_embeds),
            vae=AutoencoderKL(**VAE),
            text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP)),
            text_encoder_2=T5EncoderModel(T5Config(**T5)),
            tokenizer=clip_tokenizer(folder / "tokenizer"),
            tokenizer_2=t5_tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(**dynamic),
        ).to(torch.bfloat16)
    pipeline.save_pretrained(folder)
    for name in ("transformer", "text_encoder_2"):
        for whole in (folder / name).glob("*.safetensors"):
            whole.unlink()
        getattr(pipeline, name).save_pretrained(folder / name, max_shard_size="100KB")
    _name_like_the_hub(folder / "text_encoder")
    (folder / "flux1-dev.safetensors").write_bytes(b"the same weights again, in another program's layout")
    return folder


def build_sdxl(folder: Path) -> Path:
    """SDXL base: float32, and beside each file its `fp16` variant of equal values."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        pipeline = StableDiffusionXLPipeline(
            unet=UNet2DConditionModel(**UNET),
            vae=AutoencoderKL(**SDXL_VAE),
            text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP)),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G)),
            tokenizer=clip_tokenizer(folder / "tokenizer"),
            tokenizer_2=clip_tokenizer(folder / "tokenizer_2", pad_token="!"),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            add_watermarker=False,
        )
    pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")
    pipeline.to(torch.float32).save_pretrained(folder)
    _name_like_the_hub(folder / "text_encoder")
    return folder


def build_controlnet(folder: Path) -> Path:
    """A Canny ControlNet for `build_sdxl`, whose outputs are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = ControlNetModel(**CONTROLNET)
        with torch.no_grad():
            for block in (net.controlnet_cond_embedding, net.controlnet_down_blocks, net.controlnet_mid_block):
                for parameter in block.parameters():
                    parameter.normal_(std=0.1)
    net.to(torch.float16).save_pretrained(folder, variant="fp16")
    net.to(torch.float32).save_pretrained(folder)
    return folder


def build_segmentation(folder: Path) -> Path:
    """BiRefNet in float16, as its repository has it; its shape is in `config.json`."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = BiRefNet(BiRefNetConfig(**BIREFNET)).half()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(BIREFNET))
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "model.safetensors")
    return folder


def clip_tokenizer(folder: Path, *, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """Byte-level BPE without merges: every byte is a token, with and without the end-of-word mark."""
    alphabet = sorted(ByteLevel.alphabet())[:255]
    tokens = [*alphabet, *(f"{character}</w>" for character in alphabet), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token=pad_token)


def t5_tokenizer() -> T5Tokenizer:
    """Unigram over single printable characters, with and without the word mark."""
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = ["▁", *(f"▁{character}" for character in characters), *characters]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(len(piece))) for piece in pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _name_like_the_hub(folder: Path) -> None:
    """Give CLIP's keys the prefix that published files have and that transformers 5 no longer writes."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        save_file(
            {key if key.startswith("text_") else f"text_model.{key}": value for key, value in tensors.items()},
            path,
            metadata={"format": "pt"},
        )
