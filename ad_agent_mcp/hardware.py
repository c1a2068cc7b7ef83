"""What the machine is doing: CPU and RAM through psutil, GPUs through NVML where there is one."""

import contextlib
import logging
import time
from typing import Any

import psutil

from .contract.schemas import GpuInfo, SystemMetrics

logger = logging.getLogger(__name__)


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
