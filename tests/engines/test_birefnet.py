"""BiRefNet computes what its official code does, from the official checkpoint's names and nothing else."""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ad_agent_mcp.engines.cutout import birefnet
from ad_agent_mcp.engines.cutout.birefnet import BiRefNet, BiRefNetConfig, deform_conv, matte, to_input
from ad_agent_mcp.engines.cutout.swin import relative_positions, strangers

OFFICIAL = json.loads((Path(__file__).parent.parent / "data" / "birefnet_state.json").read_text("utf-8"))
TINY = BiRefNetConfig(
    embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4, decoder_dim=8, aspp_dim=12, side=64
)
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Nothing here is large, and threads that wait for each other on a busy machine take twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(name: str, shape: list[int] | torch.Size) -> Tensor:
    """Float64 in [-1, 1): a hash of the name and the place, so that it is the same everywhere."""
    with np.errstate(over="ignore"):
        h = np.arange(math.prod(shape), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode("ascii")))
        for factor, shift in ((0x7FEB352D, 16), (0x846CA68B, 15)):
            h ^= h >> np.uint32(shift)
            h *= np.uint32(factor)
        h ^= h >> np.uint32(16)
    return torch.from_numpy(h / 2.0**31 - 1).view(*shape)


def weights(name: str, shape: list[int] | torch.Size) -> Tensor:
    """Float32 values under which the official code's results were taken."""
    u = noise(name, shape)
    if name == "input":
        value = 2 * u
    elif name.endswith("relative_position_bias_table"):
        value = u
    elif name.endswith("running_var"):
        value = 1 + 0.5 * u
    elif len(shape) > 1:
        quiet = any(part in name for part in ("offset_conv", "modulator_conv", "attn")) or name.startswith("bb.")
        value = u * math.sqrt(3 * shape[0] / math.prod(shape)) * (1 if quiet else 1.25)
    elif name.endswith("offset_conv.bias"):
        value = 1.5 * u
    else:
        value = 0.2 * u + name.endswith(".weight")
    return value.float()


def tiny_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = BiRefNet(TINY).state_dict()
    return {name: weights(name, value.shape) for name, value in shapes.items()}


def network(state: Mapping[str, Tensor], config: BiRefNetConfig = TINY, dtype: torch.dtype = torch.float32) -> BiRefNet:
    """With the weights of `state`, which has exactly those that the network needs."""
    with torch.device("meta"):
        model = BiRefNet(config)
    model.load_state_dict({name: value.to(dtype) for name, value in state.items()}, assign=True)
    return model


def tiny(dtype: torch.dtype = torch.float32) -> BiRefNet:
    return network(tiny_state(), dtype=dtype)


def picture(height: int = 64, width: int = 64) -> Tensor:
    return weights("input", [1, 3, height, width])


# The official network


def test_names_and_shapes_are_those_of_the_official_checkpoint() -> None:
    with torch.device("meta"):
        state = BiRefNet(BiRefNetConfig()).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == OFFICIAL["keys"]


