# pyright: basic, reportAttributeAccessIssue=false
"""The repeated blocks of a transformer compiled, from the second job of a worker on."""

import os
from typing import Any

import torch
from torch import nn

_RECOMPILES = 64
_COMPILERS = 4


class Compiling:
    """Whether `transformer` is compiled, and for which sizes. The first job does without, which ends it sooner."""

    def __init__(self, transformer: Any, device: torch.device) -> None:
        self.transformer = transformer
        self.jobs = 0
        self._device = device
        self._sizes: set[tuple[int, int]] = set()

    def begin_job(self) -> None:
        """Count a job."""
        self.jobs += 1
        if self.jobs == 2 and self._device.type == "cuda":
            torch._dynamo.config.recompile_limit = _RECOMPILES
            torch._inductor.config.compile_threads = min(_COMPILERS, os.cpu_count() or 1)
            self.transformer.compile_repeated_blocks(fullgraph=True)

    def begins(self, size: tuple[int, int]) -> bool:
        """Whether the next step waits until it is compiled for pictures of `size`; true once."""
        if size in self._sizes or not self._compiled:
            return False
        self._sizes.add(size)
        return True

    def give_up(self) -> bool:
        """Run uncompiled from now on; whether it was compiled."""
        compiled = self._compiled
        for module in compiled:
            module._compiled_call_impl = None
        self._sizes.clear()
        return bool(compiled)

    @property
    def _compiled(self) -> list[nn.Module]:
        return [one for one in self.transformer.modules() if one._compiled_call_impl is not None]
