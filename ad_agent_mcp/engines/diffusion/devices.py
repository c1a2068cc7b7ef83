# pyright: basic
"""Where weights are used: memory for them, and the ways into it. Knows nothing about models."""

import contextlib
import gc
import mmap
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .flat import FlatFile

Check = Callable[[int], None]
"""Told the bytes done so far, from time to time; what it raises ends the work."""


def host_memory(nbytes: int) -> Tensor:
    """uint8 (nbytes,) on the CPU, in huge pages where the system has them.

    Those are touched and registered in half the time of small ones, and when a process is killed they are free in a
    quarter of it; the device's memory is free only after them.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # too little memory, or a kernel without: torch does it, or says why not
            pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(pages, dtype=torch.uint8)
    return torch.empty(nbytes, dtype=torch.uint8)


class Device:
    """What residency asks of a device; this one is the CPU. A second thread calls only `copy_in` and `register`.

    On the CPU a host copy of what is in host memory gains nothing: give residency no host budget.
    """

    torch_device = torch.device("cpu")

    def allocate(self, nbytes: int) -> Tensor:
        """uint8 (nbytes,) on the device. Raises `torch.OutOfMemoryError`."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def copy_in(self, target: Tensor, source: Tensor | FlatFile, check: Check) -> None:
        """Fill `target` from host memory or a file; nothing is under way any more when it returns or raises."""
        if isinstance(source, FlatFile):
            source.read_into(target, check=check)
        else:
            target.copy_(source)

    def register(self, host: Tensor) -> None:
        """Make copies from `host` fast, where that can be done; until `unregister`, which must follow."""

    def unregister(self, host: Tensor) -> None:
        """End what `register` began."""

    def reading(self, file: FlatFile, groups: Sequence[Sequence[str]]) -> Generator[Mapping[str, Tensor]]:
        """Tensors of `file` in host memory, group by group in this order; each is good until the next is asked for."""
        views = file.views(file.mapped())
        for _ in groups:
            yield views

    def flush(self) -> None:
        """Give back to the driver whatever is not in use."""
        gc.collect()


