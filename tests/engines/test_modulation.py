# pyright: basic
"""A transformer that reads its modulation from the table paints what the whole one paints."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from torch._dynamo.testing import CompileCounter

from ad_agent_mcp.engines.diffusion.families.flux1_modulation import Modulation, flux_rows

from .tiny_models import TRANSFORMER

WIDTH, HEIGHT, GUIDANCE = 64, 96, 3.5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS = (WIDTH // 16) * (HEIGHT // 16)
PIPELINES = [(FluxPipeline, None), (FluxImg2ImgPipeline, 0.6), (FluxInpaintPipeline, 0.85)]


def load(folder, dtype=torch.bfloat16):
    pipeline = FluxPipeline.from_pretrained(
        folder, dtype=dtype, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(DEVICE)


def picture(seed, size):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def paint(pipeline, kind, strength, *, steps=3, size=(WIDTH, HEIGHT), prompt=0, guidance=GUIDANCE):
    """Final latents of one pass of pipeline class `kind` on the models of `pipeline`."""
    components = pipeline.components
    components.pop("image_encoder"), components.pop("feature_extractor")
    of_kind = kind(**components)
    of_kind.set_progress_bar_config(disable=True)
    words = torch.Generator().manual_seed(prompt)

    def random(*shape):
        return torch.randn(shape, generator=words).to(DEVICE, pipeline.transformer.dtype)

    given = {"prompt_embeds": random(1, 8, 64), "pooled_prompt_embeds": pooled_of(pipeline, prompt)}
    if strength is not None:
        given |= {"image": picture(1, size), "strength": strength}
    if kind is FluxInpaintPipeline:
        given["mask_image"] = picture(2, size).convert("L")
    generator = torch.Generator().manual_seed(5)
    return of_kind(
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generator,
        output_type="latent",
        **given,
    ).images


def pooled_of(pipeline, prompt):
    words = torch.Generator().manual_seed(100 + prompt)
    return torch.randn(1, 32, generator=words).to(DEVICE, pipeline.transformer.dtype)


def rows_of(pipeline, strength, *, steps=3, tokens=TOKENS, prompt=0):
    return flux_rows(
        pipeline.scheduler.config,
        steps=steps,
        strength=strength,
        image_tokens=tokens,
        guidance=GUIDANCE if pipeline.transformer.config.guidance_embeds else None,
        pooled=pooled_of(pipeline, prompt),
    )


def strip(transformer):
    """The modulation of `transformer`, and where its weights are found from now on."""
    state = {name: tensor.cpu() for name, tensor in transformer.state_dict().items()}
    modulation = Modulation(transformer)
    return modulation, [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in modulation.names]


@pytest.fixture
def row_by_row(monkeypatch):
    """The table is multiplied as the plain model does it, so that it has to be the same bit by bit."""

    def fill(self, rows, weights):
        with monkeypatch.context() as patch:
            linear = torch.nn.functional.linear
            patch.setattr(
                torch.nn.functional, "linear", lambda x, *w: torch.cat([linear(row, *w) for row in x.split(1)])
            )
            whole(self, rows, weights)

    whole = Modulation.fill
    monkeypatch.setattr(Modulation, "fill", fill)


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize("folder", ["tiny_flux", "tiny_flux_schnell"])
@pytest.mark.parametrize(("kind", "strength"), PIPELINES)
def test_latents_from_the_table_equal_the_plain_ones_bit_for_bit(folder, kind, strength, request):
    pipeline = load(request.getfixturevalue(folder))
    plain = paint(pipeline, kind, strength)
    modulation, weights = strip(pipeline.transformer)
    rows = rows_of(pipeline, strength)
    modulation.fill(rows, weights)
    with modulation.reading(range(len(rows))):
        from_table = paint(pipeline, kind, strength)
    assert torch.equal(plain, from_table)
    assert modulation.calls_made == len(rows) == {None: 3, 0.6: 2, 0.85: 3}[strength]


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize(
    ("steps", "strength", "size"),
    [(1, None, (32, 32)), (7, None, (256, 64)), (5, 0.2, (64, 64)), (7, 0.45, (128, 96)), (3, 1.0, (48, 160))],
)
def test_rows_are_the_calls_for_any_steps_strength_and_size(tiny_flux, steps, strength, size):
    pipeline = load(tiny_flux)
    kind = FluxPipeline if strength is None else FluxImg2ImgPipeline
    plain = paint(pipeline, kind, strength, steps=steps, size=size)
    modulation, weights = strip(pipeline.transformer)
    rows = rows_of(pipeline, strength, steps=steps, tokens=(size[0] // 16) * (size[1] // 16))
    modulation.fill(rows, weights)
    with modulation.reading(range(len(rows))):
        from_table = paint(pipeline, kind, strength, steps=steps, size=size)
    assert torch.equal(plain, from_table)


@pytest.mark.usefixtures("row_by_row")
def test_one_table_serves_the_passes_of_a_job(tiny_flux):
    pipeline = load(tiny_flux)
    passes = [(kind, strength, prompt) for prompt, (kind, strength) in enumerate(PIPELINES)]
    plain = [paint(pipeline, kind, strength, prompt=prompt) for kind, strength, prompt in passes]
    modulation, weights = strip(pipeline.transformer)
    rows = [rows_of(pipeline, strength, prompt=prompt) for _, strength, prompt in passes]
    modulation.fill([row for of_pass in rows for row in of_pass], weights)
    begin = 0
    for (kind, strength, prompt), of_pass, wanted in zip(passes, rows, plain, strict=True):
        with modulation.reading(range(begin, begin + len(of_pass))):
            assert torch.equal(paint(pipeline, kind, strength, prompt=prompt), wanted)
        begin += len(of_pass)


def test_rows_worked_out_together_differ_by_rounding_alone(tiny_flux):
    pipeline = load(tiny_flux, torch.float32)
    plain = paint(pipeline, FluxPipeline, None)
    modulation, weights = strip(pipeline.transformer)
    modulation.fill(rows_of(pipeline, None), weights)
    with modulation.reading(range(3)):
        from_table = paint(pipeline, FluxPipeline, None)
    assert (plain - from_table).abs().max() <= 1e-6 * plain.abs().max()


def test_every_linear_that_sees_the_timestep_alone_is_taken_out():
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(**TRANSFORMER)
    before = dict(transformer.state_dict())
    modulation = Modulation(transformer)
    taken = {key.rpartition(".")[0] for key in before.keys() - transformer.state_dict().keys()}
    assert taken == set(modulation.names)
    assert len(taken) == 2 * TRANSFORMER["num_layers"] + TRANSFORMER["num_single_layers"] + 1
    assert not any("norm" in name and ".linear" in name for name in transformer.state_dict())


@pytest.fixture
def filled(tiny_flux):
    pipeline = load(tiny_flux)
    modulation, weights = strip(pipeline.transformer)
    modulation.fill(rows_of(pipeline, None), weights)
    return pipeline, modulation


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (range(2), "beyond the 2 rows"),
        (range(4), "a table of 3"),
        (range(1, 3), "beyond the 2 rows"),
    ],
)
def test_a_pass_longer_than_its_rows_is_refused(filled, rows, message):
    pipeline, modulation = filled
    with pytest.raises(RuntimeError, match=message), modulation.reading(rows):
        paint(pipeline, FluxPipeline, None)


def test_a_pass_shorter_than_its_rows_is_refused(filled):
    pipeline, modulation = filled
    with pytest.raises(RuntimeError, match="made 2 transformer calls; its table has 3"), modulation.reading(range(3)):
        paint(pipeline, FluxImg2ImgPipeline, 0.6)


@pytest.mark.parametrize("changed", [{"prompt": 1}, {"size": (512, 512)}, {"guidance": 3.6}])
def test_a_pass_that_its_rows_were_not_made_for_is_refused(filled, changed):
    pipeline, modulation = filled
    with pytest.raises(RuntimeError, match="another timestep, guidance or prompt"), modulation.reading(range(3)):
        paint(pipeline, FluxPipeline, None, **changed)


def test_a_call_outside_a_pass_or_after_clearing_is_refused(filled):
    pipeline, modulation = filled
    with pytest.raises(RuntimeError, match="beyond the 0 rows"):
        paint(pipeline, FluxPipeline, None)
    modulation.clear()
    with pytest.raises(RuntimeError, match="a table of 0"), modulation.reading(range(3)):
        pass


def test_what_stops_a_pass_is_not_hidden_and_the_next_pass_reads_its_own_rows(filled):
    pipeline, modulation = filled
    with pytest.raises(KeyboardInterrupt), modulation.reading(range(3)):
        raise KeyboardInterrupt
    with pytest.raises(RuntimeError, match="beyond the 0 rows"):
        paint(pipeline, FluxPipeline, None)
    with modulation.reading(range(3)):
        paint(pipeline, FluxPipeline, None)


def test_the_table_has_exactly_the_rows_of_the_job(filled):
    _, modulation = filled
    width = 64 * (6 * 2 * TRANSFORMER["num_layers"] + 3 * TRANSFORMER["num_single_layers"] + 2)
    assert modulation._outputs.shape == (3, width)
    assert modulation._outputs.dtype == torch.bfloat16


@pytest.mark.usefixtures("row_by_row")
def test_compiled_blocks_are_compiled_as_often_as_the_whole_model_whatever_the_job(tiny_flux):
    def compilations(transformer, passes):
        torch._dynamo.reset()
        counter = CompileCounter()
        transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
        return [(one_pass(), counter.frame_count) for one_pass in passes]

    def one_pass(pipeline, prompt, steps, reading):
        with reading:
            return paint(pipeline, FluxPipeline, None, prompt=prompt, steps=steps)

    jobs = [(0, 1), (1, 2)]
    plain = load(tiny_flux)
    wanted = compilations(
        plain.transformer, [partial(one_pass, plain, prompt, steps, nullcontext()) for prompt, steps in jobs]
    )
    pipeline = load(tiny_flux)
    modulation, weights = strip(pipeline.transformer)

    def from_table(prompt, steps):
        modulation.fill(rows_of(pipeline, None, prompt=prompt, steps=steps), weights)
        return one_pass(pipeline, prompt, steps, modulation.reading(range(steps)))

    got = compilations(pipeline.transformer, [partial(from_table, prompt, steps) for prompt, steps in jobs])
    assert [count for _, count in got] == [count for _, count in wanted]
    assert all(torch.equal(latents, plainly) for (latents, _), (plainly, _) in zip(got, wanted, strict=True))
