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
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    with contextlib.suppress(nvml.NVMLError, ValueError):
        nvml.nvmlInit()
        try:
            by_uuid = first.startswith(("GPU-", "MIG-"))
            handle = nvml.nvmlDeviceGetHandleByUUID(first) if by_uuid else nvml.nvmlDeviceGetHandleByIndex(int(first))
            name = nvml.nvmlDeviceGetName(handle)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            free = memory.free if FileLock.is_free(lock) else memory.total
            return Gpu(name.decode() if isinstance(name, bytes) else name, free)
        finally:
            nvml.nvmlShutdown()
    return None
