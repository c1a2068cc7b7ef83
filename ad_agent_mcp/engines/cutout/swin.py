# pyright: basic
"""The Swin transformer as BiRefNet's backbone, in plain torch; names and shapes as told there.

Source: Liu et al. 2021, "Swin Transformer".
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Swin(nn.Module):
    """The backbone; arguments as in `BiRefNetConfig`."""

    def __init__(self, embed_dim: int, depths: Sequence[int], heads: Sequence[int], window: int) -> None:
        super().__init__()
        self.window = window
        self.patch_embed = _PatchEmbedding(embed_dim)
        self.layers = nn.ModuleList()
        for i, (depth, its_heads) in enumerate(zip(depths, heads, strict=True)):
            channels, last = embed_dim << i, i == len(depths) - 1
            self.layers.append(_Stage(channels, depth, its_heads, window, last=last))
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of `image` at 1/4, 1/8, 1/16 and 1/32, (B, C, H, W)."""
        relative, window = relative_positions(self.window, image.device), self.window
        x, maps = self.patch_embed(image), []
        for i, stage in enumerate(cast("list[_Stage]", self.layers)):
            batch, height, width, _ = x.shape
            apart = strangers(height + -height % window, width + -width % window, window, image.device)
            apart = apart.repeat(batch, 1, 1, 1)
            for block in stage.blocks:
                x = block(x, relative, apart)
            maps.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
            x = stage.downsample(x)
        return maps


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, relative: Tensor, apart: Tensor | None) -> Tensor:
        bias = self.relative_position_bias_table.T[:, relative][None]
        if apart is not None:
            bias = bias.masked_fill(apart, -torch.inf)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = _Attention(channels, heads, window)
        fc1, fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))

    def forward(self, x: Tensor, relative: Tensor, apart: Tensor) -> Tensor:
        """`x` (B, H, W, C) after attention and MLP; `apart` counts in shifted blocks only."""
        _, height, width, channels = x.shape
        # Padding comes after the norm and is not masked: its tokens are zeros, and keys like any other.
        y = functional.pad(self.norm1(x), (0, 0, 0, -width % self.window, 0, -height % self.window))
        y = y.roll((-self.shift, -self.shift), (1, 2))
        windows = _windows(y, self.window)
        tokens = self.attn(windows.reshape(-1, self.window**2, channels), relative, apart if self.shift else None)
        y = tokens.view(windows.shape).transpose(2, 3).reshape(y.shape)
        x = x + y.roll((self.shift, self.shift), (1, 2))[:, :height, :width]
        return x + self.mlp(self.norm2(x))


def _windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) as (B, H / side, W / side, side, side, C)."""
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)


def relative_positions(window: int, device: torch.device) -> Tensor:
    """Row of the bias table for each query and key of a window, (tokens, tokens)."""
    token = torch.arange(window**2, device=device)
    row, column = token // window, token % window
    rows, columns = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return rows * (2 * window - 1) + columns


def strangers(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Which tokens of a window only the cyclic shift brought together, (windows, 1, tokens, tokens)."""

    def regions(length: int) -> Tensor:
        place = torch.arange(length, device=device)
        return (place >= length - window).long() + (place >= length - window // 2)

    region = 3 * regions(height)[:, None] + regions(width)
    tokens = _windows(region[None, ..., None], window).reshape(-1, window**2)
    return (tokens[:, :, None] != tokens[:, None])[:, None]


class _Merging(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return self.reduction(self.norm(_windows(x, 2).transpose(3, 4).flatten(3)))


class _PatchEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, 4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    def __init__(self, channels: int, depth: int, heads: int, window: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(channels, heads, window, i % 2 * (window // 2)) for i in range(depth))
        self.downsample = nn.Identity() if last else _Merging(channels)