def test_the_full_network_gives_what_the_official_code_gives() -> None:
    for name, start in OFFICIAL["recipe_values"].items():
        made = weights(name, OFFICIAL["keys"].get(name, OFFICIAL["input_shape"])).flatten()[:3]
        assert made.tolist() == pytest.approx(start, abs=1e-8)
    state = {name: weights(name, shape) for name, shape in OFFICIAL["keys"].items()}
    model = network(state, BiRefNetConfig())
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _given, result: seen.update({name: result})

    for name in OFFICIAL["probes"]:
        module = model.squeeze_module if name == "squeeze_module" else model.get_submodule(name)
        module.register_forward_hook(watch(name))
    with torch.inference_mode():
        logits = model(weights("input", OFFICIAL["input_shape"]))
    for name, (shape, *figures) in OFFICIAL["probes"].items():
        values = seen[name]
        _, channels, height, width = values.shape
        middle = values[0, channels // 2, height // 2, width // 2]
        found = [values.mean(), values.std(correction=0), values.flatten()[0], middle, values.flatten()[-1]]
        assert [1, channels, height, width] == shape
        assert [float(value) for value in found] == pytest.approx(figures, abs=1e-4), name
    sample = logits[0, 0][OFFICIAL["logits_rows"]][:, OFFICIAL["logits_columns"]]
    torch.testing.assert_close(sample, torch.tensor(OFFICIAL["logits"]), rtol=0, atol=1e-4)


# Deformable convolution


def direct(x: Tensor, weight: Tensor, offset: Tensor, modulation: Tensor) -> Tensor:
    """The definition, pixel by pixel: four neighbours, of which those outside the map count nothing."""
    batch, channels, height, width = x.shape
    kernel = weight.shape[-1]
    out = torch.zeros(batch, weight.shape[0], height, width, dtype=x.dtype)
    for b, y, column, tap in np.ndindex(batch, height, width, kernel**2):
        row, step = divmod(tap, kernel)
        py = y - kernel // 2 + row + float(offset[b, 2 * tap, y, column])
        px = column - kernel // 2 + step + float(offset[b, 2 * tap + 1, y, column])
        sample = torch.zeros(channels, dtype=x.dtype)
        for ny in (math.floor(py), math.floor(py) + 1):
            for nx in (math.floor(px), math.floor(px) + 1):
                if 0 <= ny < height and 0 <= nx < width:
                    sample += x[b, :, ny, nx] * ((1 - abs(py - ny)) * (1 - abs(px - nx)))
        out[b, :, y, column] += weight[:, :, row, step] @ sample * modulation[b, tap, y, column]
    return out


def deform_case(kernel: int, *, batch: int = 2, height: int = 5, width: int = 6) -> tuple[Tensor, ...]:
    """Offsets of up to 6 pixels: many positions lie outside, some by less than one pixel."""
    return (
        noise("x", [batch, 3, height, width]),
        noise("weight", [4, 3, kernel, kernel]),
        6 * noise("offset", [batch, 2 * kernel**2, height, width]),
        1 + noise("modulation", [batch, kernel**2, height, width]),
    )


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("bound", [1, 2**20])
def test_a_deformable_convolution_is_the_direct_sum(kernel: int, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birefnet, "_COLUMN_BYTES", bound)
    case = deform_case(kernel)
    torch.testing.assert_close(deform_conv(*case), direct(*case), rtol=0, atol=1e-10)


def test_taps_are_taken_in_groups_that_do_not_fit_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    case = deform_case(3, batch=1)
    monkeypatch.setattr(birefnet, "_COLUMN_BYTES", 4 * case[0].numel() * 8)
    torch.testing.assert_close(deform_conv(*case), direct(*case), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_types_keep_sub_pixel_positions_far_along_a_row(dtype: torch.dtype, bound: float) -> None:
    """At column 255 float16 could not tell an offset of 0.06 pixel from none."""
    width = 256
    wave = torch.sin(torch.arange(width) * 2.0).expand(1, 1, 4, width).to(dtype)
    offset = torch.full((1, 2, 4, width), 0.06).to(dtype)
    offset[:, 0] = 0
    case = (wave, torch.ones(1, 1, 1, 1, dtype=dtype), offset, torch.ones(1, 1, 4, width, dtype=dtype))
    exact = deform_conv(*(value.double() for value in case))
    result = deform_conv(*case)
    assert result.dtype == dtype
    assert (result.double() - exact)[..., 128:].abs().max() < bound


def test_a_deformable_convolution_leaves_its_arguments_alone() -> None:
    case = deform_case(3)
    before = [value.clone() for value in case]
    deform_conv(*case)
    assert all(torch.equal(*pair) for pair in zip(case, before, strict=True))


# The backbone's blocks


def plain_block(block: nn.Module, x: Tensor, *, window: int, shift: int) -> Tensor:
    """A Swin block token by token: every token meets those of its window that were its neighbours before the roll."""
    weight = dict(block.named_parameters())
    height, width, channels = x.shape
    heads = weight["attn.relative_position_bias_table"].shape[1]
    tall, wide = (math.ceil(side / window) * window for side in (height, width))

    def layer_norm(values: Tensor, name: str) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * weight[f"{name}.weight"] + weight[f"{name}.bias"]

    def linear(values: Tensor, name: str) -> Tensor:
        return values @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

    padded = torch.zeros(tall, wide, channels, dtype=x.dtype)
    padded[:height, :width] = layer_norm(x, "norm1")
    query, key, value = linear(padded, "attn.qkv").split(channels, -1)

    def region(place: int, side: int) -> int:
        return 0 if place < side - window or not shift else 1 if place < side - shift else 2

    mixed = torch.zeros_like(padded)
    for y, column in np.ndindex(tall, wide):
        for head in range(heads):
            part = slice(head * (channels // heads), (head + 1) * (channels // heads))
            scores, values = [], []
            for ky, kx in np.ndindex(window, window):
                oy, ox = y // window * window + ky, column // window * window + kx
                if (region(oy, tall), region(ox, wide)) != (region(y, tall), region(column, wide)):
                    continue
                here, there = (((a + shift) % tall, (b + shift) % wide) for a, b in ((y, column), (oy, ox)))
                bias = (y - oy + window - 1) * (2 * window - 1) + column - ox + window - 1
                score = query[here][part] @ key[there][part] / math.sqrt(channels // heads)
                scores.append(score + weight["attn.relative_position_bias_table"][bias, head])
                values.append(value[there][part])
            mixed[here][part] = torch.stack(scores).softmax(0) @ torch.stack(values)
    x = x + linear(mixed, "attn.proj")[:height, :width]
    hidden = linear(layer_norm(x, "norm2"), "mlp.fc1")
    return x + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, "mlp.fc2")


@pytest.mark.parametrize(("height", "width"), [(8, 4), (7, 5), (3, 2)], ids=["whole", "padded", "below one window"])
@pytest.mark.parametrize("place", [0, 1], ids=["straight", "shifted"])
def test_a_block_is_the_attention_that_its_definition_says(height: int, width: int, place: int) -> None:
    swin = tiny(DOUBLE).bb
    block, device = swin.layers[1].blocks[place], torch.device("cpu")
    x = noise("map", [2, height, width, 32])
    tall, wide = -(-height // 4) * 4, -(-width // 4) * 4
    apart = strangers(tall, wide, 4, device).repeat(2, 1, 1, 1)
    result = block(x, relative_positions(4, device), apart)
    for one, found in zip(x, result, strict=True):
        torch.testing.assert_close(found, plain_block(block, one, window=4, shift=2 * place), rtol=0, atol=1e-12)


def test_merging_takes_rows_before_columns_and_pads_odd_sides() -> None:
    merging = tiny(DOUBLE).bb.layers[0].downsample
    x = noise("map", [1, 3, 5, 16])
    padded = torch.zeros(1, 4, 6, 16, dtype=DOUBLE)
    padded[:, :3, :5] = x
    parts = [padded[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    normed = nn.functional.layer_norm(torch.cat(parts, -1), (64,), merging.norm.weight, merging.norm.bias, 1e-5)
    torch.testing.assert_close(merging(x), normed @ merging.reduction.weight.T, rtol=0, atol=1e-12)


def test_a_norm_over_the_batch_adds_1e_5_to_the_variance() -> None:
    norm = tiny(DOUBLE).squeeze_module[0].bn_in
    norm.running_var.fill_(1e-5)
    x, column = noise("map", [1, 8, 3, 3]), (1, 8, 1, 1)
    centred = (x - norm.running_mean.view(column)) / math.sqrt(2e-5)
    expected = centred * norm.weight.view(column) + norm.bias.view(column)
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=0)


# The whole network, tiny


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (96, 160), (160, 64)])
def test_any_multiple_of_32_gives_logits_of_its_size(height: int, width: int) -> None:
    logits = tiny()(picture(height, width))
    assert logits.shape == (1, 1, height, width)
    assert logits.isfinite().all()
    assert logits.std() > 0.1


@pytest.mark.parametrize(("height", "width"), [(64, 48), (40, 64)])
def test_other_sides_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny()(picture(height, width))


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)], ids=str
)
def test_each_type_comes_close_to_float64(dtype: torch.dtype, bound: float) -> None:
    exact = tiny(DOUBLE)(picture().double())
    logits = tiny(dtype)(picture().to(dtype))
    assert logits.dtype == dtype
    assert (logits.double() - exact).abs().max() < bound * exact.std()


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    model, pair = tiny(DOUBLE), noise("pair", [2, 3, 64, 64])
    alone = torch.cat([model(one[None]) for one in pair])
    torch.testing.assert_close(model(pair), alone, rtol=0, atol=1e-12)


# Weights


def test_a_network_made_on_meta_works_on_views_of_one_buffer() -> None:
    state = tiny_state()
    flat = torch.cat([value.flatten() for value in state.values()])
    views = flat.split([value.numel() for value in state.values()])
    with torch.device("meta"):
        model = BiRefNet(TINY)
    assigned = {name: view.view(state[name].shape) for name, view in zip(state, views, strict=True)}
    model.load_state_dict(assigned, assign=True)
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))
    logits = model(picture())
    assert torch.equal(logits, tiny()(picture()))
    flat.zero_()
    assert not torch.equal(model(picture()), logits)
    assert not any(value.requires_grad for value in model.parameters())


