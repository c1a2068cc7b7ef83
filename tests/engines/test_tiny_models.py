# pyright: basic
"""The tiny models stand in for the real ones: complete, loadable offline, able to paint."""

import socket

import pytest
import torch
from diffusers import ControlNetModel, FluxPipeline, StableDiffusionXLControlNetPipeline


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("a tiny model reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("folder", ["tiny_flux", "tiny_flux_schnell"])
def test_flux_loads_and_paints_what_the_prompt_says(folder, request):
    pipeline = FluxPipeline.from_pretrained(request.getfixturevalue(folder), dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.transformer.config.guidance_embeds == (folder == "tiny_flux")

    def paint(prompt):
        generator = torch.Generator().manual_seed(0)
        return pipeline(
            prompt,
            width=64,
            height=64,
            num_inference_steps=1,
            max_sequence_length=32,
            generator=generator,
            output_type="np",
        )

    red, blue = paint("a red cup").images, paint("a blue cup").images
    assert red.shape == (1, 64, 64, 3)
    assert (red != blue).any()


@pytest.mark.usefixtures("no_network")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with NumPy 2
def test_sdxl_paints_and_its_controlnet_steers(tiny_sdxl, tiny_controlnet):
    net = ControlNetModel.from_pretrained(tiny_controlnet)
    pipeline = StableDiffusionXLControlNetPipeline.from_pretrained(tiny_sdxl, controlnet=net, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)

    def paint(edges):
        generator = torch.Generator().manual_seed(0)
        return pipeline("a cup", image=edges, num_inference_steps=1, generator=generator, output_type="np").images

    black, white = paint(torch.zeros(1, 3, 64, 64)), paint(torch.ones(1, 3, 64, 64))
    assert black.shape == (1, 64, 64, 3)
    assert (black != white).any()


def test_the_layout_has_the_oddities_of_the_hub(tiny_flux, tiny_sdxl, tiny_controlnet):
    assert len(list((tiny_flux / "transformer").glob("*-of-*.safetensors"))) > 1
    assert (tiny_flux / "transformer/diffusion_pytorch_model.safetensors.index.json").is_file()
    assert (tiny_flux / "text_encoder_2/model.safetensors.index.json").is_file()
    assert (tiny_sdxl / "unet/diffusion_pytorch_model.fp16.safetensors").is_file()
    assert (tiny_sdxl / "unet/diffusion_pytorch_model.safetensors").is_file()
    assert (tiny_controlnet / "config.json").is_file()
