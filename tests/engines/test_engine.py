# pyright: basic
"""Whole jobs of the diffusion engine in this process, with tiny models, on the CPU."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pytest
import torch
from PIL import Image

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.ad import CompositionMode
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.document import read_document
from ad_agent_mcp.contract.errors import AdAgentError, Cancelled, ErrorCode
from ad_agent_mcp.contract.messages import Inputs
from ad_agent_mcp.contract.stages import EngineName, Stage
from ad_agent_mcp.engines import describe_engine
from ad_agent_mcp.engines.cutout import birefnet
from ad_agent_mcp.engines.diffusion import engine as engine_module
from ad_agent_mcp.engines.diffusion import text
from ad_agent_mcp.engines.diffusion.engine import COMPILING, DiffusionEngine, open_engine
from ad_agent_mcp.engines.diffusion.families.sdxl import sized
from ad_agent_mcp.engines.diffusion.prepare import prepare
from ad_agent_mcp.imaging import contrast
from ad_agent_mcp.imaging.picture import alpha_over, core_of, dilate
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.plan import plan_segment, with_preset_values
from ad_agent_mcp.models.catalog import preset_named
from ad_agent_mcp.models.families.flux1 import TABLE
from ad_agent_mcp.models.library import ModelLibrary
from ad_agent_mcp.models.preset import ENCODE
from ad_agent_mcp.models.schedule import Schedule
from ad_agent_mcp.pipeline.verify import rendering_trouble

from ..imaging.products import bottle, file_bytes, photo, product_corner
from ..pipeline.stored import rendered_again
from .jobs import INFO, STEPS, Events, asked_for, make, pixels
from .simulated import SimulatedDevice

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers with NumPy 2
]
TEXT_STEPS = preset_named("exact").text_steps
GENERATIVE = (Stage.BACKGROUND, Stage.REFINE, Stage.TEXT_PAINT, Stage.BLEND)
LAYERS = ("product", "cutout", "background", "shadow", "step1", "step2", "final")


@pytest.fixture(scope="module")
def device() -> SimulatedDevice:
    return SimulatedDevice()


@pytest.fixture(scope="module")
def engine(tiny_settings: Callable[[str], Settings], device: SimulatedDevice) -> DiffusionEngine:
    """Preset `exact`, warm, on a device that counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "Device", lambda: device)
        return open_engine(tiny_settings("exact"))


@pytest.fixture(scope="module")
def whole(engine: DiffusionEngine, tmp_path_factory: pytest.TempPathFactory):
    """One uninterrupted job: its folder, what it told, its checks."""
    out_dir = tmp_path_factory.mktemp("whole")
    return out_dir, *make(engine, out_dir)


@pytest.fixture
def started(whole, tmp_path: Path) -> Path:
    """A job whose steps 1 and 2 are done."""
    for name in ("given", "cutout", "step1", "step2"):
        shutil.copy(whole[0] / f"{name}.png", tmp_path)
    shutil.copy(whole[0] / "layout.json", tmp_path)
    return tmp_path


def assert_same(out_dir: Path, other: Path, names: tuple[str, ...] = ("final",)) -> None:
    for name in names:
        assert (out_dir / f"{name}.png").read_bytes() == (other / f"{name}.png").read_bytes(), name


def core(out_dir: Path) -> np.ndarray:
    return core_of(pixels(out_dir / "cutout.png", "RGBA")[..., 3])


def truth(height: int, size: tuple[int, int]) -> np.ndarray:
    """The matte of `photo(bottle(height), size=size)`."""
    sheet = Image.new("L", size)
    product = bottle(height)
    sheet.paste(product.getchannel("A"), product_corner(product, size))
    return np.asarray(sheet, np.float32) / 255


# whole jobs


def assert_complete(out_dir: Path, events: Events, checks: dict) -> None:
    plan = INFO.plan((1, 2, 3))
    assert [stage for stage, done, total in events.progress if done == total] == [one.stage for one in plan.stages]
    # diffusers begins img2img at step n - n * strength, rounded down
    counts = {Stage.BACKGROUND: STEPS, Stage.REFINE: 2, Stage.TEXT_PAINT: TEXT_STEPS, Stage.BLEND: 2}
    for stage, count in counts.items():
        assert events.of(stage) == [(done, count) for done in range(1, count + 1)]
    assert events.steps == [1, 2, 3]
    for name in LAYERS:
        with Image.open(out_dir / f"{name}.png") as image:
            image.load()
            assert name in ("product", "step2") or image.size == (256, 256)
    assert checks["product_core_identity"].passed
    assert core(out_dir).sum() > 500
    assert checks["glyph_overlap"].passed


def test_a_whole_job_tells_its_stages_in_order_with_true_counts(whole):
    assert_complete(*whole)


