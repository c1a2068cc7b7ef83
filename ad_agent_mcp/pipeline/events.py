"""What a running job tells, and to whom: the pipeline's side of it."""

from typing import Protocol

from ..contract.stages import Stage
from ..contract.texts import Text
from ..engines.base import StageReport


class JobEvents(Protocol):
    """Where a running job tells what happens."""

    def open_stage(self, stage: Stage) -> StageReport:
        """`stage` begins, which is told. Its report's last `iteration(total, total)` closes it."""
        ...

    def notice(self, code: str, text: Text) -> None:
        """Warn the caller."""

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        """A step's layers are on disk: layer names with their SHA-256, and the canvas (width, height)."""
