"""A fresh place for each test's servers."""

from pathlib import Path

import pytest

from .support import Place


@pytest.fixture
def place(tmp_path: Path, pictures: Path) -> Place:
    return Place(tmp_path / "data", pictures)
