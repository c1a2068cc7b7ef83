"""How much host memory models may use."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ad_agent_mcp.hardware import free_host_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "free_gib"),
    [(f"{32 * GIB}\n", 29), (f"{4 * GIB}\n", 1), (f"{2 * GIB}\n", 0), (f"{512 * GIB}\n", 60), ("max\n", 60)],
)
def test_a_container_s_limit_counts_and_what_its_cached_files_take_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free_gib: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=60 * GIB))
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(f"{10 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {3 * GIB}\ninactive_file {5 * GIB}\nactive_file {2 * GIB}\nfile 1\n")
    assert free_host_bytes(tmp_path) == free_gib * GIB


def test_without_a_container_the_machine_s_free_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=60 * GIB))
    assert free_host_bytes(tmp_path) == 60 * GIB
