"""GPUs as NVML tells of them: none, several, failing ones; and what too little free memory means."""

import logging
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from ad_agent_mcp.hardware import SystemMonitor

pytestmark = pytest.mark.anyio
GIB = 2**30


class DriverError(Exception):
    """What the fake raises."""


class FakeNvml:
    """NVML with one GPU per number of free GiB, each of 24; `broken` names what fails."""

    NVMLError: type[Exception] = DriverError

    def __init__(self, *free_gb: float, broken: Sequence[str] = ()) -> None:
        self.free_gb = free_gb
        self.broken = set(broken)
        self.sessions = 0

    def _try(self, what: str) -> None:
        if what in self.broken:
            raise DriverError(what)

    def nvmlInit(self) -> None:
        self._try("driver")
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self._try("driver")

    def nvmlDeviceGetCount(self) -> int:
        self._try("driver")
        return len(self.free_gb)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._try(f"gpu {index}")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "Fake L4"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=24 * GIB, used=int((24 - self.free_gb[handle]) * GIB))

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        self._try("utilization")
        return SimpleNamespace(gpu=37)


Monitor = Callable[[FakeNvml], SystemMonitor]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Monitor:
    """Makes monitors that look again at every call."""

    def make(nvml: FakeNvml) -> SystemMonitor:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return SystemMonitor(max_age_s=-1)

    return make


def test_each_gpu_is_told_with_its_memory(fresh: Monitor):
    gpus = fresh(FakeNvml(24, 6)).sample().gpu_info
    assert [(gpu.index, gpu.vram_used_mb, gpu.vram_total_mb, gpu.vram_percent) for gpu in gpus] == [
        (0, 0, 24576, 0.0),
        (1, 18432, 24576, 75.0),
    ]
    assert {(gpu.name, gpu.utilization) for gpu in gpus} == {("Fake L4", 37)}


def test_a_gpu_without_utilization_is_no_trouble(fresh: Monitor):
    (gpu,) = fresh(FakeNvml(24, broken=["utilization"])).sample().gpu_info
    assert (gpu.name, gpu.utilization) == ("Fake L4", 0)


@pytest.mark.parametrize("nvml", [FakeNvml(), FakeNvml(24, broken=["driver"])], ids=["none", "no driver"])
def test_a_machine_without_a_gpu_has_metrics_all_the_same(
    nvml: FakeNvml, fresh: Monitor, caplog: pytest.LogCaptureFixture
):
    metrics = fresh(nvml).sample()
    assert metrics.gpu_info == []
    assert metrics.ram_total_gb > 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_one_failing_gpu_does_not_hide_the_others(fresh: Monitor, caplog: pytest.LogCaptureFixture):
    monitor = fresh(FakeNvml(24, 24, 24, broken=["gpu 1"]))
    for _ in range(3):
        assert [gpu.index for gpu in monitor.sample().gpu_info] == [0, 2]
    assert [record.getMessage() for record in caplog.records] == ["GPU 1 cannot be read: gpu 1"]


def test_a_lost_driver_is_reported_once_and_found_again_when_it_is_back(
    fresh: Monitor, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    nvml = FakeNvml(24)
    monitor = fresh(nvml)
    assert monitor.sample().gpu_info
    nvml.broken = {"driver"}
    assert [monitor.sample().gpu_info for _ in range(3)] == [[], [], []]
    nvml.broken = set()
    assert monitor.sample().gpu_info
    assert nvml.sessions == 2
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [("WARNING", "NVML cannot be read: driver"), ("INFO", "NVML can be read again")]


def test_a_sample_is_given_again_while_it_is_young(monkeypatch: pytest.MonkeyPatch):
    nvml = FakeNvml(24)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monitor = SystemMonitor(max_age_s=3600)
    first = monitor.sample()
    nvml.broken = {"driver"}
    assert monitor.sample() is first
