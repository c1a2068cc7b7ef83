# pyright: basic
"""BiRefNet, which tells a picture's subject from its backdrop, in plain torch. Knows nothing about jobs or residency.

Names and shapes are those of the official general checkpoint, less what only training uses. A module holds nothing
but what `state_dict` names: indices and masks are made anew in each pass, so it may be built on the meta device, be
given views of any buffer, and leaves nothing on the device when they go.

Source: Zheng et al. 2024, "Bilateral Reference for High-Resolution Dichotomous Image Segmentation"; Zhu et al. 2019,
"Deformable ConvNets v2".
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it
from torch import Tensor, nn

from ..base import Matte, Picture
from .swin import Swin

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_COLUMN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class BiRefNetConfig:
    """Sizes of the network; the defaults are the official general checkpoint's.

    Attributes:
        embed_dim: channels of the first backbone stage, doubled by each of the next.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: side of an attention window, even.
        decoder_dim: inner channels of a decoder block.
        aspp_dim: channels of each of its five branches.
        side: pixels of the square pictures that it was trained on, a multiple of 32.
    """

    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (6, 12, 24, 48)
    window: int = 12
    decoder_dim: int = 64
    aspp_dim: int = 256
    side: int = 1024


class BiRefNet(nn.Module):
    """The network, for inference only: `eval` mode, without gradients."""

    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__()
        width = 2 * config.embed_dim
        self.side = config.side
        self.bb = Swin(config.embed_dim, config.depths, config.heads, config.window)
        self.squeeze_module = nn.Sequential(_decoder_block(width * 15, width * 8, config))
        self.decoder = _Decoder(config)
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of `image` (B, 3, H, W), normalised as by `to_input`, of the weights' type.

        Raises:
            ValueError: H or W is not a multiple of 32.
        """
        height, width = image.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"BiRefNet takes sides that are multiples of 32, not {width} x {height}.")
        half = _resize(image, (height // 2, width // 2))
        maps = [torch.cat((a, _like(b, a)), 1) for a, b in zip(self.bb(image), self.bb(half), strict=True)]
        context = torch.cat([_like(features, maps[-1]) for features in maps], 1)
        return self.decoder(image, maps[:-1], self.squeeze_module(context))


def to_input(rgb: Picture | Tensor, size: int) -> Tensor:
    """What the network sees of a picture: squeezed to a square, antialiased, and normalised.

    Args:
        rgb: uint8 (H, W, 3).
        size: side of the square, a multiple of 32.

    Returns:
        float32 (1, 3, size, size), on the device of `rgb`.

    Raises:
        ValueError: `rgb` is no such picture.
    """
    pixels = rgb if isinstance(rgb, Tensor) else torch.tensor(rgb)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"BiRefNet takes uint8 (H, W, 3), not {pixels.dtype} {tuple(pixels.shape)}.")
    planes = pixels.permute(2, 0, 1)[None].float() / 255
    planes = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    return (planes - planes.new_tensor(_MEAN).view(3, 1, 1)) / planes.new_tensor(_STD).view(3, 1, 1)


@torch.inference_mode()
def matte(model: BiRefNet, rgb: Picture | Tensor) -> Matte:
    """How much of each pixel is subject.

    Args:
        model: where it lies the work is done, in the type of its weights.
        rgb: uint8 (H, W, 3).

    Returns:
        float32 (H, W) in [0, 1], at the picture's own size.

    Raises:
        ValueError: `rgb` is no such picture.
    """
    weights = next(model.parameters())
    pixels = (rgb if isinstance(rgb, Tensor) else torch.tensor(rgb)).to(weights.device)
    logits = model(to_input(pixels, model.side).to(weights.dtype))
    # As in `to_input`, pixel centres keep their place: the way back undoes the way there.
    alpha = F.interpolate(logits.float().sigmoid(), pixels.shape[:2], mode="bilinear", antialias=True)
    return alpha[0, 0].clamp(0, 1).cpu().numpy()


def deform_conv(x: Tensor, weight: Tensor, offset: Tensor, modulation: Tensor) -> Tensor:
    """Modulated deformable convolution, stride 1, centred, without bias; zero outside the map.

    Tap t = ty * k + tx of output (y, x) reads `x` bilinearly at (y - k//2 + ty + dy, x - k//2 + tx + dx). Positions and
    samples are float32 even for half types: float16 positions are 1/4 pixel apart beyond column 256.

    Args:
        x: (B, C, H, W).
        weight: (O, C, k, k), k odd.
        offset: (B, 2 k k, H, W), pixels; channel 2t is dy, 2t + 1 is dx.
        modulation: (B, k k, H, W), factor of each tap.

    Returns:
        (B, O, H, W) in the type of `x`.
    """
    batch, _, height, width = x.shape
    kernel = weight.shape[-1]
    wide = torch.promote_types(x.dtype, torch.float32)
    source, offset = x.to(wide), offset.unflatten(1, (-1, 2))
    rows = torch.arange(height, device=x.device, dtype=wide)[:, None] - kernel // 2
    columns = torch.arange(width, device=x.device, dtype=wide) - kernel // 2
    # All columns of a 7 x 7 kernel at once would be 822 MB at a quarter of 1024 x 1024: so many taps as fit the bound.
    step = max(1, _COLUMN_BYTES // (source.numel() * source.itemsize))
    total = x.new_zeros((batch, weight.shape[0], height * width), dtype=wide)
    for first in range(0, kernel**2, step):
        tap = torch.arange(first, min(first + step, kernel**2), device=x.device)[:, None, None]
        taps = slice(first, first + step)
        y = offset[:, taps, 0].to(wide) + (rows + tap // kernel)
        x_ = offset[:, taps, 1].to(wide) + (columns + tap % kernel)
        grid = torch.stack(((2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1), -1).flatten(1, 2)
        samples = F.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        samples *= modulation[:, taps].to(wide).flatten(1, 2)[:, None]
        samples = samples.to(x.dtype).view(batch, -1, height * width)
        total += weight.flatten(2)[:, :, taps].flatten(1) @ samples
    return total.to(x.dtype).view(batch, -1, height, width)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _like(x: Tensor, reference: Tensor) -> Tensor:
    return _resize(x, cast("tuple[int, int]", reference.shape[-2:]))


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


class _BatchNorm(nn.Module):
    """Without the counter of batches, which is no weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean, self.running_var = nn.Buffer(torch.zeros(channels)), nn.Buffer(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


class _DeformableConv(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(channels, 2 * kernel**2, kernel, padding=kernel // 2)
        self.modulator_conv = nn.Conv2d(channels, kernel**2, kernel, padding=kernel // 2)
        self.regular_conv = nn.Conv2d(channels, out, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        modulation = 2 * self.modulator_conv(x).sigmoid()
        return deform_conv(x, self.regular_conv.weight, self.offset_conv(x), modulation)


def _branch(channels: int, out: int, kernel: int) -> nn.Sequential:
    return _named(atrous_conv=_DeformableConv(channels, out, kernel), bn=_BatchNorm(out), relu=nn.ReLU())


class _Aspp(nn.Module):
    def __init__(self, channels: int, branch: int) -> None:
        super().__init__()
        self.aspp1 = _branch(channels, branch, 1)
        self.aspp_deforms = nn.ModuleList(_branch(channels, branch, kernel) for kernel in (1, 3, 7))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, branch, 1, bias=False), _BatchNorm(branch), nn.ReLU()
        )
        self.conv1 = nn.Conv2d(5 * branch, channels, 1, bias=False)
        self.bn1 = _BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in (self.aspp1, *self.aspp_deforms)]
        branches.append(self.global_avg_pool(x).expand_as(branches[0]))
        return self.bn1(self.conv1(torch.cat(branches, 1))).relu()


def _decoder_block(channels: int, out: int, config: BiRefNetConfig) -> nn.Sequential:
    inner = config.decoder_dim
    return _named(
        conv_in=nn.Conv2d(channels, inner, 3, padding=1),
        bn_in=_BatchNorm(inner),
        relu=nn.ReLU(),
        dec_att=_Aspp(inner, config.aspp_dim),
        conv_out=nn.Conv2d(inner, out, 3, padding=1),
        bn_out=_BatchNorm(out),
    )


class _Decoder(nn.ModuleDict):
    def __init__(self, config: BiRefNetConfig) -> None:
        super().__init__()
        width, inner = 2 * config.embed_dim, config.decoder_dim
        pictures = {1: width // 8, 2: width // 4, 3: width // 2, 4: width, 5: width}
        for n, out in pictures.items():
            first = nn.Conv2d(3 * (1 if n == 1 else 4**n), inner, 3, padding=1)
            self[f"ipt_blk{n}"] = _named(conv1=first, conv_out=nn.Conv2d(inner, out, 3, padding=1))
        for n, channels, out in ((4, 8, 4), (3, 4, 2), (2, 2, 1)):
            self[f"decoder_block{n}"] = _decoder_block(width * channels + pictures[n + 1], width * out, config)
            self[f"gdt_convs_{n}"] = nn.Sequential(nn.Conv2d(width * out, 16, 3, padding=1), _BatchNorm(16), nn.ReLU())
            self[f"gdt_convs_attn_{n}"] = nn.Sequential(nn.Conv2d(16, 1, 1))
            self[f"lateral_block{n}"] = _named(conv=nn.Conv2d(width * out, width * out, 1))
        self["decoder_block1"] = _decoder_block(width + pictures[2], width // 2, config)
        self["conv_out1"] = nn.Sequential(nn.Conv2d(width // 2 + pictures[1], 1, 1))

    def forward(self, image: Tensor, skips: list[Tensor], p: Tensor) -> Tensor:
        for n, skip in zip((4, 3, 2), reversed(skips), strict=True):
            p = self[f"decoder_block{n}"](self._with_picture(n + 1, p, image))
            p = p * self[f"gdt_convs_attn_{n}"](self[f"gdt_convs_{n}"](p)).sigmoid()
            p = _like(p, skip) + self[f"lateral_block{n}"](skip)
        p = self["decoder_block1"](self._with_picture(2, p, image))
        # A 1 x 1 convolution and a resize may change places: one channel at full size instead of all.
        weight, bias = self["conv_out1"].get_parameter("0.weight"), self["conv_out1"].get_parameter("0.bias")
        own, picture = weight.split((p.shape[1], weight.shape[1] - p.shape[1]), 1)
        return _like(F.conv2d(p, own), image) + F.conv2d(self["ipt_blk1"](image), picture, bias)

    def _with_picture(self, n: int, p: Tensor, image: Tensor) -> Tensor:
        """`p` with what the picture says, cut into tiles of the size of `p` that are stacked as channels."""
        tiles = image.unflatten(3, (-1, p.shape[3])).unflatten(2, (-1, p.shape[2]))
        return torch.cat((p, self[f"ipt_blk{n}"](tiles.transpose(3, 4).flatten(1, 3))), 1)
