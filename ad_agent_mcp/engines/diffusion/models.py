# pyright: basic, reportAttributeAccessIssue=false
"""The models of a preset as modules whose weights come and go.

Builds shells without weights; residency fills them. Knows no jobs, and nothing of what models compute.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...contract.texts import Text, say
from ...models.library import ModelLibrary
from ...models.preset import Preset
from .flat import FlatFile
from .fp8 import multiply_on, replace_linears
from .networks import empty_network
from .residency import Residency
from .text import Embedding, PromptCache, PromptEncoder

NO_WORDS: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
"""The arguments of a pipeline that is given embeddings."""


@dataclass(eq=False)
class Models:
    """Everything a preset runs on, made as its families ask for it. Owned by the engine's thread.

    Attributes:
        preset: which models, and how they run.
        library: where its prepared components lie.
        device: where models run.
        residency: what brings their weights there.
        cache: embeddings kept on disk.
        transformer: the preset's, once it was added.
    """

    preset: Preset
    library: ModelLibrary
    device: torch.device
    residency: Residency
    cache: PromptCache
    transformer: Any = None
    _vaes: list[Any] = field(default_factory=list)
    _tile_index: int = 0

    def folder(self, name: str) -> Path:
        """Where a component lies.

        Raises:
            AdAgentError: `model_unavailable`; it is not prepared.
        """
        return self.library.prepared(self.preset, name)

    def shell(self, name: str) -> Any:
        """A network without weights, which residency knows."""
        return self.add(name, self.make(name))

    def vae(self, name: str) -> Any:
        """`shell` of a VAE, which works in tiles."""
        vae = self.shell(name)
        self._vaes.append(vae)
        self._set_tiles()
        return vae

    def make(self, name: str) -> Any:
        """A network without weights; what its files do not hold, such as position ids, is on the device already."""
        component = self.preset.component(name)
        shell = empty_network(component, self.library.config(self.preset, name))
        for module in shell.modules():
            for kept in module._non_persistent_buffers_set:
                if (buffer := module._buffers[kept]) is not None:
                    module._buffers[kept] = buffer.to(self.device)
        if component.stream:  # its weights are on the CPU, where the pipeline therefore puts what it is given
            shell.register_forward_pre_hook(lambda _, given: tuple(one.to(self.device) for one in given))
        return shell

    def add(self, name: str, shell: nn.Module | None = None) -> Any:
        """Have residency know a component, which is shown in `shell`, or None if its weights are only read."""
        component = self.preset.component(name)
        if name == self.preset.transformer:
            self.transformer = shell
        if shell is not None and component.dtype.startswith("float8"):
            replace_linears(shell, lambda layer: "transformer_blocks." in layer, multiply_on(self.device))
        files = {f"{name}/{file.stem}": FlatFile.open(file) for file in sorted(self.folder(name).glob("*.safetensors"))}
        self.residency.add(name, shell, files, stream=component.stream)
        return shell

    def encoder(
        self, role: str, encode: Callable[[Sequence[str]], list[Embedding]], tokenizer: Any, *, most_tokens: int
    ) -> PromptEncoder:
        """What encodes prompts with the text encoders of a source; arguments as for `PromptEncoder`."""
        location = self.library.locate(self.preset, role)
        recorded = self.library.manifest(location)
        readers = [
            component.name
            for component in self.preset.components
            if component.role == role and component.subfolder.startswith(("text_encoder", "tokenizer"))
        ]
        made_of = json.dumps({name: recorded.get(name) for name in readers}, sort_keys=True)
        identity = f"{role} {location.prepared.name} {made_of} {most_tokens}"
        return PromptEncoder(identity, encode, self.cache, tokenizer, most_tokens)

    def begin_job(self) -> None:
        """Forget that memory was short."""
        self._tile_index = 0
        self._set_tiles()

    def smaller_tiles(self) -> Text | None:
        """Need less memory; tells how, or None when nothing smaller is left."""
        if self._tile_index + 1 >= len(self.preset.vae_tiles):
            return None
        self._tile_index += 1
        self._set_tiles()
        return say("engines.rung_tiles", pixels=self.preset.vae_tiles[self._tile_index])

    def _set_tiles(self) -> None:
        side = self.preset.vae_tiles[self._tile_index]
        for vae in self._vaes:
            vae.enable_tiling()
            vae.tile_sample_min_size = side  # at the trained size, the default, nothing would be tiled
            vae.tile_latent_min_size = side // 2 ** (len(vae.config.block_out_channels) - 1)


def quiet(pipeline: Any) -> Any:
    """The pipeline, without a progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
