# pyright: basic
"""fp8 layers stay within stated bounds of the layers they replace."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ad_agent_mcp.engines.diffusion import fp8

E4M3 = torch.float8_e4m3fn
DEVICES = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
finite = st.floats(-1e4, 1e4, width=32)


def filled(linear, multiply):
    """`linear` in fp8, its weights assigned the way a prepared file is."""
    holder = nn.Sequential(linear)
    state = holder.state_dict()
    fp8.replace_linears(holder, lambda _: True, multiply)
    assert holder[0].weight.is_meta
    state["0.weight"], state["0.weight_scale"] = fp8.quantise_rows(state["0.weight"])
    holder.load_state_dict(state, assign=True)
    return holder[0]


def layer(inputs=256, outputs=128, bias=True, dtype=torch.bfloat16, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)


def relative_error(got, wanted):
    return ((got.float() - wanted.float()).norm() / wanted.float().norm()).item()


@settings(deadline=None, max_examples=60)
@given(st.lists(finite, min_size=16, max_size=16), st.sampled_from([torch.float32, torch.bfloat16]))
def test_each_element_comes_back_within_a_sixteenth_or_a_thousandth_of_the_scale(values, dtype):
    weight = torch.tensor([values] * 16).to(dtype)
    quantised, scale = fp8.quantise_rows(weight)
    assert (quantised.dtype, scale.dtype, scale.shape) == (E4M3, torch.float32, (16, 1))
    back = quantised.float() * scale
    bound = torch.maximum(weight.float().abs() / 16, scale / 1024) * (1 + 1e-5)
    assert ((back - weight.float()).abs() <= bound).all()


@settings(deadline=None, max_examples=30)
@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_the_largest_of_a_row_is_kept_whatever_its_size(largest):
    weight = torch.zeros(16, 16)
    weight[:, 3] = -largest
    quantised, scale = fp8.quantise_rows(weight)
    if largest > 1e-9:
        assert torch.allclose(quantised.float() * scale, weight, rtol=1e-6, atol=0)
    assert quantised.float().isfinite().all()


def test_rows_are_scaled_one_by_one_and_zero_rows_stay_zero():
    weight = torch.ones(16, 32) * torch.logspace(-6, 6, 16)[:, None]
    weight[5] = 0
    quantised, scale = fp8.quantise_rows(weight)
    assert torch.allclose(quantised.float() * scale, weight, rtol=1e-6, atol=0)
    assert (quantised[5].float() == 0).all()
    assert scale.isfinite().all()


@pytest.mark.parametrize("shape", [(24, 16), (16, 40), (16,), (16, 16, 16)])
def test_a_shape_that_the_kernel_does_not_take_is_refused(shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        fp8.quantise_rows(torch.ones(shape))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_damaged_weight_is_refused(bad):
    weight = torch.ones(16, 16)
    weight[3, 4] = bad
    with pytest.raises(ValueError, match="not finite"):
        fp8.quantise_rows(weight)


def test_layers_that_the_kernel_does_not_take_stay_as_they_are():
    module = nn.ModuleDict({"odd": nn.Linear(24, 16), "other": nn.Linear(16, 16), "wanted": nn.Linear(16, 32)})
    assert fp8.replace_linears(module, lambda name: name != "other", fp8.multiply_emulated) == ["wanted"]
    assert [type(child) for child in module.children()] == [nn.Linear, nn.Linear, fp8.Fp8Linear]
    assert set(module.state_dict()) >= {"wanted.weight", "wanted.weight_scale", "wanted.bias", "odd.weight"}


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("multiply", [fp8.multiply_scaled, fp8.multiply_emulated])
@pytest.mark.parametrize("bias", [True, False])
def test_every_multiplication_is_the_product_of_the_quantised_operands(device, multiply, bias):
    linear = layer(bias=bias).to(device)
    tokens = torch.randn(2, 37, 256, generator=torch.Generator().manual_seed(1)).to(device, torch.bfloat16)
    product = filled(linear, multiply)(tokens)
    weight, weight_scale = fp8.quantise_rows(linear.weight)
    rows = tokens.reshape(-1, 256).float()
    scale = rows.abs().amax(1, keepdim=True) / 448
    wanted = (rows / scale).to(E4M3).double().mul(scale) @ weight.double().mul(weight_scale).t()
    wanted = (wanted if linear.bias is None else wanted + linear.bias).reshape(2, 37, 128)
    assert product.dtype == torch.bfloat16
    assert (product - wanted).abs().max() <= 2**-7 * wanted.abs().max()
    assert relative_error(product, wanted) < 0.003


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_layer_is_within_four_percent_of_the_one_it_replaces(device):
    linear = layer(1024, 256).to(device)
    tokens = torch.randn(64, 1024, generator=torch.Generator().manual_seed(2)).to(device, torch.bfloat16)
    tokens[7] *= 1000  # a loud token takes nothing from the others
    product = filled(linear, fp8.multiply_on(device))(tokens)
    assert max(relative_error(*pair) for pair in zip(product, linear(tokens), strict=True)) < 0.05


def test_zero_tokens_give_the_bias_and_a_nan_stays_in_its_token():
    linear = layer()
    tokens = torch.zeros(3, 256, dtype=torch.bfloat16)
    tokens[1, 5] = float("nan")
    product = filled(linear, fp8.multiply_emulated)(tokens)
    assert torch.equal(product[0], linear.bias)
    assert torch.equal(product[2], linear.bias)
    assert product[1].isnan().all()


def test_a_shell_on_meta_tells_the_shape_of_its_output():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(32, 48))
        fp8.replace_linears(module, lambda _: True, fp8.multiply_scaled)
        assert module(torch.empty(2, 5, 32, dtype=torch.bfloat16)).shape == (2, 5, 48)


@pytest.mark.parametrize("multiply", [fp8.multiply_scaled, fp8.multiply_emulated])
def test_a_layer_compiles_into_one_graph(multiply):
    linear = filled(layer(), multiply)
    tokens = torch.randn(8, 256).to(torch.bfloat16)
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(tokens), linear(tokens))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_transformer_with_fp8_blocks_is_within_three_percent(tiny_flux, device):
    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer", dtype=torch.bfloat16).to(device)
    noise = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=noise).to(device, torch.bfloat16)

    given = {
        "hidden_states": random(1, 16, 64),
        "encoder_hidden_states": random(1, 8, 64),
        "pooled_projections": random(1, 32),
        "timestep": torch.tensor([0.7], device=device, dtype=torch.bfloat16),
        "guidance": torch.tensor([3.5], device=device),
        "txt_ids": torch.zeros(8, 3, device=device),
        "img_ids": torch.zeros(16, 3, device=device),
        "return_dict": False,
    }
    with torch.no_grad():
        plain = transformer(**given)[0]
        state = transformer.state_dict()
        in_blocks = fp8.replace_linears(
            transformer,
            lambda name: "transformer_blocks." in name and "norm" not in name,
            fp8.multiply_on(device),
        )
        assert len(in_blocks) == 2 * 12 + 4 * 5
        for name in in_blocks:
            state[f"{name}.weight"], state[f"{name}.weight_scale"] = fp8.quantise_rows(state[f"{name}.weight"])
        transformer.load_state_dict(state, assign=True)
        error = relative_error(transformer(**given)[0], plain)
    assert 0.001 < error < 0.03
