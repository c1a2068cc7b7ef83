import itertools
import json
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from ad_agent_mcp.contract.errors import Cancelled
from ad_agent_mcp.engines.diffusion import flat
from ad_agent_mcp.engines.diffusion.flat import ALIGNMENT, FlatFile, write_flat

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool]


def write(path: Path, tensors: dict[str, Tensor]) -> FlatFile:
    write_flat(path, [(name, t.dtype, tuple(t.shape), lambda t=t: t) for name, t in tensors.items()])
    return FlatFile.open(path)


def read(file: FlatFile, **options) -> dict[str, Tensor]:
    buffer = torch.full((file.nbytes,), 255, dtype=torch.uint8)
    file.read_into(buffer, **options)
    return file.views(buffer)


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy())


shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(st.tuples(st.sampled_from(DTYPES), shapes), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_what_is_written_is_read_back_bit_by_bit_and_aligned(tmp_path_factory, kinds, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"t{i}.weight": torch.randn(shape, generator=generator).to(dtype) for i, (dtype, shape) in enumerate(kinds)
    }
    file = write(tmp_path_factory.mktemp("flat") / "a.safetensors", tensors)
    assert {name: bits(tensor) for name, tensor in read(file).items()} == {n: bits(t) for n, t in tensors.items()}
    assert all(spec.begin % ALIGNMENT == 0 for spec in file.tensors.values())
    assert file.path.stat().st_size == file.data_begin + file.nbytes


def test_others_can_read_a_flat_file(tmp_path):
    tensors = {"a": torch.arange(7.0), "b": torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).half()}
    write(tmp_path / "a.safetensors", tensors)
    others = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(others[name], tensor) for name, tensor in tensors.items())


def test_views_share_the_buffer(tmp_path):
    file = write(tmp_path / "a.safetensors", {"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.bfloat16)})
    buffer = torch.zeros(file.nbytes, dtype=torch.uint8)
    file.views(buffer)["b"].fill_(1)
    assert buffer.count_nonzero() > 0
    assert file.views(buffer)["a"].count_nonzero() == 0


def test_tensors_are_made_one_at_a_time(tmp_path):
    living: list[int] = []

    class Counted:
        def __init__(self, value: int) -> None:
            self.value = value

        def __call__(self) -> Tensor:
            written = sum(path.stat().st_size for path in tmp_path.iterdir())
            living.append(written)
            return torch.full((1 << 18,), self.value, dtype=torch.uint8)

    write_flat(tmp_path / "a", [(f"t{i}", torch.uint8, (1 << 18,), Counted(i)) for i in range(4)])
    assert all(later - earlier == 1 << 18 for earlier, later in itertools.pairwise(living[1:]))


def test_reading_goes_in_chunks_and_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(flat, "CHUNK_BYTES", 1000)
    data = torch.arange(4500) % 251
    file = write(tmp_path / "a", {"a": data.to(torch.uint8)})
    told: list[int] = []
    assert torch.equal(read(file, threads=3, check=told.append)["a"], data.to(torch.uint8))
    assert told == [1000, 2000, 3000, 4000, 4500]


def test_a_cancelled_read_ends_at_its_chunk_and_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(flat, "CHUNK_BYTES", 100)
    file = write(tmp_path / "a", {"a": torch.ones(100_000, dtype=torch.uint8)})
    buffer = torch.zeros(file.nbytes, dtype=torch.uint8)
    stopped = threading.Event()
    read_chunk = FlatFile.read_chunk

    def wait_and_read(self: FlatFile, target: Tensor, begin: int) -> None:
        assert begin < 300 or stopped.wait(10)
        read_chunk(self, target, begin)

    def stop(done: int) -> None:
        if done >= 300:
            stopped.set()
            raise Cancelled

    monkeypatch.setattr(FlatFile, "read_chunk", wait_and_read)
    with pytest.raises(Cancelled):
        file.read_into(buffer, threads=2, check=stop)
    assert 300 <= buffer.sum() < 100_000


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.safetensors"
    old = write(path, {"a": torch.ones(3)})

    def fail() -> Tensor:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_flat(path, [("a", torch.float32, (3,), lambda: torch.zeros(3)), ("b", torch.float32, (1,), fail)])
    assert torch.equal(read(old)["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("made", [torch.zeros(4), torch.zeros(3).half(), torch.zeros(3, 1)])
def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path, made):
    with pytest.raises(ValueError, match="became"):
        write_flat(tmp_path / "a", [("a", torch.float32, (3,), lambda: made)])


def test_an_ordinary_safetensors_file_is_called_unaligned(tmp_path):
    save_file({"a": torch.zeros(3), "b": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="multiple of 256"):
        FlatFile.open(tmp_path / "a.safetensors")


def test_a_dtype_we_cannot_use_is_named(tmp_path):
    header = json.dumps({"a": {"dtype": "I16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="I16"):
        FlatFile.open(tmp_path / "a")


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_torn_file_is_refused_by_name(tmp_path, cut):
    file = write(tmp_path / "torn", {"a": torch.ones(300)})
    file.path.write_bytes(file.path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="torn"):
        FlatFile.open(file.path)


def test_a_file_cut_while_it_is_in_use_is_an_error_not_garbage(tmp_path):
    file = write(tmp_path / "a", {"a": torch.ones(300)})
    file.path.write_bytes(file.path.read_bytes()[:-4])
    with pytest.raises(OSError, match="too early"):
        read(file)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FlatFile.open(tmp_path / "none")