@pytest.mark.parametrize("preset", ["fast", "schnell"])
def test_the_other_presets_make_whole_jobs_too(preset: str, tiny_settings, whole, tmp_path: Path):
    engine = open_engine(tiny_settings(preset))
    events, checks = make(engine, tmp_path)
    assert_complete(tmp_path, events, checks)
    assert (tmp_path / "background.png").read_bytes() != (whole[0] / "background.png").read_bytes()
    engine.unload()


def test_loading_for_each_stage_makes_the_same_ad_and_keeps_nothing(tiny_settings, whole, tmp_path: Path):
    engine = open_engine(tiny_settings("exact").model_copy(update={"residency": "jit"}))
    events, _ = make(engine, tmp_path)
    assert_same(tmp_path, whole[0], LAYERS)
    assert [name for _, name in events.loaded].count("transformer-bf16/a") == 4  # the table's, and three passes
    assert not engine.holds_device


def test_schnell_takes_its_own_number_of_steps_and_says_that_guidance_has_no_effect(tiny_settings, tmp_path: Path):
    engine = open_engine(tiny_settings("schnell"))
    asked = {"num_inference_steps": None, "composition_steps": None, "guidance_scale": 2.0}
    job = Job(id="j", request=asked_for(**asked), engine=EngineName.DIFFUSION, steps=(1, 2, 3), created_at=0.0)
    info = describe_engine(EngineName.DIFFUSION, tiny_settings("schnell"))
    job = with_preset_values(job, info)
    plan, notices = plan_segment(job, info)
    events, _ = make(engine, tmp_path, **{**asked, **info.preset_values})
    planned = {one.stage: one.iterations for one in plan.stages}
    assert {stage: len(events.of(stage)) for stage in GENERATIVE} == {stage: planned[stage] for stage in GENERATIVE}
    assert [planned[stage] for stage in GENERATIVE] == [4, 3, 28, 4]
    assert [notice.code for notice in notices] == ["preset_steps", "not_supported"]
    assert "guidance_scale" in notices[1].message
    assert "composition_guidance_scale" not in notices[1].message


def test_the_same_seed_gives_the_same_pictures_and_another_one_others(engine, whole, tmp_path: Path):
    make(engine, tmp_path / "same")
    assert_same(tmp_path / "same", whole[0], LAYERS)
    make(engine, tmp_path / "other", steps=(1,), seed=6)
    assert (pixels(tmp_path / "other" / "background.png") != pixels(whole[0] / "background.png")).mean() > 0.1


def test_a_job_resumed_between_steps_equals_an_uninterrupted_one(engine, whole, tmp_path: Path):
    for step in (1, 2, 3):
        make(engine, tmp_path, steps=(step,))
    assert_same(tmp_path, whole[0], LAYERS)
    assert (tmp_path / "layout.json").read_bytes() == (whole[0] / "layout.json").read_bytes()


@pytest.mark.parametrize("size", [(330, 261), (256, 840)])
def test_odd_and_long_canvases_are_served(engine, tmp_path: Path, size: tuple[int, int]):
    _, checks = make(engine, tmp_path, width=size[0], height=size[1], num_inference_steps=2)
    assert {pixels(tmp_path / f"{name}.png").shape[1::-1] for name in ("background", "step1", "final")} == {size}
    assert checks["product_core_identity"].passed


def test_without_words_only_step_1_runs_and_no_model_of_step_2_is_loaded(engine, tmp_path: Path):
    engine.unload()
    events, checks = make(engine, tmp_path, steps=(1,), text_content=None)
    assert_same(tmp_path, tmp_path, ("final", "step1"))
    assert pixels(tmp_path / "final.png").shape == (256, 256, 3)
    assert checks["text_contrast"].passed is None
    assert {"transformer-bf16", "flux_vae"} <= events.loaded_models
    assert not {"unet", "controlnet", "sdxl_vae"} & events.loaded_models


def test_an_unlocked_product_is_painted_over_and_not_judged(engine, whole, tmp_path: Path):
    _, checks = make(engine, tmp_path, steps=(1,), product_lock=False, text_content=None)
    assert checks["product_core_identity"].passed is None
    inside = core(tmp_path)
    cutout = pixels(tmp_path / "cutout.png", "RGBA")[inside][:, :3]
    assert (pixels(tmp_path / "step1.png")[inside] != cutout).any(axis=1).mean() > 0.9
    locked = pixels(whole[0] / "step1.png") == pixels(whole[0] / "cutout.png", "RGBA")[..., :3]
    assert locked[core(whole[0])].all()


