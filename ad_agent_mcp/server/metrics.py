"""What the machine is doing: CPU and RAM through psutil, GPUs through NVML where there is one."""

import contextlib
import importlib
import logging
import time
from typing import Any

import psutil

from ..contract.schemas import GpuInfo, SystemMetrics

logger = logging.getLogger(__name__)

WANTED_VRAM_GB = 22
"""Free GPU memory that the diffusion engine's default preset wants."""
MAX_AGE_S = 1.0
"""A sample younger than this is given again."""


class SystemMonitor:
    """Samples the machine; owns the NVML handle, which is opened at the first sample."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._looked_for_nvml = False
        self._sample: SystemMetrics | None = None
        self._sampled_at = 0.0
        psutil.cpu_percent(interval=None)  # the first call only sets the reference point

    def sample(self) -> SystemMetrics:
        """The machine now, at most `MAX_AGE_S` old. Blocks for a few milliseconds; longer at the first call."""
        now = time.monotonic()
        if self._sample is None or now - self._sampled_at > MAX_AGE_S:
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
        if not self._looked_for_nvml:
            self._looked_for_nvml = True
            self._nvml = _open_nvml()
        if self._nvml is None:
            return []
        try:
            return [_gpu(self._nvml, index) for index in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError as error:
            logger.warning("NVML failed: %s", error)
            return []


def _open_nvml() -> Any:
    with contextlib.suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            logger.info("no NVIDIA GPU is visible: %s", error)
            return None
        return nvml
    return None


def _gpu(nvml: Any, index: int) -> GpuInfo:
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
