"""A device that counts bytes, runs out of memory and fails when told to; and a report that remembers and cancels."""

import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from ad_agent_mcp.contract.errors import AdAgentError, Cancelled
from ad_agent_mcp.contract.texts import Text
from ad_agent_mcp.engines.diffusion.devices import Device
from ad_agent_mcp.engines.diffusion.flat import FlatFile

CHUNK = 256


class SimulatedDevice(Device):
    """Memory counts as used until its last view is gone."""

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.used = self.peak = self.allocations = self.copies = self.copied = self.chunks = self.flushes = 0
        self.fails = lambda number: False
        self.copy_error: dict[int, Exception] = {}
        self.gates: dict[int, threading.Event] = {}
        self.is_waiting = threading.Event()
        self.registered: dict[int, int] = {}

    def allocate(self, nbytes: int) -> Tensor:
        self.allocations += 1
        if self.fails(self.allocations) or self.used + nbytes > self.capacity:
            raise torch.OutOfMemoryError("simulated")
        memory = np.full(nbytes, 255, np.uint8)
        self.used += nbytes
        self.peak = max(self.peak, self.used)
        weakref.finalize(memory, self._free, nbytes)
        return torch.from_numpy(memory)

    def copy_in(self, target: Tensor, source: Tensor | FlatFile, check) -> None:
        self.copies += 1
        number = self.copies
        error = self.copy_error.get(self.copies)
        if isinstance(source, FlatFile):
            whole = torch.empty(source.nbytes, dtype=torch.uint8)
            source.read_chunk(whole, 0)
            source = whole
        else:
            assert source.data_ptr() in self.registered
        for begin in range(0, target.numel(), CHUNK):
            if gate := self.gates.get(number):
                self.is_waiting.set()
                assert gate.wait(20)
            self.chunks += 1
            target[begin : begin + CHUNK].copy_(source[begin : begin + CHUNK])
            if error is not None:
                raise error
            check(min(begin + CHUNK, target.numel()))
        self.copied += target.numel()

    def register(self, host: Tensor) -> None:
        assert host.data_ptr() not in self.registered
        self.registered[host.data_ptr()] = host.numel()

    def unregister(self, host: Tensor) -> None:
        del self.registered[host.data_ptr()]

    def flush(self) -> None:
        self.flushes += 1

    def _free(self, nbytes: int) -> None:
        self.used -= nbytes


class Recorder:
    """A stage report; `cancel_at` is the number of the message at which the job turns out to be cancelled."""

    def __init__(self, cancel_at: int = 0, before_cancel=lambda: None) -> None:
        self.moves: list[tuple[str, str, int]] = []
        self.notices: list[str] = []
        self.cancel_at = cancel_at
        self.before_cancel = before_cancel

    def iteration(self, done: int, total: int) -> None:
        raise AssertionError("residency iterates nothing")

    def notice(self, code: str, text: Text) -> None:
        assert code == "memory_rung"
        self.notices.append(str(text))

    def model_moved(self, model: str, state: str, *, size_bytes: int = 0, seconds: float = 0.0) -> None:
        self.moves.append((model, state, size_bytes))
        if len(self.moves) == self.cancel_at:
            self.before_cancel()
            raise Cancelled

    def names(self, state: str) -> list[str]:
        return [model for model, told, _ in self.moves if told == state]


def outcome(act) -> BaseException | None:
    """What `act()` raised, without the frames that would keep its tensors."""
    try:
        act()
    except (RuntimeError, OSError, AdAgentError, Cancelled) as error:
        return error.with_traceback(None)
    return None
