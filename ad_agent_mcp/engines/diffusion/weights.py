# pyright: basic
"""The weights of a network as buffers: how a module is shown its weights, and how it is without.

Knows nothing about budgets.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...contract.texts import TextError, say
from ...models.schedule import Stream
from .flat import FlatFile
from .networks import tensors_of


@dataclass(eq=False)
class Weights:
    """Weights of a model that come and go together, and where their bytes are.

    Attributes:
        name: unique among the weights of all models.
        model: what a `Use` calls the model.
        module: shows them; its parameters and persistent buffers are on the meta device while they are away. None: they
            are only read.
        file: holds them.
        stream: never resident; how they are read, in host memory or on the disk.
        buffer: what the module shows.
        host: the copy in host memory.
    """

    name: str
    model: str
    module: nn.Module | None
    file: FlatFile
    stream: Stream | None
    buffer: Tensor | None = None
    host: Tensor | None = None

    @property
    def is_resident(self) -> bool:
        return self.buffer is not None and self.stream is None

    def __post_init__(self) -> None:
        self._places = _places(self.module, self.file.tensors) if self.module is not None else {}
        self._away = self.file.views(torch.empty(self.file.nbytes, dtype=torch.uint8, device="meta"))

    def assign(self, buffer: Tensor | None) -> None:
        """Show the module its weights in `buffer`; None: they are away."""
        views = self._away if buffer is None else self.file.views(buffer)
        for name, places in self._places.items():
            (kept, leaf), *_ = places
            is_parameter = isinstance(kept[leaf], nn.Parameter)
            value = nn.Parameter(views[name], requires_grad=False) if is_parameter else views[name]
            for kept, leaf in places:
                kept[leaf] = value
        self.buffer = buffer


def _places(module: nn.Module, names: Collection[str]) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Where the module keeps the tensor of each name: a dictionary and a key; several, where it is tied."""

    def place(name: str) -> tuple[dict[str, Any], str]:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        return owner._parameters if leaf in owner._parameters else owner._buffers, leaf

    return {name: [*map(place, tied)] for _, tied in tensors_of(module) for name in tied if name in names}


def check_names(model: str, module: nn.Module, files: Iterable[FlatFile]) -> None:
    """See that the files hold all parameters and persistent buffers of `module`, in their shapes, and nothing else.

    Raises:
        TextError: they do not; says which.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    held = {name: spec.shape for file in files for name, spec in file.tensors.items()}
    faults = [say("engines.weight_unknown", name=name) for name in sorted(held.keys() - shapes.keys())]
    faults += [
        say("engines.weight_missing", name=names[0]) for _, names in tensors_of(module) if held.keys().isdisjoint(names)
    ]
    for name in sorted(held.keys() & shapes.keys()):
        if held[name] != shapes[name]:
            shape, wanted = str(held[name]), str(shapes[name])
            faults.append(say("engines.weight_shape", name=name, shape=shape, wanted=wanted))
    if len(faults) > 3:
        raise TextError(say("engines.weights_foreign_more", model=model, faults=faults[:3], more=len(faults) - 3))
    if faults:
        raise TextError(say("engines.weights_foreign", model=model, faults=faults))


def stream_layers(module: nn.Module, device: torch.device) -> None:
    """Have every layer bring its own weights to `device` when it runs, and drop them after."""
    at_home: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def fetch(layer: nn.Module, _: object) -> None:
        here = {
            name: None if one is None else nn.Parameter(one.to(device, non_blocking=True), requires_grad=False)
            for name, one in layer._parameters.items()
        }
        at_home[layer] = dict(layer._parameters)
        layer._parameters.update(here)

    def leave(layer: nn.Module, *_: object) -> None:
        layer._parameters.update(at_home.pop(layer, {}))  # it is also called when fetching failed

    for layer in [layer for layer in module.modules() if layer._parameters]:
        layer.register_forward_pre_hook(fetch)
        layer.register_forward_hook(leave, always_call=True)
