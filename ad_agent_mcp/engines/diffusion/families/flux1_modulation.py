# pyright: basic
"""FLUX's adaptive layer norms read from a table, so that 27 % of its weights never stay on the device.

What their linears give depends on timestep, guidance and pooled prompt alone, all known before a pass begins. Knows
nothing about files, stages or which models are resident.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from diffusers.pipelines.flux.pipeline_flux_img2img import FluxImg2ImgPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

_SHIFT = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")


class Row(NamedTuple):
    """What one transformer call is given: (1,) in the latents' dtype, (1,) float32, (1, width)."""

    timestep: Tensor
    guidance: Tensor | None
    pooled: Tensor


def flux_rows(
    scheduler_config: Mapping[str, Any],
    *,
    steps: int,
    image_tokens: int,
    pooled: Tensor,
    guidance: float | None,
    strength: float | None = None,
) -> list[Row]:
    """Every call that a FLUX pipeline will make in one pass, in order.

    Args:
        scheduler_config: of the pipeline's `FlowMatchEulerDiscreteScheduler`.
        steps: `num_inference_steps`, before `strength` leaves the first ones out.
        image_tokens: (height // 16) * (width // 16).
        pooled: (1, width), on the device and in the dtype of the latents.
        guidance: `guidance_scale`; None for a model without guidance embedding.
        strength: of image-to-image and inpainting, (0, 1]; None for text-to-image.
    """
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler_config))
    mu = calculate_shift(image_tokens, *(scheduler.config[name] for name in _SHIFT))
    sigmas: Any = np.linspace(1.0, 1 / steps, steps)
    timesteps: Any = retrieve_timesteps(scheduler, steps, pooled.device, sigmas=sigmas, mu=mu)[0]
    if strength is not None:
        pipeline: Any = SimpleNamespace(scheduler=scheduler)
        timesteps = FluxImg2ImgPipeline.get_timesteps(pipeline, len(timesteps), strength, pooled.device)[0]
    scale = None if guidance is None else torch.full([1], guidance, device=pooled.device, dtype=torch.float32)
    return [Row(t.expand(1).to(pooled.dtype) / 1000, scale, pooled) for t in timesteps]


class ModulationTable(nn.Module):
    """Stands where an AdaLN linear stood and gives that linear's output for the call under way.

    `row` (1, out_features) is written in place, so compiled blocks hold no guard on step, job or number of rows.
    """

    row: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        row = torch.empty(1, self.out_features, dtype=linear.weight.dtype, device="meta")
        self.register_buffer("row", row, persistent=False)

    def forward(self, _embedding: Tensor) -> Tensor:
        return self.row


class Modulation:
    """Takes the AdaLN linears out of a FLUX transformer, which may be on meta, and is the one owner of their table.

    Attributes:
        names: prefixes of the parameters taken out, `<name>.weight` and `<name>.bias` in the checkpoint.
        calls_made: calls of the transformer since `reading` was entered.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self._tables: dict[str, ModulationTable] = {}
        for name, norm in transformer.named_modules():
            if isinstance(norm, AdaLayerNormZero | AdaLayerNormZeroSingle | AdaLayerNormContinuous):
                table: Any = ModulationTable(norm.linear)
                self._tables[f"{name}.linear"] = norm.linear = table
        self.names = tuple(self._tables)
        self._embed: Any = transformer.time_text_embed
        transformer.register_forward_pre_hook(self._turn, with_kwargs=True)
        self.clear()

    def clear(self) -> None:
        """Give the table's memory back."""
        self._rows: Sequence[Row] = ()
        self._expected, self.calls_made = range(0), 0
        self._outputs = self._current = self._differs = torch.empty(0, device="meta")
        for table in self._tables.values():
            table.row = table.row.to("meta")

    @torch.no_grad()
    def fill(self, rows: Sequence[Row], weights: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Work out a table for all passes to come. `time_text_embed` has to be on the rows' device.

        One multiplication serves all rows; in bfloat16 it is rounded otherwise than the plain model's for each row.

        Args:
            rows: of every pass, one after the other.
            weights: weight and bias of each of `names`, in host memory, which has to stay as it is until the device
                has done what was asked of it before the next pair is.
        """
        self.clear()
        embedded = torch.cat([self._embedding(row) for row in rows])
        widths = [table.out_features for table in self._tables.values()]
        outputs = embedded.new_empty(len(rows), sum(widths))
        for into, (weight, bias) in zip(outputs.split(widths, 1), weights, strict=True):
            here = weight.to(embedded.device, non_blocking=True), bias.to(embedded.device, non_blocking=True)
            into[:] = nn.functional.linear(embedded, *here)
        self._rows, self._outputs, self._current = tuple(rows), outputs, torch.empty_like(outputs[:1])
        self._differs = torch.zeros((), dtype=torch.bool, device=outputs.device)
        for table, row in zip(self._tables.values(), self._current.split(widths, 1), strict=True):
            table.row = row

    @contextmanager
    def reading(self, rows: range) -> Iterator[None]:
        """One pass: each transformer call inside reads the next of `rows`.

        Raises:
            RuntimeError: at once, for a call too many; at the end, for calls too few, or one whose timestep, guidance
                or prompt was not its row's. The picture of such a pass is wrong.
        """
        if rows.stop > len(self._rows):
            raise RuntimeError(f"rows up to {rows.stop} are asked of a table of {len(self._rows)}")
        self._expected, self.calls_made = rows, 0
        self._differs.zero_()
        try:
            yield
        finally:
            self._expected = range(0)
        if self.calls_made != len(rows):
            raise RuntimeError(f"the pass made {self.calls_made} transformer calls; its table has {len(rows)} rows")
        if self._differs.item():
            raise RuntimeError("a transformer call had another timestep, guidance or prompt than its row of the table")

    def _turn(self, _transformer: nn.Module, _args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if self.calls_made >= len(self._expected):
            raise RuntimeError(f"a transformer call beyond the {len(self._expected)} rows that its pass may read")
        index = self._expected[self.calls_made]
        self.calls_made += 1
        self._current.copy_(self._outputs[index : index + 1])
        names = ("timestep", "guidance", "pooled_projections")
        for got, wanted in zip(map(given.get, names), self._rows[index], strict=True):
            same_kind = got is not None and wanted is not None
            self._differs |= (got != wanted).any() if same_kind else got is not wanted

    def _embedding(self, row: Row) -> Tensor:
        scales = (scale.to(row.pooled.dtype) * 1000 for scale in row[:2] if scale is not None)
        return nn.functional.silu(self._embed(*scales, row.pooled))
