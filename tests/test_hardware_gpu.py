"""Which GPU models will find, and how much of its memory, as the driver tells it."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ad_agent_mcp.files import FileLock
from ad_agent_mcp.hardware import visible_gpu

GIB = 2**30


class DriverError(Exception):
    """What the fake raises."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """NVML with two GPUs of 24 GiB, of which 1 and 2 are free; `is_there` can be taken away.

    On the PCI bus they come in the order of `places`; a GPU that is not there has failed.
    """
    state = SimpleNamespace(is_there=True, places={0: (0, 1, 0), 1: (0, 2, 0)})

    def init() -> None:
        if not state.is_there:
            raise DriverError

    def by_index(index: int) -> int:
        if index not in state.places:
            raise DriverError
        return index

    def pci(handle: int) -> SimpleNamespace:
        return SimpleNamespace(**dict(zip(("domain", "bus", "device"), state.places[handle], strict=True)))

    fake: Any = ModuleType("pynvml")
    fake.NVMLError = DriverError
    fake.nvmlInit = init
    fake.nvmlShutdown = lambda: None
    fake.nvmlDeviceGetHandleByIndex = by_index
    fake.nvmlDeviceGetCount = lambda: 2
    fake.nvmlDeviceGetPciInfo = pci
    fake.nvmlDeviceGetUUID = ["GPU-a0", b"GPU-b1"].__getitem__
    fake.nvmlDeviceGetHandleByUUID = {"MIG-c2": 1}.__getitem__
    fake.nvmlDeviceGetName = lambda handle: f"Fake {handle}".encode()
    fake.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(free=(handle + 1) * GIB, total=24 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return state


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, "Fake 0"),
        ("1,0", "Fake 1"),
        ("GPU-b1", "Fake 1"),
        ("GPU-b", "Fake 1"),
        ("GPU-c", None),
        ("MIG-c2", "Fake 1"),
        ("MIG-x", None),
        ("", None),
        ("-1", None),
        ("7", None),
        ("all", None),
    ],
)
def test_it_is_the_first_one_that_cuda_shows(
    visible: str | None, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = visible_gpu(tmp_path / "lock")
    assert (gpu and gpu.name) == found


@pytest.mark.parametrize("places", [{0: (0, 0x81, 0), 1: (0, 1, 0)}, {0: (1, 1, 0), 1: (0, 2, 0)}])
def test_numbers_are_those_of_the_pci_bus_whatever_order_the_driver_has(
    places: dict[int, tuple[int, int, int]], driver: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver.places = places
    found = []
    for visible in ("0", "1", "GPU-a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        gpu = visible_gpu(tmp_path / "lock")
        assert gpu is not None
        found.append((gpu.name, gpu.free_bytes // GIB))
    assert found == [("Fake 1", 2), ("Fake 0", 1), ("Fake 0", 1)]


def test_a_gpu_that_has_failed_does_not_hide_the_other(driver: SimpleNamespace, tmp_path: Path):
    del driver.places[0]
    gpu = visible_gpu(tmp_path / "lock")
    assert gpu is not None
    assert gpu.name == "Fake 1"


def test_without_a_driver_there_is_none(driver: SimpleNamespace, tmp_path: Path):
    driver.is_there = False
    assert visible_gpu(tmp_path / "lock") is None


@pytest.mark.usefixtures("driver")
def test_what_another_server_has_loaded_counts_as_free(tmp_path: Path):
    lock = FileLock(tmp_path / "lock")
    told = []
    for change in (lock.try_acquire, lock.release):
        change()
        gpu = visible_gpu(lock.path)
        assert gpu is not None
        told.append(gpu.free_bytes // GIB)
    assert told == [24, 1]