def test_skipped_passes_leave_the_pictures_before_them(engine, whole, tmp_path: Path):
    events, checks = make(
        engine, tmp_path, skip=frozenset({Stage.REFINE, Stage.BLEND}), strength=0.1, composition_strength=0.1
    )
    assert not events.of(Stage.REFINE)
    assert not events.of(Stage.BLEND)
    assert_same(tmp_path, whole[0], ("background", "cutout", "shadow", "step2"))
    assert checks["product_core_identity"].passed


RENDERED: dict[str, dict] = {
    "overlay": {},
    "blend": {"composition_mode": "blend"},
    "behind": {"composition_mode": "behind"},
    "unlocked": {"product_lock": False},
    "unlocked behind": {"product_lock": False, "composition_mode": "behind"},
    "not refined": {"skip": frozenset({Stage.REFINE})},
    "not refined, behind": {"skip": frozenset({Stage.REFINE}), "composition_mode": "behind"},
    "not blended": {"skip": frozenset({Stage.BLEND})},
    "an odd canvas": {"width": 330, "height": 261},
    "no words": {"steps": (1,), "text_content": None},
    "no words, not refined": {"steps": (1,), "text_content": None, "skip": frozenset({Stage.REFINE})},
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_stored_ad_is_rendered_again_to_the_byte(engine, tmp_path: Path, name: str):
    make(engine, tmp_path, **RENDERED[name])
    assert rendered_again(tmp_path) == (tmp_path / "final.png").read_bytes()
    assert rendering_trouble(tmp_path) is None


@pytest.mark.parametrize("skip", [frozenset(), frozenset({Stage.REFINE})])
def test_a_resumed_ad_is_rendered_again_to_the_byte(engine, tmp_path: Path, skip: frozenset[Stage]):
    for steps in ((1,), (2,), (3,)):
        make(engine, tmp_path, steps=steps, skip=skip, composition_mode="behind")
    assert rendered_again(tmp_path) == (tmp_path / "final.png").read_bytes()


@pytest.mark.parametrize("mode", ["overlay", "behind"])
def test_an_ad_on_a_foreign_step_1_is_rendered_again_to_the_byte(engine, tmp_path: Path, mode: str):
    given = tmp_path / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(200), "gradient", (300, 270))))
    make(engine, tmp_path, steps=(2, 3), inputs=Inputs(step1=given), composition_mode=mode)
    assert rendered_again(tmp_path) == (tmp_path / "final.png").read_bytes()


def test_a_blend_that_the_engine_painted_is_a_layer_and_its_damage_is_told(whole, tmp_path: Path):
    folder = Path(shutil.copytree(whole[0], tmp_path / "job"))
    patch = np.array(Image.open(folder / "blend.png"))
    assert set(np.unique(patch[..., 3])) == {0, 255}
    patch[..., :3] ^= 1
    Image.fromarray(patch).save(folder / "blend.png")
    assert f"{(patch[..., 3] > 0).sum():,} pixels differ" in str(rendering_trouble(folder))


@pytest.mark.parametrize("mode", ["blend", "behind"])
def test_every_mode_keeps_the_product_and_the_words(engine, started: Path, mode: str):
    _, checks = make(engine, started, steps=(3,), composition_mode=mode)
    assert checks["product_core_identity"].passed
    assert checks["glyph_overlap"].passed
    changed = np.abs(pixels(started / "final.png").astype(int) - pixels(started / "step1.png")).max(axis=2) > 0
    assert changed.any()
    assert not changed[200:, :40].any()  # far from the words
    assert read_document((started / "layout.json").read_bytes()).lettering.mode in (mode, "overlay")


def test_what_is_preloaded_is_not_loaded_again(engine, whole, started: Path):
    engine.unload()
    assert not engine.holds_device
    engine.preload(Events().open_stage(Stage.CUT_OUT))
    assert engine.holds_device
    events, _ = make(engine, started, text_content=None, steps=(1,), seed=5)
    assert not {"transformer-bf16", "flux_vae", "birefnet"} & events.loaded_models


# pictures that come from outside


def test_a_photo_is_cut_out_by_the_model_within_the_box(engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def matte(part):
        seen.append(part.shape)
        return truth(400, (700, 800))[: part.shape[0], -part.shape[1] :]

    monkeypatch.setattr(birefnet, "matte", lambda _, part: matte(part))
    events, checks = make(
        engine,
        tmp_path,
        steps=(1,),
        text_content=None,
        picture=photo(bottle(400), size=(700, 800)),
        product_box=(200, 0, 500, 800),
    )
    assert seen == [(800, 548, 3)]
    assert read_document((tmp_path / "layout.json").read_bytes()).product.route == "model"
    assert checks["product_core_identity"].passed
    assert core(tmp_path).sum() > 500
    assert "cutout_uncertain" not in events.codes


def test_a_photo_in_which_the_model_sees_nothing_is_cut_out_without_it(
    engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(birefnet, "matte", lambda _, part: np.zeros(part.shape[:2], np.float32))
    picture = photo(bottle(400), size=(420, 500))
    events, checks = make(engine, tmp_path, steps=(1,), text_content=None, picture=picture)
    assert "cutout_uncertain" in events.codes
    assert checks["product_core_identity"].passed
    assert core(tmp_path).sum() > 500


def test_a_foreign_step_1_of_another_size_is_the_canvas(engine, tmp_path: Path):
    given = tmp_path / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(200), "gradient", (300, 270))))
    events, checks = make(engine, tmp_path, steps=(2, 3), inputs=Inputs(step1=given))
    assert "product_unverified" in events.codes
    assert checks["product_core_identity"].passed is None
    assert pixels(tmp_path / "final.png").shape == (270, 300, 3)
    assert len(events.of(Stage.BLEND)) == 2


