"""The processes behind a server: its worker, what it has mapped, and when they are gone."""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil


def worker_of(server: psutil.Process) -> psutil.Process:
    """The one live worker of `server`."""
    (worker,) = (child for child in server.children() if "ad_agent_mcp.worker" in child.cmdline())
    return worker


def mapped_of(process: psutil.Process, libraries: Iterable[str]) -> set[str]:
    """Which of `libraries` have a file of theirs in the memory of `process`."""
    files = [Path(mapped.path) for mapped in process.memory_maps()]
    return {name for name in libraries for file in files if name in file.parts}


def poll(condition: Callable[[], bool], *, every_s: float = 0.002, limit_s: float = 30.0) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: it does not within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(every_s)


def is_listening(port: int) -> bool:
    """Whether a process of this machine takes connections on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone_s(processes: Sequence[psutil.Process], *, after: Callable[[], None]) -> float:
    """Seconds from the kill that `after` is until all of `processes` are gone."""
    start = time.perf_counter()
    after()
    poll(lambda: all(_is_gone(process) for process in processes))
    return time.perf_counter() - start


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