class CudaDevice(Device):
    """A CUDA GPU. Copies run on a stream of their own, beside what is computed.

    Args:
        index: which GPU.
        cap_bytes: most memory that torch may reserve, its cache of freed blocks included; torch raises
            `OutOfMemoryError` above it. Residency's budget must be a little lower, because blocks are rounded up.
    """

    COPY_BYTES = 1 << 30
    READ_BYTES = 16 << 20
    BLOCK_BYTES = 32 << 20
    BLOCKS = 8

    def __init__(self, *, cap_bytes: int, index: int = 0) -> None:
        self.torch_device = torch.device("cuda", index)
        total = torch.cuda.get_device_properties(self.torch_device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap_bytes / total), self.torch_device)
        self._copies = torch.cuda.Stream(self.torch_device)
        self._ring: Tensor | None = None

    def allocate(self, nbytes: int) -> Tensor:
        """See `Device`; call it from the thread that computes."""
        # torch gives freed blocks back by itself before it would go over the cap, and not while one of them fits.
        buffer = torch.empty(nbytes, dtype=torch.uint8, device=self.torch_device)
        # The block may have been freed by kernels that are still queued: the copy must come after them.
        self._copies.wait_stream(torch.cuda.current_stream(self.torch_device))
        return buffer

    def copy_in(self, target: Tensor, source: Tensor | FlatFile, check: Check) -> None:
        """See `Device`. It waits for its stream, so no event is left to wait for and `target` may be freed at once."""
        with torch.cuda.stream(self._copies):
            try:
                if isinstance(source, FlatFile):
                    self._read(target, source, check)
                else:
                    for begin in range(0, target.numel(), self.COPY_BYTES):
                        part = slice(begin, begin + self.COPY_BYTES)
                        target[part].copy_(source[part], non_blocking=True)
                        self._copies.synchronize()
                        check(min(begin + self.COPY_BYTES, target.numel()))
            finally:
                self._copies.synchronize()

    def register(self, host: Tensor) -> None:
        """See `Device`; memory that cannot be locked works too, slower."""
        if int(_runtime().cudaHostRegister(host.data_ptr(), host.numel(), 0)):
            _clear_error(self.torch_device)

    def unregister(self, host: Tensor) -> None:
        """See `Device`."""
        torch.cuda.synchronize(self.torch_device)
        if int(_runtime().cudaHostUnregister(host.data_ptr())):
            _clear_error(self.torch_device)

    def reading(self, file: FlatFile, groups: Sequence[Sequence[str]]) -> Generator[Mapping[str, Tensor]]:
        """See `Device`: `BLOCKS` threads read the next group while the last one is copied from registered memory."""
        specs = [[file.tensors[name] for name in names] for names in groups]
        spans = [(min(spec.begin for spec in group), max(spec.end for spec in group)) for group in specs]
        slots = host_memory(2 * max(end - begin for begin, end in spans)).view(2, -1)
        self.register(slots)

        def read(turn: int) -> list[Future[None]]:
            begin, end = spans[turn]
            parts = slots[turn % 2][: end - begin].split(self.READ_BYTES)
            return [pool.submit(file.read_chunk, part, begin + n * self.READ_BYTES) for n, part in enumerate(parts)]

        try:
            with ThreadPoolExecutor(self.BLOCKS) as pool:
                coming = read(0)
                for turn, names in enumerate(groups):
                    torch.cuda.synchronize(self.torch_device)  # the slot of the group before is free from here on
                    for part in coming:
                        part.result()
                    coming = read(turn + 1) if turn + 1 < len(groups) else []
                    yield file.views(slots[turn % 2], names, begin=spans[turn][0])
        finally:
            self.unregister(slots)

    def flush(self) -> None:
        """See `Device`."""
        if self._ring is not None:
            self.unregister(self._ring)
            self._ring = None
        gc.collect()
        torch.cuda.empty_cache()

    def _read(self, target: Tensor, file: FlatFile, check: Check) -> None:
        """From the disk through a ring of registered blocks: `BLOCKS` threads read, this one starts the copies."""
        if self._ring is None:
            ring = host_memory(self.BLOCKS * self.BLOCK_BYTES)
            self.register(ring)
            self._ring = ring
        blocks = self._ring.split(self.BLOCK_BYTES)
        copied = [torch.cuda.Event() for _ in blocks]  # one that was never recorded counts as past
        begins = range(0, target.numel(), self.BLOCK_BYTES)

        def read(number: int) -> Tensor:
            begin = begins[number]
            block = blocks[number % self.BLOCKS][: target.numel() - begin]
            copied[number % self.BLOCKS].synchronize()
            file.read_chunk(block, begin)
            return block

        with ThreadPoolExecutor(self.BLOCKS) as pool:
            reads = [pool.submit(read, number) for number in range(min(self.BLOCKS, len(begins)))]
            try:
                for number, begin in enumerate(begins):
                    block = reads[number].result()
                    target[begin : begin + self.BLOCK_BYTES].copy_(block, non_blocking=True)
                    copied[number % self.BLOCKS].record()
                    if number + self.BLOCKS < len(begins):
                        reads.append(pool.submit(read, number + self.BLOCKS))
                    check(min(begin + self.BLOCK_BYTES, target.numel()))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less memory in use would have helped; a CUDA error that breaks the process is none of these."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    texts = ("_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")  # cuBLAS and cuDNN; the CPU
    return type(error) is RuntimeError and any(text in str(error) for text in texts)


def _runtime() -> Any:
    return torch.cuda.cudart()


def _clear_error(device: torch.device) -> None:
    """Take back the error that a refused call leaves for this thread's next kernel to stumble on."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device)