def test_foreign_pictures_start_step_3(engine, started: Path):
    letters = Image.new("RGBA", (120, 40))
    letters.paste((20, 20, 60, 255), (10, 10, 110, 30))
    (started / "letters.png").write_bytes(file_bytes(letters))
    given = Inputs(step1=started / "given-step1.png", step2=started / "letters.png")
    given.step1.write_bytes(file_bytes(photo(bottle(200), "gradient", (300, 270))))
    events, checks = make(engine, started, steps=(3,), inputs=given)
    assert {"product_unverified", "text_unverified"} <= set(events.codes)
    assert checks["glyph_overlap"].passed is None
    assert pixels(started / "final.png").shape == (270, 300, 3)


# negative prompts


def begin(engine: DiffusionEngine, *steps: int, **fields: object) -> GenerateRequest:
    request = asked_for(**fields)
    engine.prepare(INFO.plan(steps), request)
    return request


def scene(engine: DiffusionEngine, events: Events, **fields: object) -> np.ndarray:
    request = begin(engine, 1, **fields)
    report = events.open_stage(Stage.BACKGROUND)
    return engine.paint_background(request, size=(256, 256), product=None, seed=3, report=report).image


def lettering(engine: DiffusionEngine, events: Events, **fields: object) -> np.ndarray:
    request = begin(engine, 2, **fields)
    return engine.paint_text(word_mask(), request=request, seed=3, report=events.open_stage(Stage.TEXT_PAINT))


def word_mask() -> np.ndarray:
    mask = np.zeros((96, 240), np.float32)
    mask[30:66, 30:60] = mask[30:66, 90:120] = mask[30:66, 150:210] = 1
    return mask


def test_a_negative_prompt_acts_on_the_letters(engine):
    plain, other = (lettering(engine, Events(), negative_prompt=words) for words in ("dust", "green leaves and moss"))
    assert plain.shape == (96, 240, 4)
    assert (plain != other).any()
    assert "negative_prompt" not in INFO.unused


def test_a_negative_prompt_has_no_effect_on_flux_and_its_description_says_so(engine):
    plain, other = (scene(engine, Events(), bg_negative_prompt=words) for words in ("dust", "green leaves and moss"))
    assert (plain == other).all()
    assert {"bg_negative_prompt", "bg_composition_negative_prompt", "composition_negative_prompt"} == set(INFO.unused)


# long prompts


def test_a_prompt_that_flux_cannot_read_to_its_end_is_told_once_with_its_field_and_what_is_read(engine, tmp_path: Path):
    words = "table " * 120  # to the tiny models each letter is a token
    asked = {"bg_prompt": words, "bg_negative_prompt": words, "text_content": None}
    events, _ = make(engine, tmp_path, steps=(1,), **asked)
    assert events.codes.count("prompt_truncated") == 1
    told = events.text_of("prompt_truncated")
    assert told.startswith("bg_prompt is too long")
    assert int(re.search(r"about its first (\d+) words", told)[1]) in range(98, 103)  # of 512 tokens
    silent = Events()
    scene(engine, silent, bg_prompt="table " * 60)
    assert "prompt_truncated" not in silent.codes


def test_schnell_reads_half_as_much(tiny_settings):
    events = Events()
    scene(open_engine(tiny_settings("schnell")), events, bg_prompt="table " * 60)
    assert "bg_prompt is too long" in events.text_of("prompt_truncated")


# stopping and failing


def assert_nothing_leaks(engine: DiffusionEngine, device: SimulatedDevice) -> None:
    """Every byte on the device belongs to weights that residency knows of, and `unload` gives all back."""
    engine._residency.plan([])
    assert device.used == engine._residency.resident_bytes
    for weights in engine._residency._weights.values():
        if weights.module is not None and not weights.stream:
            spec = next(iter(weights.file.tensors))
            assert weights.module.state_dict()[spec].is_meta is not weights.is_resident


