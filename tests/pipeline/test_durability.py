"""What a step made is on the disk, and not only with the system, before its completion is told."""

from pathlib import Path

import pytest

from ad_agent_mcp.files import sha256_of
from ad_agent_mcp.pipeline.render import stack

from ..power_cut import Disk
from .stored import document_of
from .test_run_job import Events, make


class Witness(Events):
    """Looks at the disk when a step is told to be finished."""

    def __init__(self, out_dir: Path, disk: Disk) -> None:
        super().__init__(out_dir)
        self.disk = disk

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        for name, sha256 in files.items():
            content = self.disk.content(self.out_dir / f"{name}.png")
            assert content is not None, f"{name}.png would be lost"
            assert sha256_of(content) == sha256
        document = document_of(self.out_dir)
        for layer in (*stack(document), document.product.matte):
            path = self.out_dir / layer.file
            assert self.disk.content(path) == path.read_bytes(), f"{layer.file} would be lost"
        assert self.disk.content(self.out_dir / "layout.json") == (self.out_dir / "layout.json").read_bytes()
        super().step_finished(step, files, size)


def test_each_finished_step_would_survive_a_power_cut_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = Witness(tmp_path, Disk(monkeypatch))
    make(tmp_path, events=events)
    assert [step for step, _, _ in events.steps] == [1, 2, 3]
