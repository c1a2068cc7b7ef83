# pyright: basic
"""Networks without weights: what a component's class and configuration make, on the meta device."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...models.preset import Component


def empty_network(component: Component, config: Mapping[str, Any]) -> nn.Module:
    """The network of `component`: weights on the meta device, and for real only the buffers that no file holds.

    Args:
        component: which class.
        config: the content of its `config.json`.
    """
    if component.network == "BiRefNet":
        from ..cutout.birefnet import BiRefNet, BiRefNetConfig

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
            if (shared := getattr(network, "shared", None)) is not None:
                network.set_input_embeddings(shared)  # one table under two names, as in every checkpoint
    return network.eval().requires_grad_(False)


def tensors_of(network: nn.Module) -> list[tuple[Tensor, list[str]]]:
    """The parameters and persistent buffers of `network`, each with its names; it is tied where it has several."""
    found: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (tensor, []))[1].append(name)
    return list(found.values())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """By name what a file has to hold for `network`; a tensor with two names is there once."""
    return {names[0]: tensor for tensor, names in tensors_of(network)}
