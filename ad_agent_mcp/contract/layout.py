"""`layout.json`: what a job's layers show and where, so that they can be resumed, checked and edited.

Boxes are `(x, y, width, height)` in pixels of the canvas unless said otherwise.
"""

from typing import Literal

from pydantic import Field

from .record import Record
from .schemas import Check

Box = tuple[int, int, int, int]


class ProductLayout(Record):
    """The product: `source_box` in the decoded original (upright), `placed_box` on the canvas.

    `source_error` is the largest difference, in levels of 255, of the placed core from a plain resize of
    the original, measured when it was placed. `side` is where words were to stand when it was.
    """

    source_box: Box
    placed_box: Box
    route: Literal["alpha", "plain", "clutter", "model"]
    confidence: float
    source_error: float | None = None
    side: str | None = None


class TextLine(Record):
    """One line of words and its ink box within the lettering picture (`step2.png`)."""

    text: str
    box: Box


class TextLayout(Record):
    """The words: `size` of the lettering picture; `placed_box` is where its ink lies in `final.png`.

    `sha256` is that of the lettering picture's pixels as PNG, so that another picture is told apart.
    """

    content: str
    font_name: str
    font_size_px: int
    lines: tuple[TextLine, ...]
    size: tuple[int, int]
    sha256: str | None = None
    placed_box: Box | None = None
    mode: str | None = None
    position: str | None = None


class LettersLayout(Record):
    """The lettering picture in `final.png`, whoever painted it: its ink's `box`, its `scale`, what lies in front."""

    box: Box
    scale: float
    is_behind: bool


class Layout(Record):
    """One job's picture as a document.

    It is written after a step's layers, so what it calls finished is on disk: `finished` maps steps of job
    `job_id` to their layers' SHA-256.
    """

    version: Literal[1] = 1
    job_id: str = ""
    finished: dict[int, dict[str, str]] = Field(default_factory=dict[int, dict[str, str]])
    checks: tuple[Check, ...] = ()
    canvas: tuple[int, int]
    engine: str
    seed: int
    inputs: dict[str, str]
    """SHA-256 of each input picture by its field name."""
    scene: str | None = None
    light_x: float | None = None
    """Where the scene's light comes from, -1 (left) to 1 (right)."""
    product: ProductLayout | None = None
    text: TextLayout | None = None
    letters: LettersLayout | None = None
