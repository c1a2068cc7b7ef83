"""What an engine is: the image operations that the pipeline calls. Knows nothing about jobs or processes.

Pictures are numpy arrays: RGB `uint8 (H, W, 3)`, RGBA `uint8 (H, W, 4)` with straight alpha, mattes
`float32 (H, W)` in [0, 1]. Every operation takes a `StageReport`, calls `iteration` after each of its
iterations and lets the `Cancelled` that may come out of it pass.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from ..contract.ad import CompositionMode
from ..contract.call import GenerateRequest
from ..contract.document import Box
from ..contract.stages import EngineName, Plan
from ..contract.texts import Text
from ..imaging.cutout import CutOut
from ..imaging.picture import Matte, Picture

MoveState = Literal["loading", "loaded", "unloaded"]


class StageReport(Protocol):
    """How a stage tells what it does."""

    def iteration(self, done: int, total: int) -> None:
        """`done` of `total` iterations are finished. Raises `Cancelled` when the job is to stop."""

    def notice(self, code: str, text: Text) -> None:
        """Warn the caller: something asked for had no effect, or a fallback was taken."""

    def model_moved(self, model: str, state: MoveState, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        """A model begins to load, is on the device, or has left it. Raises `Cancelled` like `iteration`."""


@dataclass(frozen=True)
class Scene:
    """A painted background.

    Attributes:
        image: RGB, the canvas size.
        name: what was painted, as reported to the caller.
        floor_y: height of the floor line on which a product stands, as a share of the canvas.
        light_x: where the key light comes from, -1 (left) to 1 (right).
        light_z: whether it comes from behind the product (-1) or from before it (1).
        cast: 0-1, how strong a shadow falls along the floor.
        gloss: 0-1, how strongly the floor mirrors the product.
        palette: its colours as `#rrggbb`: in the light, in the shade, accent; empty where a model chose them.
    """

    image: Picture
    name: str
    floor_y: float
    light_x: float
    light_z: float = 1.0
    cast: float = 1.0
    gloss: float = 0.0
    palette: tuple[str, ...] = ()


class Engine(Protocol):
    """One way to make the pictures of an ad."""

    @property
    def name(self) -> EngineName:
        """What it is called."""
        ...

    @property
    def holds_device(self) -> bool:
        """Whether any of its models lies on the device."""
        ...

    def prepare(self, plan: Plan, request: GenerateRequest) -> None:
        """The whole job, before its first stage: which stages, how many iterations, all prompts."""

    def cut_out(self, photo: Picture, *, product_box: Box | None, report: StageReport) -> CutOut:
        """Cut the product out of an RGB or RGBA `photo`; real alpha is honoured."""
        ...

    def paint_background(
        self, request: GenerateRequest, *, size: tuple[int, int], product: CutOut, seed: int, report: StageReport
    ) -> Scene:
        """Paint the empty scene at `size` (width, height); `product` lends its colours."""
        ...

    def refine(self, image: Picture, *, seed: int, report: StageReport) -> Picture:
        """Unify product and scene; a locked product's pixels are put back by the pipeline."""
        ...

    def paint_text(self, mask: Matte, *, request: GenerateRequest, seed: int, report: StageReport) -> Picture:
        """Give the flat glyph `mask` its look.

        Returns:
            RGBA of the same size; letters may be shaded and extruded, never respelled.
        """
        ...

    def cut_out_text(self, painting: Picture, mask: Matte, *, report: StageReport) -> Picture:
        """Free painted letters of what was painted around them; only where the plan has that stage.

        Returns:
            RGBA of the same size; alpha stays within the slightly widened glyph `mask`.
        """
        ...

    def blend_text(
        self, image: Picture, letters: Picture, *, mode: CompositionMode, seed: int, report: StageReport
    ) -> Picture:
        """Lay `letters` (RGBA on the canvas) over `image` (RGB) and make them belong to it.

        Returns:
            RGB of the same size. Pixels far from the letters may change and are put back by the pipeline,
            which also brings the product to the front for `behind`.
        """
        ...

    def unload(self) -> None:
        """Let go of everything that occupies the device."""

    def preload(self, report: StageReport) -> None:
        """Bring what a job needs first to the device, before there is one."""

    def is_usable(self) -> bool:
        """Whether another job can run after one that failed; a broken GPU context only ends with its process."""
        ...
