# pyright: basic
"""What the engine asks of a family of models that paints."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image

from ...contract.stages import Stage
from ...imaging.picture import Picture
from ..base import StageReport
from .text import PromptEncoder


class Pass(NamedTuple):
    """What one stage is to paint in this job.

    Attributes:
        prompts: what the model is given to read: what to paint, and for some models what not to.
        steps: as if it began with noise.
        guidance: `guidance_scale`.
        strength: how far a given picture is painted over, which leaves the first steps out; None: it begins with noise.
    """

    prompts: tuple[str, ...]
    steps: int
    guidance: float
    strength: float | None = None

    @property
    def iterations(self) -> int:
        """How many of `steps` run."""
        return self.steps if self.strength is None else self.steps - int(self.steps - self.steps * self.strength)


class Work(NamedTuple):
    """One pass as it is painted.

    Attributes:
        stage: which pass of the job.
        size: width and height, as `Painter.painted_size` gave them.
        generator: makes the noise.
        on_step: `callback_on_step_end` of diffusers.
        pictures: `image` and `mask_image`, of the same size, where the stage has them.
    """

    stage: Stage
    size: tuple[int, int]
    generator: torch.Generator
    on_step: Callable[..., dict[str, Any]]
    pictures: dict[str, Image.Image]


class Painter(ABC):
    """One family; its module defines `text` and `paint`, and what else is not as it is here. For the engine's thread.

    In a job it is begun, its prompts are encoded by `text`, and before each pass it is prepared.
    """

    text: PromptEncoder

    def begin(self, passes: Mapping[Stage, Pass]) -> None:
        """A job with these passes of this family, in their order."""
        self.passes = passes

    def preparation(self, size: tuple[int, int]) -> tuple[str, Callable[[StageReport], None]] | None:
        """What has to run before a pass at `size`: the family's stage in which it does, and how."""
        return None

    def painted_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size at which it paints what is wanted at `size` (width, height)."""
        return size

    @abstractmethod
    def paint(self, work: Work) -> Picture:
        """One pass: RGB of `work.size`."""

    def forget(self) -> None:
        """Let go of what the job has on the device beside weights."""
        self.text.forget()
