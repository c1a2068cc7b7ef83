# pyright: basic
"""Linear layers with 8-bit floating point weights: a scale for each output row, and activations scaled token by token.

Knows nothing about which model it stands in. Half the bytes of bfloat16 everywhere; more speed only where the device
multiplies e4m3 (compute capability 8.9 and later) and `torch.compile` fuses the quantisation into one pass.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ...contract.texts import TextError, say

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
_scaled_mm: Any = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
_SMALLEST_SCALE = 1e-12 / E4M3_MAX

Multiply = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, torch.dtype], Tensor]


def is_eligible(linear: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether `_scaled_mm` takes the layer's weight: a plain linear whose sides are multiples of 16."""
    return type(linear) is nn.Linear and linear.in_features % 16 == 0 and linear.out_features % 16 == 0


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 (rows, columns) and float32 scales (rows, 1), whose product is within 1/16 of each element of `weight`, or
    within scale / 1024 of the elements that are tiny beside their row's largest.

    Raises:
        ValueError: not a matrix, sides that are no multiples of 16, or values that are not finite.
    """
    if weight.ndim != 2 or weight.shape[0] % 16 or weight.shape[1] % 16:
        raise ValueError(f"an fp8 weight has two sides that are multiples of 16, not {tuple(weight.shape)}")
    quantised, scale = _quantise(weight)
    if not scale.isfinite().all():
        raise TextError(say("engines.source_not_finite"))
    return quantised, scale


def replace_linears(module: nn.Module, predicate: Callable[[str], bool], multiply: Multiply) -> list[str]:
    """Put `Fp8Linear` shells on meta in place of the eligible linears whose qualified name satisfies `predicate`.

    Returns:
        Their names. A checkpoint for the result has e4m3 `<name>.weight` and float32 `<name>.weight_scale` for each.
    """
    found = {name: layer for name, layer in module.named_modules() if is_eligible(layer) and predicate(name)}
    for name, linear in found.items():
        module.set_submodule(name, Fp8Linear(linear, multiply))
    return list(found)


class Fp8Linear(nn.Module):
    """A shell on meta in the shape of `linear`; its tensors come with `load_state_dict(assign=True)` or as views."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, multiply: Multiply) -> None:
        super().__init__()
        self.in_features, self.out_features, self.multiply = linear.in_features, linear.out_features, multiply
        self.register_buffer("weight", torch.empty(linear.weight.shape, dtype=E4M3, device="meta"))
        self.register_buffer("weight_scale", torch.empty(self.out_features, 1, dtype=torch.float32, device="meta"))
        bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to("meta"), requires_grad=False)
        self.register_parameter("bias", bias)

    def forward(self, given: Tensor) -> Tensor:
        tokens, scale = _quantise(given.reshape(-1, self.in_features))
        product = self.multiply(tokens, scale, self.weight, self.weight_scale, self.bias, given.dtype)
        return product.reshape(*given.shape[:-1], self.out_features)


def multiply_on(device: torch.device) -> Multiply:
    """The fastest multiplication that `device` can do; both give the same up to the order of sums and one rounding.

    torch takes row-wise scales from compute capability 8.9 on, there with a kernel of its own, from 9.0 on with
    cuBLASLt's: hence one small trial.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return multiply_emulated
    one = torch.ones(16, 16, device=device)
    try:
        multiply_scaled(*_quantise(one), *_quantise(one), None, torch.bfloat16)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError):
        return multiply_emulated
    return multiply_scaled


def multiply_scaled(
    tokens: Tensor, token_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """One kernel: both scales and the bias are applied to its sums, whose fast accumulation costs less than e4m3."""
    return _scaled_mm(
        tokens, weight.t(), token_scale, weight_scale.t(), bias=bias, out_dtype=dtype, use_fast_accum=True
    )


def multiply_emulated(
    tokens: Tensor, token_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """For devices that do not multiply e4m3, whose values bfloat16 and float32 hold exactly."""
    exact = torch.bfloat16 if tokens.is_cuda else torch.float32
    product = (tokens.to(exact) @ weight.to(exact).t()) * token_scale * weight_scale.t()
    return (product if bias is None else product + bias).to(dtype)


def _quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = (rows.abs().amax(dim=1, keepdim=True).float() / E4M3_MAX).clamp(min=_SMALLEST_SCALE)
    return (rows.float() / scale).to(E4M3), scale
