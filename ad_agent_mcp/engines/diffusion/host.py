"""The host's memory that copies of models may use. Imports no model library."""

from pathlib import Path

import psutil


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