def test_a_stop_while_denoising_keeps_finished_steps_and_harms_no_later_job(engine, device, whole, tmp_path: Path):
    left = (1, 2, 3)
    for stage in GENERATIVE:
        events = Events(on_iteration=lambda at, done, stop=stage: raise_if(at is stop and done == 1))
        with pytest.raises(Cancelled):
            make(engine, tmp_path, steps=left, events=events)
        assert events.of(stage) == [(1, len(whole[1].of(stage)))]
        assert_nothing_leaks(engine, device)
        left = tuple(step for step in left if step not in events.steps)
    make(engine, tmp_path, steps=left)
    assert_same(tmp_path, whole[0], LAYERS)


class CarelessPipeline:
    """A pipeline of diffusers that takes what its callback raises for a passing trouble, and goes on."""

    def __init__(self, pipeline) -> None:
        self.pipeline = pipeline

    def __getattr__(self, name: str):
        return getattr(self.pipeline, name)

    def __call__(self, *, callback_on_step_end, **arguments):
        def guarded(pipe, index, timestep, tensors):
            try:
                return callback_on_step_end(pipe, index, timestep, tensors)
            except Exception:  # noqa: BLE001  # what libraries do
                return tensors

        return self.pipeline(callback_on_step_end=guarded, **arguments)


@pytest.mark.parametrize("stage", GENERATIVE)
def test_no_pipeline_that_swallows_exceptions_of_a_callback_swallows_a_stop(
    stage: Stage, engine, device, whole, tmp_path: Path, monkeypatch
):
    painter = engine._painters[stage]
    if stage is Stage.TEXT_PAINT:
        monkeypatch.setattr(painter, "pipeline", CarelessPipeline(painter.pipeline))
    else:
        monkeypatch.setitem(painter.pipelines, stage, CarelessPipeline(painter.pipelines[stage]))
    step = {Stage.TEXT_PAINT: 2, Stage.BLEND: 3}.get(stage, 1)
    for layer in LAYERS if step > 1 else ():
        shutil.copy(whole[0] / f"{layer}.png", tmp_path)
    shutil.copy(whole[0] / "layout.json", tmp_path)
    with pytest.raises(Cancelled):
        make(
            engine,
            tmp_path,
            steps=(step,),
            events=Events(on_iteration=lambda at, done: raise_if(at is stage and done == 1)),
        )
    assert_nothing_leaks(engine, device)


def test_each_pass_paints_from_noise_of_its_own(engine, whole, tmp_path: Path, monkeypatch):
    seeds: list[int] = []
    make_generator = engine_module._generator

    def noted(seed: int) -> torch.Generator:
        seeds.append(seed)
        return make_generator(seed)

    monkeypatch.setattr(engine_module, "_generator", noted)
    make(engine, tmp_path)
    assert len(seeds) == len(set(seeds)) == len(GENERATIVE)


def raise_if(is_stopped: bool) -> None:
    if is_stopped:
        raise Cancelled


