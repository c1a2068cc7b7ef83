"""What a preset of models is: where they come from, what they are prepared into, what each stage runs. Types alone.

Knows nothing about files, networks or devices, and imports no model library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..contract.stages import Stage, StageInfo
from .schedule import Stream, Use

GIB = 2**30
MEGAPIXEL = 2**20
ENCODE = "encode"
"""Every prompt of the job becomes numbers, before the first stage that paints."""


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
        tensors: a pattern that the names of its weights have, where it is not all of the network's.
    """

    name: str
    role: str
    subfolder: str
    network: str = ""
    dtype: str = ""
    nominal_gib: tuple[float, ...] = ()
    stream: Stream | None = None
    tensors: str = ""


@dataclass(frozen=True)
class Activation:
    """Device memory that a stage needs beside the weights.

    What grows with the picture and what a VAE tile of 512 takes, `tile_gib`, are not there at the same time.
    """

    fixed_gib: float
    gib_per_megapixel: float = 0.0
    tile_gib: float = 0.0

    def bytes_at(self, pixels: int) -> int:
        return int((self.fixed_gib + max(self.tile_gib, self.gib_per_megapixel * pixels / MEGAPIXEL)) * GIB)


class Run(NamedTuple):
    """The models that a stage runs, `transformer` for the preset's own, and what it needs beside their weights."""

    models: tuple[str, ...]
    activation: Activation


@dataclass(frozen=True)
class Family:
    """Models that belong together, as data; how they are run is the module of this name in `engines/diffusion`.

    Attributes:
        components: all that its presets have; of those called `transformer-...` each has one.
        runs: what its stages run.
        infos: its stages that clients see.
        encoders: components that read prompts.
        before: stages of its own, in `runs` alone, that come before the first that clients see.
        unused: request fields that it has no use for.
        unused_without: more of them, by the setting of the transformer's configuration without which it has none.
    """

    name: str
    components: tuple[Component, ...]
    runs: Mapping[str, Run]
    infos: Mapping[Stage, StageInfo]
    encoders: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unused_without: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class Preset:
    """A choice of models and of how they run.

    Attributes:
        families: the first one paints scenes.
        steps: its steps where the caller names none.
        blend_steps: the same for the blend; None: the published default. A model of few steps wants so many that the
            default `composition_strength` leaves it all of those that it is made for.
        text_steps: the same for SDXL.
        text_guidance: classifier-free guidance of SDXL.
        edge_scale: how strongly the letters' outlines steer SDXL; 1 is full.
        max_sequence_length: tokens of a scene's prompt, always filled up, so that compiled code is used again.
        vae_tiles: side of a VAE tile in pixels, and the smaller ones to try when memory is short.
        activation: what a pass of the transformer needs; None: as its family says.
    """

    name: str
    title: str
    families: tuple[Family, ...]
    transformer: str
    sources: tuple[Source, ...]
    steps: int = 28
    blend_steps: int | None = None
    text_steps: int = 28
    text_guidance: float = 7.0
    edge_scale: float = 0.8
    max_sequence_length: int = 512
    vae_tiles: tuple[int, ...] = (512, 256)
    activation: Activation | None = None

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """All that the preset runs on."""
        own = (component for family in self.families for component in family.components)
        return tuple(c for c in own if not c.name.startswith("transformer-") or c.name == self.transformer)

    @cached_property
    def preset_values(self) -> Mapping[str, int]:
        """Request fields that have another value than the published one where the caller gives none."""
        if self.blend_steps is None:
            return {}
        return {"num_inference_steps": self.steps, "composition_steps": self.blend_steps}

    def component(self, name: str) -> Component:
        return next(component for component in self.components if component.name == name)

    def source(self, role: str) -> Source:
        return next(source for source in self.sources if source.role == role)

    def use(self, stage: str, pixels: int) -> Use:
        """What `stage` needs on the device for a picture of `pixels`: nothing, if it runs no models."""
        models, activation = self._runs.get(stage, Run((), Activation(0)))
        if self.activation is not None and stage in self.families[0].infos:
            activation = self.activation
        names = tuple(self.transformer if name == "transformer" else name for name in models)
        return Use(stage, names, activation.bytes_at(pixels))

    def uses(self, stages: tuple[Stage, ...], pixels: int, *, has_new_words: bool = True) -> list[Use]:
        """Everything that runs models in a job of `stages`, in order.

        Args:
            stages: of the job, in order. Without step 1 the product may have to be found in the picture that is there.
            pixels: of the picture.
            has_new_words: whether prompts have to be encoded.
        """
        order: list[str] = [] if Stage.CUT_OUT in stages else [Stage.CUT_OUT]
        for stage in stages:
            for family in (family for family in self.families if stage in family.infos):
                order += [ENCODE] if family.encoders and has_new_words else []
                order += family.before
            order.append(stage)
        uses = (self.use(stage, pixels) for stage in dict.fromkeys(order))
        return [use for use in uses if use.models]

    @cached_property
    def _runs(self) -> Mapping[str, Run]:
        encoders = tuple(name for family in self.families for name in family.encoders)
        runs: dict[str, Run] = {ENCODE: Run(encoders, Activation(0.8))}
        for family in self.families:
            runs |= family.runs
        return runs
