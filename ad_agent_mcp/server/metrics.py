"""What the machine is doing: CPU and RAM through psutil, GPUs through NVML where there is one."""

import contextlib
import importlib
import logging
import time
from typing import Any, Protocol

import psutil

from ..contract.schemas import GpuInfo, SystemMetrics

logger = logging.getLogger(__name__)

MAX_AGE_S = 1.0
"""A sample younger than this is given again."""


class Nvml(Protocol):
    """What is used of `pynvml`; each call may raise its `NVMLError`."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...


class SystemMonitor:
    """Samples the machine; owns the NVML session, which is opened at the first sample."""

    def __init__(self, nvml: Nvml | None = None, *, max_age_s: float = MAX_AGE_S) -> None:
        """`nvml` is pynvml, unless a test has another."""
        self._nvml = nvml
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
        if self._nvml is None:
            pynvml: Any = importlib.import_module("pynvml")
            self._nvml = pynvml
        nvml: Nvml = self._nvml
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


def _gpu(nvml: Nvml, index: int) -> GpuInfo:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    try:
        utilization = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # some virtual GPUs do not tell
        utilization = 0
    return GpuInfo(
        index=index,
        name=name.decode() if isinstance(name, bytes) else name,
        vram_used_mb=memory.used >> 20,
        vram_total_mb=memory.total >> 20,
        vram_percent=round(100 * memory.used / memory.total, 1) if memory.total else 0.0,
        utilization=utilization,
    )
