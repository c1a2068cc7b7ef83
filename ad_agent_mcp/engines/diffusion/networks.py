# pyright: basic
"""Networks without weights: what a component's class and configuration make, on the meta device."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .presets import Component


def empty_network(component: Component, config: Mapping[str, Any]) -> nn.Module:
    """The network of `component`: weights on the meta device, and for real only the buffers that no file holds.

    Args:
        component: which class.
        config: the content of its `config.json`.
    """
    if component.network == "BiRefNet":
        from .birefnet import BiRefNet, BiRefNetConfig

        names = {field.name for field in dataclasses.fields(BiRefNetConfig)}
        fields: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in config.items() if name in names
        }
        with torch.device("meta"):
            return BiRefNet(BiRefNetConfig(**fields))
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        if kind := getattr(diffusers, component.network, None):
            network = kind.from_config(dict(config))
        else:
            kind = getattr(transformers, component.network)
            network = kind(kind.config_class.from_dict(dict(config)))
            if component.network == "T5EncoderModel":
                network.set_input_embeddings(network.shared)  # one table under two names, as in every checkpoint
    return network.eval().requires_grad_(False)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """By name what a file has to hold for `network`; a tensor with two names is there once."""
    buffers = {
        f"{path}.{name}".lstrip("."): buffer
        for path, module in network.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    return {**dict(network.named_parameters()), **buffers}
