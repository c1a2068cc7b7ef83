import contextlib
import mmap
import threading

import psutil
import pytest
import torch

from ad_agent_mcp.contract.errors import Cancelled
from ad_agent_mcp.engines.diffusion import devices
from ad_agent_mcp.engines.diffusion.devices import CudaDevice, host_memory, is_out_of_memory
from ad_agent_mcp.engines.diffusion.flat import FlatFile, write_flat

from .simulated import outcome


class Stream:
    """Copies begin when something waits for them: whoever reuses memory too early is seen."""

    def __init__(self) -> None:
        self.queued: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._lock = threading.Lock()

    def synchronize(self) -> None:
        with self._lock:
            while self.queued:
                target, source = self.queued.pop(0)
                target.copy_(source)


class Late(torch.Tensor):
    """A buffer whose copies are queued."""

    stream: Stream

    def copy_(self, source, non_blocking=False):
        assert non_blocking
        self.stream.queued.append((self.as_subclass(torch.Tensor), source))
        return self


@pytest.fixture
def gpu(monkeypatch):
    """A `CudaDevice` whose driver is played by the CPU."""
    stream, registered = Stream(), []

    class Event:
        def __init__(self) -> None:
            self.is_recorded = False

        def record(self) -> None:
            self.is_recorded = True

        def synchronize(self) -> None:
            if self.is_recorded:
                stream.synchronize()

    class Runtime:
        def cudaHostRegister(self, pointer, size, flags) -> int:  # noqa: N802
            registered.append(pointer)
            return 0

        def cudaHostUnregister(self, pointer) -> int:  # noqa: N802
            registered.remove(pointer)
            return 0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: stream.synchronize())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(devices, "_runtime", Runtime)
    monkeypatch.setattr(CudaDevice, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(CudaDevice, "COPY_BYTES", 3000)
    monkeypatch.setattr(CudaDevice, "READ_BYTES", 700)
    device = CudaDevice.__new__(CudaDevice)
    device.torch_device, device._copies, device._ring = torch.device("cpu"), stream, None
    device.registered = registered
    return device


def late_buffer(device, size: int) -> torch.Tensor:
    Late.stream = device._copies
    return torch.zeros(size, dtype=torch.uint8).as_subclass(Late)


@pytest.fixture
def data() -> torch.Tensor:
    return torch.randint(0, 256, (20_480,), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.fixture
def file(tmp_path, data) -> FlatFile:
    write_flat(tmp_path / "a", [("a", torch.uint8, (20_480,), lambda: data)])
    return FlatFile.open(tmp_path / "a")


def test_a_file_goes_through_the_ring_in_order_and_whole(gpu, file, data):
    for _ in range(2):
        buffer, told = late_buffer(gpu, file.nbytes), []
        gpu.copy_in(buffer, file, told.append)
        assert torch.equal(buffer.as_subclass(torch.Tensor), data)
        assert told == [*range(1000, 20_001, 1000), 20_480]
    assert len(gpu.registered) == 1
    gpu.flush()
    assert gpu.registered == []


def test_host_memory_is_copied_whole(gpu, data):
    buffer, told = late_buffer(gpu, data.numel()), []
    gpu.copy_in(buffer, data, told.append)
    assert torch.equal(buffer.as_subclass(torch.Tensor), data)
    assert told == [*range(3000, 18_001, 3000), 20_480]


def test_host_memory_is_the_processs_own_and_goes_when_nobody_has_it():
    rss = psutil.Process().memory_info
    before = rss().rss
    memory = host_memory(64 << 20).view(2, -1)
    memory.fill_(7)
    half = memory[1]
    del memory
    assert int(half.sum(dtype=torch.int64)) == 7 * (32 << 20)
    assert rss().rss - before > 60 << 20
    del half
    assert rss().rss - before < 30 << 20


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without huge pages")
def test_host_memory_asks_for_huge_pages_and_does_without(monkeypatch):
    asked = []

    class Pages(mmap.mmap):
        def madvise(self, option, *rest) -> None:
            asked.append(option)
            raise OSError("no huge pages")

    monkeypatch.setattr(mmap, "mmap", Pages)
    assert host_memory(10_000).fill_(1).sum() == 10_000
    assert asked == [mmap.MADV_HUGEPAGE]


def test_tensors_are_read_ahead_and_stay_until_what_was_begun_with_them_is_over(gpu, tmp_path):
    made = {
        f"{kind}{n}": torch.full((2000 if kind == "w" else 4,), n, dtype=torch.uint8) for n in range(6) for kind in "wb"
    }
    write_flat(tmp_path / "b", [(name, torch.uint8, tuple(x.shape), lambda x=x: x) for name, x in made.items()])
    groups = [(f"w{n}", f"b{n}") for n in range(6)]
    copies = []
    for here in gpu.reading(FlatFile.open(tmp_path / "b"), groups):
        for name, tensor in here.items():
            copies.append((name, late_buffer(gpu, made[name].numel())))
            copies[-1][1].copy_(tensor, non_blocking=True)
    gpu._copies.synchronize()
    assert [name for name, _ in copies] == [*made]
    assert all(torch.equal(copy.as_subclass(torch.Tensor), made[name]) for name, copy in copies)
    assert gpu.registered == []


def test_nothing_is_under_way_after_a_copy_was_cancelled(gpu, file, data):
    def stop(done: int) -> None:
        if done >= 3000:
            raise Cancelled

    for source in (file, data):
        buffer = late_buffer(gpu, data.numel())
        assert isinstance(outcome(lambda source=source, buffer=buffer: gpu.copy_in(buffer, source, stop)), Cancelled)
        assert gpu._copies.queued == []
        assert torch.equal(buffer.as_subclass(torch.Tensor)[:3000], data[:3000])
        assert not buffer.as_subclass(torch.Tensor)[4000:].any()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (NotImplementedError("DefaultCPUAllocator"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
