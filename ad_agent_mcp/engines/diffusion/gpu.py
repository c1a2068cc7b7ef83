"""The GPU that models will run on, asked of the driver. Imports no model library."""

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from ...files import FileLock


class Gpu(NamedTuple):
    """A GPU, and its memory that a job of ours will find free."""

    name: str
    free_bytes: int


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
