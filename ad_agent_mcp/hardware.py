"""The machine: CPU and memory through psutil, GPUs through NVML where there is one. Imports no model library."""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pydantic import BaseModel

from .files import FileLock

logger = logging.getLogger(__name__)


class GpuInfo(BaseModel):
    """One GPU as NVML sees it; memory in MiB, percentages 0-100."""

    index: int
    name: str
    vram_used_mb: int
    vram_total_mb: int
    vram_percent: float
    utilization: int


class SystemMetrics(BaseModel):
    """The machine now; memory in GiB, percentages 0-100."""

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    gpu_info: list[GpuInfo]


class Gpu(NamedTuple):
    """A GPU, and its memory that a job of ours will find free."""

    name: str
    free_bytes: int


class Machine(NamedTuple):
    """What models find: the GPU that they get, None where CUDA shows none, and the host's free memory."""

    gpu: Gpu | None
    free_host_bytes: int


class SystemMonitor:
    """Samples the machine; owns the NVML session, which is opened at the first sample."""

    def __init__(self, *, max_age_s: float = 1.0) -> None:
        """`max_age_s`: a sample younger than this is given again."""
        self._max_age_s = max_age_s
        self._is_open = False
        self._failing: set[str] = set()
        self._sample: SystemMetrics | None = None
        self._sampled_at = 0.0
        psutil.cpu_percent(interval=None)  # the first call only sets the reference point

    def sample(self) -> SystemMetrics:
        """The machine now, at most `max_age_s` old. Blocks for a few milliseconds; longer at the first call."""
        now = time.monotonic()
        if self._sample is None or now - self._sampled_at > self._max_age_s:
            memory = psutil.virtual_memory()
            self._sample = SystemMetrics(
                cpu_percent=psutil.cpu_percent(interval=None),
                ram_used_gb=round((memory.total - memory.available) / 2**30, 2),
                ram_total_gb=round(memory.total / 2**30, 2),
                ram_percent=memory.percent,
                gpu_info=self._gpus(),
            )
            self._sampled_at = now
        return self._sample

    def _gpus(self) -> list[GpuInfo]:
        import pynvml  # pyright: ignore[reportMissingTypeStubs]  # not at start, which it would slow down

        nvml: Any = pynvml
        found: list[GpuInfo] = []
        failures: dict[str, Exception] = {}
        try:
            if not self._is_open:
                nvml.nvmlInit()
                self._is_open = True
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    found.append(_gpu(nvml, index))
                except nvml.NVMLError as error:
                    failures[f"GPU {index}"] = error
        except nvml.NVMLError as error:
            failures["NVML"] = error
        self._tell(failures)
        if failures and not found and self._is_open:  # a driver that comes back wants a new session
            self._is_open = False
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()
        return found

    def _tell(self, failures: dict[str, Exception]) -> None:
        """Log what begins to fail, and what has recovered, once."""
        for what in failures.keys() - self._failing:
            level = logging.WARNING if self._is_open else logging.INFO  # most machines have no NVIDIA driver
            logger.log(level, "%s cannot be read: %s", what, failures[what])
        for what in self._failing - failures.keys() if "NVML" not in failures else ():
            logger.info("%s can be read again", what)
        self._failing = set(failures)


def this_machine(lock: Path) -> Machine:
    """What models find here now; `lock` is the device's, as for `visible_gpu`."""
    return Machine(visible_gpu(lock), free_host_bytes())


def visible_gpu(lock: Path) -> Gpu | None:
    """The first GPU that CUDA would show this process; None where there is none, or no driver.

    While another server of ours holds `lock`, all memory counts as free: it will be when it is our turn.
    """
    import pynvml  # pyright: ignore[reportMissingTypeStubs]

    nvml: Any = pynvml
    with contextlib.suppress(nvml.NVMLError, ValueError, LookupError):
        nvml.nvmlInit()
        try:
            handle = _first_visible(nvml, os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip())
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            free = memory.free if FileLock.is_free(lock) else memory.total
            return Gpu(_text(nvml.nvmlDeviceGetName(handle)), free)
        finally:
            nvml.nvmlShutdown()
    return None


def free_host_bytes(control_group: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory of the machine, or of the container where that has less: beyond it the kernel kills.

    Args:
        control_group: where Linux (cgroup v2) tells what this process and its siblings may use and do use.
    """
    free = psutil.virtual_memory().available
    try:
        limit = int((control_group / "memory.max").read_text("ascii"))  # without a limit it says "max"
        used = int((control_group / "memory.current").read_text("ascii"))
        lines = (control_group / "memory.stat").read_text("ascii").splitlines()
        cached = sum(int(line.split()[1]) for line in lines if line.startswith(("active_file ", "inactive_file ")))
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used + cached))


def _first_visible(nvml: Any, name: str) -> Any:
    """NVML's handle of what CUDA calls `name`: a place in the order of PCI buses, or the beginning of a UUID.

    NVML promises no order of its own, and CUDA counts by PCI bus because a worker's CUDA_DEVICE_ORDER says so.

    Raises:
        LookupError: there is none of that name.
        ValueError: it is no such name.
    """
    if name.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    by_bus: dict[tuple[int, ...], Any] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):  # one that has failed is not shown by CUDA either
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            pci = nvml.nvmlDeviceGetPciInfo(handle)
            by_bus[pci.domain, pci.bus, pci.device] = handle
    handles = [by_bus[place] for place in sorted(by_bus)]
    if name.startswith("GPU-"):
        handles, name = [one for one in handles if _text(nvml.nvmlDeviceGetUUID(one)).startswith(name)], "0"
    return dict(enumerate(handles))[int(name)]


def _text(told: str | bytes) -> str:
    return told.decode() if isinstance(told, bytes) else told


def _gpu(nvml: Any, index: int) -> GpuInfo:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        utilization = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # some virtual GPUs do not tell
        utilization = 0
    return GpuInfo(
        index=index,
        name=nvml.nvmlDeviceGetName(handle),
        vram_used_mb=memory.used >> 20,
        vram_total_mb=memory.total >> 20,
        vram_percent=round(100 * memory.used / memory.total, 1) if memory.total else 0.0,
        utilization=utilization,
    )
