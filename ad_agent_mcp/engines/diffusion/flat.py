# pyright: basic
"""Flat files: safetensors files whose tensors are aligned, so that one buffer with the file's data serves them all.

Knows nothing about models or devices.
"""

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...contract.texts import TextError, say
from ...files import open_atomically

ALIGNMENT = 256
"""Every tensor begins at a multiple of this: what kernels want, and any dtype can be viewed there."""
CHUNK_BYTES = 64 << 20
_PADDING = "_pad."
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class TensorSpec(NamedTuple):
    """Where one tensor lies: bytes `begin` to `end` of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class FlatFile:
    """One flat file; `open` reads its header, the data stays on disk.

    Attributes:
        path: the file.
        nbytes: size of the data, and of a buffer for it.
        tensors: by name; the padding is left out.
        data_begin: where the data begin in the file.
    """

    path: Path
    nbytes: int
    tensors: Mapping[str, TensorSpec]
    data_begin: int

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the header of `path`.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no flat file, or not whole; says what is wrong.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                slices = {name: file.get_slice(name) for name in file.offset_keys()}
                kinds = {name: (_DTYPES[part.get_dtype()], tuple(part.get_shape())) for name, part in slices.items()}
        except (SafetensorError, KeyError) as error:
            raise TextError(say("engines.no_safetensors", path=path, reason=error)) from error
        specs: dict[str, TensorSpec] = {}
        end = 0
        for name, (dtype, shape) in kinds.items():  # without gaps, as safetensors checks
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            if not name.startswith(_PADDING):
                specs[name] = TensorSpec(dtype, shape, begin, end)
                if begin % ALIGNMENT:
                    raise TextError(say("engines.not_flat", path=path, name=name, alignment=ALIGNMENT))
        return cls(path, end, specs, path.stat().st_size - end)

    def views(self, buffer: Tensor, names: Iterable[str] | None = None, *, begin: int = 0) -> dict[str, Tensor]:
        """Tensors by name, if none are named all, as views of `buffer`: uint8, any device, the data from `begin` on."""
        specs = {name: self.tensors[name] for name in (self.tensors if names is None else names)}
        typed = {dtype: _whole(buffer, dtype) for dtype in {spec.dtype for spec in specs.values()}}
        # One call a tensor: a model has thousands, and they are shown again whenever it comes to the device.
        return {
            name: (whole := typed[spec.dtype]).as_strided(
                spec.shape,
                _strides(spec.shape),
                whole.storage_offset() + (spec.begin - begin) // spec.dtype.itemsize,
            )
            for name, spec in specs.items()
        }

    def mapped(self) -> Tensor:
        """The data as uint8 (nbytes,) on the CPU, read from the disk as they are touched."""
        whole = torch.from_file(str(self.path), shared=False, size=self.data_begin + self.nbytes, dtype=torch.uint8)
        return whole[self.data_begin :]

    def read_chunk(self, target: Tensor, begin: int) -> None:
        """Fill `target`, uint8 on the CPU, with the data from byte `begin` on; may be called by several threads.

        Raises:
            OSError: the file cannot be read, or has become shorter.
        """
        view = target.numpy().data
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.data_begin + begin)
            while view:
                count = file.readinto(view)
                if not count:
                    raise OSError(f"{self.path} ends too early: it was changed while in use")
                view = view[count:]

    def read_into(self, buffer: Tensor, *, threads: int = 8, check: Callable[[int], None] = lambda done: None) -> None:
        """Fill `buffer`, uint8 (nbytes,) on the CPU, with the data.

        Args:
            buffer: what is filled; half filled after an exception, and no longer written to.
            threads: how many read at once.
            check: called in this thread with the bytes read so far; what it raises ends the reading.
        """
        with ThreadPoolExecutor(threads) as pool:
            begins = range(0, self.nbytes, CHUNK_BYTES)
            reads = [pool.submit(self.read_chunk, buffer[begin : begin + CHUNK_BYTES], begin) for begin in begins]
            try:
                for begin, read in zip(begins, reads, strict=True):
                    read.result()
                    check(min(begin + CHUNK_BYTES, self.nbytes))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _whole(buffer: Tensor, dtype: torch.dtype) -> Tensor:
    return buffer[: buffer.numel() // dtype.itemsize * dtype.itemsize].view(dtype)


@functools.cache
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def write_flat(path: Path, tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...], Callable[[], Tensor]]]) -> None:
    """Write a flat file, one tensor in memory at a time; `path` has the old content or the whole new one.

    Args:
        path: the file; its folder exists.
        tensors: name, dtype, shape, and what makes the tensor (on any device) when its turn has come.

    Raises:
        OSError: as `files.open_atomically`.
        ValueError: a tensor is not what was announced.
    """
    entries: dict[str, dict[str, object]] = {}
    makers: list[tuple[str, TensorSpec, Callable[[], Tensor]]] = []
    end = 0
    for name, dtype, shape, make in tensors:
        if padding := -end % ALIGNMENT:
            entries[f"{_PADDING}{len(entries)}"] = _entry(TensorSpec(torch.uint8, (padding,), end, end + padding))
            end += padding
        spec = TensorSpec(dtype, tuple(shape), end, end + math.prod(shape) * dtype.itemsize)
        entries[name] = _entry(spec)
        makers.append((name, spec, make))
        end = spec.end
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    with open_atomically(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, spec, make in makers:
            file.write(b"\0" * (8 + len(header) + spec.begin - file.tell()))
            tensor = make().detach().cpu().contiguous()
            if (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, spec.shape):
                raise ValueError(f"{name} became {tensor.dtype} {tuple(tensor.shape)}, not {spec.dtype} {spec.shape}")
            file.write(tensor.view(-1).view(torch.uint8).numpy().data)


def _entry(spec: TensorSpec) -> dict[str, object]:
    return {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [spec.begin, spec.end]}