# Pictures in, mattes out


def test_input_is_an_antialiased_square_in_the_network_s_range() -> None:
    stripes = np.zeros((512, 256, 3), np.uint8)
    stripes[:, ::4] = 255
    stripes.setflags(write=False)
    planes = to_input(stripes, 64)
    assert planes.shape == (1, 3, 64, 64)
    grey = (0.25 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    inner = planes[0, :, :, 2:-2]
    torch.testing.assert_close(inner, grey.view(3, 1, 1).expand_as(inner), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("height", "width"), [(50, 90), (200, 33)])
def test_a_matte_has_the_picture_s_size_and_range(dtype: torch.dtype, height: int, width: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    alpha = matte(tiny(dtype), rgb)
    assert alpha.dtype == np.float32
    assert alpha.shape == (height, width)
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert np.ptp(alpha) > 0.1
    assert np.array_equal(alpha, matte(tiny(dtype), torch.from_numpy(rgb)))


class Fixed(nn.Module):
    """A network that answers every picture alike, with logits (H, W)."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.side = 64
        self.logits = nn.Parameter(logits)

    def forward(self, image: Tensor) -> Tensor:
        return self.logits.expand(1, 1, *image.shape[2:])


def test_a_matte_smaller_than_what_the_network_saw_is_averaged_not_sampled() -> None:
    stripes = torch.where(torch.arange(64) % 4 == 0, 30.0, -30.0).expand(64, 64)
    alpha = matte(Fixed(stripes), np.zeros((16, 16, 3), np.uint8))
    assert alpha[:, 1:-1] == pytest.approx(0.25, abs=1e-5)


def test_rounding_takes_no_matte_beyond_one() -> None:
    assert matte(Fixed(torch.full((64, 64), 30.0)), np.zeros((3, 3, 3), np.uint8)).max() == 1


def test_a_matte_lies_where_the_subject_lies() -> None:
    """A network that answers with the picture itself: the edge comes back on the column where it was."""

    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.side = 64
            self.gain = nn.Parameter(torch.tensor(20.0))

        def forward(self, image: Tensor) -> Tensor:
            return self.gain * image[:, :1]

    rgb = np.zeros((90, 300, 3), np.uint8)
    rgb[:, 120:] = 255
    alpha = matte(Echo(), rgb)
    edge = (alpha > 0.5).argmax(1)
    assert np.all(np.abs(edge - 120) <= 3)
    assert alpha[:, :110].max() < 0.01
    assert alpha[:, 130:].min() > 0.99


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_only_rgb_bytes_are_taken(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        to_input(wrong, 64)