@pytest.mark.parametrize("model", ["transformer-bf16/b", "modulation/a", "unet/a"])
def test_a_stop_while_loading_harms_no_later_job(engine, device, whole, tmp_path: Path, model: str):
    engine.unload()
    assert device.used == 0
    events = Events(on_load=lambda name: raise_if(name == model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "next_missing", lambda *_: [])  # nothing is loaded ahead
        with pytest.raises(Cancelled):
            make(engine, tmp_path, events=events)
    assert_nothing_leaks(engine, device)
    make(engine, tmp_path, steps=tuple(step for step in (1, 2, 3) if step not in events.steps))
    assert_same(tmp_path, whole[0])


class RunsOut:
    """Wraps residency's `run`: the body of a stage runs out of memory so many times."""

    def __init__(self, engine: DiffusionEngine, times: dict[str, int]) -> None:
        self.run, self.times = engine._residency.run, times

    def __call__(self, stage, body, report, *, shrink):
        times = left = self.times.get(stage, 0)

        def failing():
            nonlocal left
            result = None if 0 < left < times else body()  # once at its end, then at once
            if left:
                left -= 1
                raise torch.OutOfMemoryError("simulated")
            return result

        return self.run(stage, failing, report, shrink=shrink)


@pytest.fixture
def full_tiles(engine):
    """Tiles as a fresh worker has them, before and after."""

    def reset() -> None:
        engine._models._tile_index = 0
        engine._models._set_tiles()

    reset()
    yield
    reset()


RUNGS = ("everything that this stage does not need", "tiles of 256", "fewer models are kept")
FAILING = (ENCODE, TABLE, Stage.BACKGROUND, Stage.REFINE, Stage.TEXT_PAINT, Stage.TEXT_CUT_OUT, Stage.BLEND)


@pytest.mark.usefixtures("full_tiles")
def test_every_stage_that_runs_out_of_memory_goes_down_the_ladder_and_the_ad_is_the_same(
    engine, device, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(engine._models.cache._folder)
    engine.unload()
    monkeypatch.setattr(engine._residency, "run", RunsOut(engine, dict.fromkeys(FAILING, 4) | {ENCODE: 5}))
    events, checks = make(engine, tmp_path)
    told = events.text_of("memory_rung").splitlines()
    # The tiles stay small, so only the first stage meets that rung.
    wanted = [RUNGS[0], RUNGS[1], RUNGS[2]] + [RUNGS[0], RUNGS[2]] * 6
    assert len(told) == len(wanted)
    assert all(part in sentence for part, sentence in zip(wanted, told, strict=True))
    assert checks["product_core_identity"].passed
    assert_same(tmp_path, whole[0], LAYERS)
    assert_nothing_leaks(engine, device)


@pytest.mark.usefixtures("full_tiles")
def test_a_stage_that_never_has_enough_memory_fails_the_job_and_nothing_stays(
    engine, device, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(engine._models.cache._folder)
    engine.unload()
    left = (1, 2, 3)
    for stage in FAILING:
        events = Events()
        with monkeypatch.context() as patch:
            patch.setattr(engine._residency, "run", RunsOut(engine, {stage: 99}))
            with pytest.raises(AdAgentError) as caught:
                make(engine, tmp_path, steps=left, events=events)
        assert caught.value.info.code is ErrorCode.OUT_OF_MEMORY
        assert events.codes.count("memory_rung") >= 2
        assert device.used == 0
        assert engine._painters[Stage.BLEND].modulation._outputs.is_meta
        left = tuple(step for step in left if step not in events.steps)
    make(engine, tmp_path, steps=left)
    assert_same(tmp_path, whole[0], LAYERS)


@pytest.mark.usefixtures("full_tiles")
def test_weights_that_find_no_room_push_others_out(engine, device, whole, started: Path):
    make(engine, started, steps=(3,))  # the transformer is there
    engine._residency.plan([])
    for name in ("step2", "final"):
        (started / f"{name}.png").unlink()
    sizes = engine._residency._weights
    room = sum(sizes[f"{name}/a"].file.nbytes for name in ("unet", "controlnet", "sdxl_vae", "birefnet"))
    device.capacity = max(device.used, room) + 4096
    try:
        events, _ = make(engine, started, steps=(2,))
    finally:
        device.capacity = 1 << 40
    assert RUNGS[0] in events.text_of("memory_rung")
    assert_same(started, whole[0], ("step2",))


# compiling


def test_flux_that_cannot_be_compiled_paints_the_same_uncompiled_and_says_so_once(engine, whole, started: Path):
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        raise RuntimeError("Failed to find C compiler")

    engine._models.transformer.compile_repeated_blocks(fullgraph=True, backend=broken)
    events = Events()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "is_usable", lambda: False)  # a broken driver is another matter
            with pytest.raises(RuntimeError, match="C compiler"):
                make(engine, started, steps=(3,), events=events)
        assert "not_compiled" not in events.codes
        events, _ = make(engine, started, steps=(3,))
    finally:
        assert not engine._compiling.give_up()
    assert events.codes.count("not_compiled") == 1
    assert_same(started, whole[0])


@pytest.mark.parametrize(
    ("error", "is_of_compiling"),
    [(CalledProcessError(1, "gcc"), True), (FileNotFoundError("gcc"), True), (KeyError("a defect of ours"), False)],
)
def test_only_what_compilers_raise_makes_flux_run_uncompiled(
    engine, started: Path, error: Exception, is_of_compiling: bool
):
    def fail(*_: object, **__: object) -> None:
        raise error

    engine._models.transformer._compiled_call_impl = fail
    events = Events()
    try:
        with nullcontext() if is_of_compiling else pytest.raises(KeyError):
            make(engine, started, steps=(3,), events=events)
    finally:
        assert engine._compiling.give_up() is not is_of_compiling
    assert ("not_compiled" in events.codes) is is_of_compiling


def test_compiling_is_told_as_loading_until_the_first_step_is_there(engine, started: Path):
    engine._models.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    told: list[str | int] = []
    blending = Events(lambda stage, done: told.append(done) if stage is Stage.BLEND else None, told.append)
    try:
        make(engine, started, steps=(3,), events=blending)
        assert told[-4:] == [0, COMPILING, 1, 2]
        make(engine, started, steps=(3,), events=blending)
        assert told[-3:] == [0, 1, 2]
        assert told.count(COMPILING) == 1
    finally:
        engine._compiling.give_up()


# letters


@pytest.fixture
def letters_job(engine: DiffusionEngine) -> GenerateRequest:
    return begin(engine, 1, 2, 3)


def test_letters_are_cut_within_their_widened_mask(engine, letters_job, monkeypatch: pytest.MonkeyPatch):
    mask = word_mask()
    painting = np.full((*mask.shape, 4), 200, np.uint8)
    monkeypatch.setattr(birefnet, "matte", lambda _, part: np.ones(part.shape[:2], np.float32))
    letters = engine.cut_out_text(painting, mask, report=Events().open_stage(Stage.TEXT_CUT_OUT))
    assert (letters[mask > 0.5][:, 3] == 255).all()
    assert not letters[..., 3][~dilate(mask > 0.5, 5)].any()
    assert not letters[letters[..., 3] == 0].any()


def test_letters_that_the_model_kept_are_delivered_as_painted(
    engine, started: Path, whole, monkeypatch: pytest.MonkeyPatch
):
    painted = []
    paint = engine.paint_text

    def paint_text(mask, **arguments):
        painted.append((paint(mask, **arguments), mask))
        return painted[-1][0]

    monkeypatch.setattr(engine, "paint_text", paint_text)
    monkeypatch.setattr(birefnet, "matte", lambda _, part: painted[-1][1])
    events, _ = make(engine, started, steps=(2,))
    letters, (painting, _) = pixels(started / "step2.png", "RGBA"), painted[0]
    assert "text_drawn" not in events.codes
    solid = letters[..., 3] == 255
    assert solid.any()
    assert (letters[solid] == painting[: letters.shape[0], : letters.shape[1]][solid]).all()


def test_letters_that_the_model_lost_are_drawn_with_a_warning(whole):
    _, events, checks = whole
    assert "text_drawn" in events.codes
    assert checks["glyph_overlap"].value > 0.95


def test_letters_larger_than_their_painting_are_smooth(engine, monkeypatch: pytest.MonkeyPatch):
    ramp = np.zeros((8, 8, 3), np.uint8) + np.arange(0, 256, 32, dtype=np.uint8)[None, :, None]
    monkeypatch.setattr(engine._painters[Stage.TEXT_PAINT], "_picture", lambda latents: ramp)
    painted = lettering(engine, Events())
    assert painted.shape[1] > 60
    assert np.abs(np.diff(painted[..., 0].astype(int), axis=1)).max() <= np.ceil(256 / painted.shape[1]) + 1


def blend(engine: DiffusionEngine, mode: CompositionMode, *, glow: int = 0):
    image = np.full((256, 256, 3), 120, np.uint8)
    letters = np.zeros((256, 256, 4), np.uint8)
    letters[50:100, 70:190] = (250, 20, 60, glow)
    letters[60:90, 80:180] = (250, 220, 60, 255)
    blended = engine.blend_text(image, letters, mode=mode, seed=3, report=Events().open_stage(Stage.BLEND))
    return image, letters, blended


def test_overlaid_letters_are_put_back_exactly_and_what_is_round_them_is_painted(engine, letters_job):
    image, letters, blended = blend(engine, CompositionMode.OVERLAY)
    solid = letters[..., 3] == 255
    assert (blended[solid] == letters[solid][:, :3]).all()
    near = dilate(solid, 4) & ~solid
    assert (blended[near] != image[near]).any(axis=1).mean() > 0.5
    far = ~dilate(solid, 24)
    assert (blended[far] == image[far]).all()


def test_blended_letters_take_the_scenes_light_and_stay_themselves_for_the_most_part(engine, letters_job):
    image, letters, blended = blend(engine, CompositionMode.BLEND)
    solid = letters[..., 3] == 255
    off = np.abs(blended[solid].astype(int) - letters[solid][:, :3])
    assert off.any()
    assert off.max() <= 0.4 * 255 + 1
    far = ~dilate(solid, 24)
    assert (blended[far] == image[far]).all()


@pytest.mark.parametrize("mode", list(CompositionMode))
def test_a_painter_that_changes_nothing_leaves_letters_and_their_glow_as_laid(
    engine, letters_job, monkeypatch: pytest.MonkeyPatch, mode: CompositionMode
):
    monkeypatch.setattr(engine, "_paint", lambda *_, image, mask_image: np.asarray(image))
    image, letters, blended = blend(engine, mode, glow=120)
    assert np.abs(blended.astype(int) - alpha_over(image, letters)).max() <= 1


def test_the_finished_ad_differs_from_step_1_only_near_letters_that_need_no_scrim(engine, started: Path, monkeypatch):
    monkeypatch.setattr(contrast, "MIN_RATIO", 0)
    events, _ = make(engine, started, steps=(3,))
    assert "text_contrast_remedy" not in dict(events.notices)
    x, y, width, height = read_document((started / "layout.json").read_bytes()).lettering.box
    changed = (pixels(started / "final.png") != pixels(started / "step1.png")).any(axis=2)
    assert changed.any()
    reach = 60  # shadow and feather
    changed[max(0, y - reach) : y + height + reach, max(0, x - reach) : x + width + reach] = False
    assert not changed.any()


def test_a_scrim_fades_towards_the_other_side_of_the_picture(whole):
    out_dir, events, _ = whole
    assert "scrim" in events.text_of("text_contrast_remedy")
    _, y, _, height = read_document((out_dir / "layout.json").read_bytes()).lettering.box
    changed = (pixels(out_dir / "final.png") != pixels(out_dir / "step1.png")).any(axis=2)
    assert not changed[y + height + round(0.45 * len(changed)) :].any()


@pytest.mark.parametrize(
    ("aspect", "size"), [(1, (1024, 1024)), (4, (2048, 512)), (40, (2048, 512)), (0.01, (512, 2048))]
)
def test_letters_are_painted_at_sdxls_number_of_pixels(aspect: float, size: tuple[int, int]):
    assert sized(aspect, 1024) == size


# embeddings


def encoders(engine: DiffusionEngine, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of every time that an encoder runs."""
    asked: list[list[str]] = []
    for encoder in (engine._painters[stage].text for stage in (Stage.BLEND, Stage.TEXT_PAINT)):
        encode = encoder.encode_all
        monkeypatch.setattr(encoder, "encode_all", lambda texts, encode=encode: asked.append([*texts]) or encode(texts))
    return asked


def test_words_are_encoded_once_and_survive_a_restart(
    engine, tiny_settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = {"bg_prompt": "a red door", "text_model_prompt": "jade letters", "negative_prompt": "moss"}
    asked = encoders(engine, monkeypatch)
    make(engine, tmp_path / "first", **words)
    assert [len(texts) for texts in asked] == [3, 2]  # of all stages, together
    fresh = open_engine(tiny_settings("exact"))
    again = encoders(fresh, monkeypatch)
    events, _ = make(fresh, tmp_path / "second", **words)
    assert not again
    assert not {"t5", "clip_l", "sdxl_clip_l", "sdxl_clip_g"} & events.loaded_models
    assert_same(tmp_path / "first", tmp_path / "second", LAYERS)


def test_damaged_embeddings_are_made_again(engine, monkeypatch: pytest.MonkeyPatch):
    events = Events()
    plain = scene(engine, events, bg_prompt="a blue door")
    folder = engine._models.cache._folder
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:200])
    engine.unload()
    asked = encoders(engine, monkeypatch)
    assert (scene(engine, events, bg_prompt="a blue door") == plain).all()
    assert len(asked) == 1
    assert not [path for path in folder.iterdir() if path.suffix != ".safetensors"]


def test_embeddings_are_kept_for_the_text_encoders_that_made_them(engine, tiny_settings, tmp_path: Path):
    settings = tiny_settings("exact")
    moved = tmp_path / "flux"
    shutil.copytree(settings.flux_model, moved)
    config = moved / "text_encoder_2" / "config.json"

    def key(chosen: Settings) -> str:
        for component in engine._preset.components:
            prepare(ModelLibrary(chosen), engine._preset, component, progress=lambda done, total: None)
        return open_engine(chosen)._painters[Stage.BLEND].text._key("words")

    mine, other = (
        engine._painters[Stage.BLEND].text._key("words"),
        settings.model_copy(update={"flux_model": str(moved)}),
    )
    before = key(other)
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    assert len({mine, before, key(other)}) == 3
    assert open_engine(tiny_settings("fast"))._painters[Stage.BLEND].text._key("words") == mine


def test_only_so_many_embeddings_are_kept_the_latest_used_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "REMEMBERED", 3)
    cache = text.PromptCache(tmp_path / "prompts")
    for number in range(3):
        cache.put(str(number), {"embeds": torch.full((1, 2), float(number))})
        os.utime(tmp_path / "prompts" / f"{number}.safetensors", (number, number))
    assert float(cache.get("0")["embeds"][0, 0]) == 0
    for number in (3, 4):
        cache.put(str(number), {"embeds": torch.full((1, 2), float(number))})
    assert sorted(path.stem for path in (tmp_path / "prompts").iterdir()) == ["0", "3", "4"]
    assert cache.get("1") is None


def test_a_full_disk_costs_only_the_memory_of_embeddings(tmp_path: Path):
    (tmp_path / "prompts").write_text("a file where the folder should be")
    cache = text.PromptCache(tmp_path / "prompts")
    cache.put("key", {"embeds": torch.zeros(1, 2)})
    assert cache.get("key") is None


def test_no_log_quotes_a_prompt(engine, capfd: pytest.CaptureFixture[str]):
    scene(engine, Events(), bg_prompt="a yellow submarine " * 30)
    assert "submarine" not in "".join(capfd.readouterr())
