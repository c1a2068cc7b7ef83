# pyright: basic
"""Preparing models: a source's files become flat files of the wanted type, split as they will be moved.

One tensor is in memory at a time. A component appears as a whole or not at all. Knows nothing about devices.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...contract.errors import AdAgentError, ErrorCode
from ...contract.texts import TextError, say
from ...files import sync_folder
from ...models.library import FORMAT, ModelLibrary, State, remedy, unavailable
from ...models.preset import Component, Preset
from .flat import write_flat
from .fp8 import quantise_rows
from .networks import empty_network, weights_of

Progress = Callable[[int, int], None]
"""Told the bytes written and the bytes to write; what it raises ends the preparation."""
_Entry = tuple[str, torch.dtype, tuple[int, ...], Callable[[], Tensor]]


class _Tensor(NamedTuple):
    """One tensor of a source, and what reads it."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


_BLOCK_LINEAR = re.compile(r"(single_)?transformer_blocks\..*\.weight")
_SINGLE_BLOCK = re.compile(r"single_transformer_blocks\.(\d+)\.")
_EVICTED_SHARE = 24 / 38
"""Of the single blocks, from the last on: the part of FLUX that makes room for SDXL."""
_LEGACY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def prepare(library: ModelLibrary, preset: Preset, component: Component, *, progress: Progress) -> Path:
    """Prepare one component, unless it is prepared already.

    Returns:
        The prepared folder.

    Raises:
        AdAgentError: `model_unavailable` (the source is not there, or is not such a model) or `storage_full`.
        OSError: a file cannot be read or written.
    """
    location = library.locate(preset, component.role)
    target = location.prepared / component.name
    if library.state(preset, component) is State.PREPARED:
        return target
    try:
        files = library.source_files(location, component)
    except FileNotFoundError as missing:
        do = remedy(preset, [State.ABSENT])
        raise unavailable(say("engines.source_missing", name=location.name, missing=missing, remedy=do)) from None
    sources = library.fingerprint(location, component)
    partial = target.with_name(f".{component.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(component, files, partial, progress)
    except (SafetensorError, KeyError, ValueError) as error:
        shutil.rmtree(partial)
        told = say("engines.source_foreign", name=location.name, component=component.name, reason=error)
        raise unavailable(told) from error
    except BaseException:
        shutil.rmtree(partial)
        raise
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync_folder(target.parent)
    sizes = {path.name: path.stat().st_size for path in target.iterdir()}
    library.record(location, component.name, {"format": FORMAT, "files": sizes, "sources": sources})
    return target


def _write(component: Component, files: Sequence[Path], folder: Path, progress: Progress) -> None:
    weights = [path for path in files if path.suffix == ".safetensors" and component.network]
    for path in files:
        if path not in weights:
            shutil.copyfile(path, folder / path.name)
    if not component.network:
        return
    config = folder / "config.json"
    if not config.exists():
        config.write_text("{}")
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(path, framework="pt")) for path in weights]
        wanted = weights_of(empty_network(component, json.loads(config.read_text("utf-8"))))
        segments = _segments(component, _tensors(opened, wanted))
        total = sum(_size(entry) for entries in segments.values() for entry in entries)
        if total > (free := shutil.disk_usage(folder).free):
            needs = {"component": component.name, "needed": total / 1e9}
            told = say("engines.no_room_to_prepare", **needs, folder=folder.parent, free=free / 1e9)
            raise AdAgentError(ErrorCode.STORAGE_FULL, told)
        done = 0

        def counted(entry: _Entry) -> _Entry:
            def make() -> Tensor:
                nonlocal done
                progress(done, total)
                done += _size(entry)
                return entry[-1]()

            return (*entry[:-1], make)

        for segment, entries in segments.items():
            write_flat(folder / f"{segment}.safetensors", [counted(entry) for entry in entries])
        progress(total, total)


def _tensors(files: Sequence[safe_open], wanted: Mapping[str, Tensor]) -> Iterator[_Tensor]:
    """The `wanted` tensors of one source, in however many files, and whatever older programs called them.

    Raises:
        TextError: one is missing, or of another shape.
    """
    held = {name: file for file in files for name in file.keys()}  # noqa: SIM118 -- it is no dict
    for name, tensor in wanted.items():
        alias = next((alias for alias in _aliases(name) if alias in held), None)
        if alias is None:
            raise TextError(say("engines.source_lacks", name=name))
        if (shape := tuple(held[alias].get_slice(alias).get_shape())) != tuple(tensor.shape):
            told = say("engines.source_shape", name=alias, shape=str(shape), wanted=str(tuple(tensor.shape)))
            raise TextError(told)
        yield _Tensor(name, shape, partial(held[alias].get_tensor, alias))


def _aliases(name: str) -> Iterator[str]:
    if name == "shared.weight":
        yield "encoder.embed_tokens.weight"
    yield name
    yield f"text_model.{name}"
    yield name.removeprefix("text_model.")
    for new, old in _LEGACY.items():
        if f".{new}." in name:
            yield name.replace(f".{new}.", f".{old}.")


def _segments(component: Component, tensors: Iterable[_Tensor]) -> dict[str, list[_Entry]]:
    """What goes into which file of the component."""
    own = [tensor for tensor in tensors if re.search(component.tensors, tensor.name)]
    if component.dtype == "float8_e4m3fn":
        return {"a": [entry for tensor in own for entry in _quantised(*tensor)]}
    segments: dict[str, list[_Entry]] = {"a": []}
    blocks = 1 + max((int(match[1]) for tensor in own if (match := _SINGLE_BLOCK.match(tensor.name))), default=0)
    first_evicted = blocks - round(blocks * _EVICTED_SHARE)
    for tensor in own:
        match = _SINGLE_BLOCK.match(tensor.name)
        is_evicted = match and int(match[1]) >= first_evicted and component.stream is None
        entry = _converted(*tensor, getattr(torch, component.dtype))
        segments.setdefault("b" if is_evicted else "a", []).append(entry)
    return segments


def _converted(name: str, shape: tuple[int, ...], read: Callable[[], Tensor], dtype: torch.dtype) -> _Entry:
    return name, dtype, shape, lambda: read().to(dtype)


def _quantised(name: str, shape: tuple[int, ...], read: Callable[[], Tensor]) -> Iterator[_Entry]:
    """A block's matrix as 8-bit rows with their scales; anything else as it is."""
    if len(shape) != 2 or shape[0] % 16 or shape[1] % 16 or not _BLOCK_LINEAR.fullmatch(name):
        yield _converted(name, shape, read, torch.bfloat16)
        return
    pair = lru_cache(maxsize=1)(lambda: quantise_rows(read()))
    yield name, torch.float8_e4m3fn, shape, lambda: pair()[0]
    yield f"{name}_scale", torch.float32, (shape[0], 1), lambda: pair()[1]


def _size(entry: _Entry) -> int:
    _, dtype, shape, _ = entry
    return math.prod(shape) * dtype.itemsize
