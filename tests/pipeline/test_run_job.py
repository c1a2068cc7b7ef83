"""Whole jobs of the draft engine in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.document import read_document
from ad_agent_mcp.contract.errors import AdAgentError, Cancelled, ErrorCode
from ad_agent_mcp.contract.messages import Inputs, StartJob
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.contract.texts import Text
from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.files import sha256_of
from ad_agent_mcp.imaging.picture import core_of
from ad_agent_mcp.pipeline import run
from ad_agent_mcp.pipeline.run import run_job

from ..imaging.products import bottle, file_bytes, photo

SIZE = {"width": 400, "height": 384}


class Report:
    def __init__(self, stage: Stage, events: "Events") -> None:
        self.stage, self.events = stage, events

    def iteration(self, done: int, total: int) -> None:
        self.events.on_iteration(self.stage)
        self.events.progress.append((self.stage, done, total))

    def notice(self, code: str, text: Text) -> None:
        self.events.notice(code, text)

    def model_moved(self, *args: object, **kwargs: object) -> None:
        return None


class Events:
    """Remembers everything, and that each reported layer was on disk."""

    def __init__(self, out_dir: Path, on_iteration: Callable[[Stage], None] = lambda stage: None) -> None:
        self.out_dir, self.on_iteration = out_dir, on_iteration
        self.progress: list[tuple[Stage, int, int]] = []
        self.notices: list[tuple[str, str]] = []
        self.steps: list[tuple[int, dict[str, str], tuple[int, int]]] = []

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.notices]

    def open_stage(self, stage: Stage) -> Report:
        report = Report(stage, self)
        report.iteration(0, 1)
        return report

    def notice(self, code: str, text: Text) -> None:
        assert any("가" <= character <= "힣" for character in text.in_("ko"))
        self.notices.append((code, text.en))

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        for name, digest in files.items():
            assert sha256_of((self.out_dir / f"{name}.png").read_bytes()) == digest
        self.steps.append((step, files, size))


def make(
    out_dir: Path,
    *,
    steps: tuple[int, ...] = (1, 2, 3),
    inputs: Inputs | None = None,
    events: Events | None = None,
    engine: DraftEngine | None = None,
    picture: Image.Image | None = None,
    skip: frozenset[Stage] = frozenset(),
    **request: object,
):
    out_dir.mkdir(exist_ok=True)
    if inputs is None:
        source = out_dir / "given.png"
        source.write_bytes(file_bytes(picture or photo(bottle(400), "gradient", (420, 500))))
        inputs = Inputs(product=source)
    asked = GenerateRequest.model_validate({"text_content": "여름 세일", "seed": 5, **SIZE, **request})
    plan = INFO.plan(steps, dict.fromkeys(skip, 0))
    job = StartJob(job_id="job-1", request=asked, plan=plan, inputs=inputs, out_dir=out_dir)
    events = events or Events(out_dir)
    checks = run_job(job, engine or DraftEngine(), events)
    return events, {check.name: check for check in checks}


def pixels(path: Path, mode: str = "RGB"):
    return np.asarray(Image.open(path).convert(mode))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def core(out_dir: Path):
    return core_of(pixels(out_dir / "cutout.png", "RGBA")[..., 3])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted job."""
    out_dir = tmp_path_factory.mktemp("whole")
    events, checks = make(out_dir)
    return out_dir, events, checks


def test_every_step_reports_its_layers_once_they_are_on_disk(whole):
    _, events, _ = whole
    assert [(step, sorted(files)) for step, files, _ in events.steps] == [
        (1, ["background", "cutout", "product", "shadow", "step1"]),
        (2, ["step2"]),
        (3, ["final"]),
    ]
    assert {size for *_, size in events.steps} == {(400, 384)}


def test_layers_have_the_canvas_size_and_the_document_describes_them(whole):
    out_dir, _, _ = whole
    for name in ("cutout", "background", "shadow", "step1", "final"):
        assert size_of(out_dir / f"{name}.png") == (400, 384)
    document = read_document((out_dir / "layout.json").read_bytes())
    assert document.lettering is not None
    assert document.product is not None
    assert document.lettering.words.content == "여름 세일"
    assert document.lettering.size == size_of(out_dir / "step2.png")
    x, y, width, height = document.lettering.box
    change = pixels(out_dir / "final.png").astype(int) - pixels(out_dir / "step1.png")
    # Letters have edges; a scrim has none but where it passes behind the product.
    edges = (np.abs(np.diff(change, axis=1, prepend=change[:, :1])) > 60).any(axis=2)
    free = np.asarray(Image.open(out_dir / "cutout.png"))[..., 3] == 0
    rows, columns = np.nonzero(edges & free & np.roll(free, 1, axis=1))
    assert x - 2 <= columns.min() <= columns.max() <= x + width + 2
    assert y - 2 <= rows.min() <= rows.max() <= y + height + 2


def test_no_old_ground_shines_round_a_dark_product_on_a_darkened_ground(tmp_path: Path):
    product = np.zeros((1200, 1200, 4), np.uint8)
    cv2.circle(product, (600, 600), 560, (20, 40, 70, 255), -1, cv2.LINE_AA)
    picture = Image.fromarray(product).resize((300, 300), Image.Resampling.LANCZOS)
    look = {"bg_prompt": "bright white studio", "text_model_prompt": "silver chrome", "text_content": "SUMMER\nSALE"}
    events, _ = make(tmp_path, picture=picture, text_position="center", **look)
    assert "scrim" in dict(events.notices)["text_contrast_remedy"]
    final, alpha = pixels(tmp_path / "final.png").mean(axis=2), pixels(tmp_path / "cutout.png", "RGBA")[..., 3]
    top = np.flatnonzero((alpha == 255).any(axis=1))[0]
    near = np.s_[top - 4 : top + 30, :]
    soft, ground = (alpha[near] > 20) & (alpha[near] < 235), final[top - 12 : top - 8].mean()
    assert ground < 90 < pixels(tmp_path / "step1.png").mean()
    assert final[near][soft].mean() < ground


def test_every_planned_stage_is_closed_in_order(whole):
    _, events, _ = whole
    plan = INFO.plan((1, 2, 3))
    closed = [stage for stage, done, total in events.progress if done == total]
    assert closed == [planned.stage for planned in plan.stages]


def test_the_product_stays_the_product(whole):
    out_dir, _, checks = whole
    assert checks["product_core_identity"].passed
    document = read_document((out_dir / "layout.json").read_bytes())
    inside = core(out_dir)
    assert inside.sum() > 3000
    assert (pixels(out_dir / "final.png")[inside] == pixels(out_dir / "cutout.png", "RGBA")[inside][:, :3]).all()
    x, y, width, height = document.product.source_box
    left, top, placed_width, placed_height = document.product.placed_box
    wanted = Image.open(out_dir / "given.png").resize(
        (placed_width, placed_height), Image.Resampling.LANCZOS, box=(x, y, x + width, y + height)
    )
    part = np.s_[top : top + placed_height, left : left + placed_width]
    difference = np.abs(pixels(out_dir / "final.png")[part].astype(int) - np.asarray(wanted))
    assert difference[inside[part]].max() <= 1


def test_all_six_checks_pass_on_an_easy_ad(whole):
    _, _, checks = whole
    names = ["product_core_identity", "glyph_overlap", "text_contrast", "text_product_overlap", "safe_margins"]
    assert list(checks) == [*names, "text_size"]
    assert all(check.passed for check in checks.values())


def test_the_same_request_gives_the_same_bytes(whole, tmp_path):
    out_dir, _, _ = whole
    make(tmp_path)
    for name in ("product", "cutout", "background", "shadow", "step1", "step2", "final"):
        assert (tmp_path / f"{name}.png").read_bytes() == (out_dir / f"{name}.png").read_bytes(), name


def test_another_seed_gives_another_scene(whole, tmp_path):
    make(tmp_path, steps=(1,), seed=6)
    assert (tmp_path / "step1.png").read_bytes() != (whole[0] / "step1.png").read_bytes()


@pytest.mark.parametrize("cuts", [((1,), (2,), (3,)), ((1,), (2, 3)), ((1, 2), (3,))])
def test_a_job_resumed_between_steps_equals_an_uninterrupted_one(whole, tmp_path, cuts):
    for steps in cuts:
        source = whole[0] / "given.png"
        given = Inputs(product=source) if 1 in steps else Inputs(product=source, has_step1_layers=True)
        make(tmp_path, steps=steps, inputs=given)
    assert (tmp_path / "final.png").read_bytes() == (whole[0] / "final.png").read_bytes()
    assert (tmp_path / "layout.json").read_bytes() == (whole[0] / "layout.json").read_bytes()


@pytest.mark.parametrize("stage", [Stage.CUT_OUT, Stage.REFINE, Stage.TEXT_PAINT, Stage.PLACEMENT, Stage.FINISH])
def test_a_job_can_be_cancelled_in_any_stage_and_keeps_finished_steps(tmp_path, stage):
    def cancel(at: Stage) -> None:
        if at is stage:
            raise Cancelled

    events = Events(tmp_path, cancel)
    with pytest.raises(Cancelled):
        make(tmp_path, events=events)
    finished = {
        Stage.CUT_OUT: [],
        Stage.REFINE: [],
        Stage.TEXT_PAINT: [1],
        Stage.PLACEMENT: [1, 2],
        Stage.FINISH: [1, 2],
    }
    assert [step for step, *_ in events.steps] == finished[stage]
    assert not (tmp_path / "final.png").exists()
    assert not list(tmp_path.glob(".*"))


class Careless(DraftEngine):
    """As a library would be that takes any exception for a passing trouble, and goes on."""

    def cut_out(self, photo, *, product_box, report):
        return self._again(super().cut_out, photo, product_box=product_box, report=report)

    def paint_background(self, request, *, size, product, seed, report):
        return self._again(super().paint_background, request, size=size, product=product, seed=seed, report=report)

    def paint_text(self, mask, *, request, seed, report):
        return self._again(super().paint_text, mask, request=request, seed=seed, report=report)

    @staticmethod
    def _again(operation, *given, report, **named):
        try:
            return operation(*given, report=report, **named)
        except Exception:  # noqa: BLE001  # what libraries do
            return operation(*given, report=SimpleNamespace(iteration=ignore, notice=ignore), **named)


def ignore(*_: object) -> None: ...


@pytest.mark.parametrize("stage", [Stage.CUT_OUT, Stage.BACKGROUND, Stage.TEXT_PAINT])
def test_no_library_that_swallows_exceptions_swallows_a_stop(tmp_path, stage):
    asked: list[Stage] = []

    def cancel(at: Stage) -> None:
        if at is stage and at in asked:  # not where the pipeline opens it, but inside the engine
            raise Cancelled
        asked.append(at)

    with pytest.raises(Cancelled):
        make(tmp_path, engine=Careless(), events=Events(tmp_path, cancel))


class SeedBook(DraftEngine):
    """Remembers the seed that each operation was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: dict[str, int] = {}

    def paint_background(self, request, *, size, product, seed, report):
        self.seeds["background"] = seed
        return super().paint_background(request, size=size, product=product, seed=seed, report=report)

    def refine(self, image, *, seed, report):
        self.seeds["refine"] = seed
        return super().refine(image, seed=seed, report=report)

    def paint_text(self, mask, *, request, seed, report):
        self.seeds["text"] = seed
        return super().paint_text(mask, request=request, seed=seed, report=report)

    def blend_text(self, image, letters, *, mode, seed, report):
        self.seeds["blend"] = seed
        return super().blend_text(image, letters, mode=mode, seed=seed, report=report)


def test_each_stage_has_a_seed_of_its_own_that_follows_from_the_jobs_however_the_stage_is_reached(tmp_path):
    given = tmp_path / "given.png"
    given.write_bytes(file_bytes(photo(bottle(400), "gradient", (420, 500))))
    told = []
    for name, seed, cuts in (("whole", 5, [(1, 2, 3)]), ("cut", 5, [(1,), (2,), (3,)]), ("other", 6, [(1, 2, 3)])):
        engine = SeedBook()
        for steps in cuts:
            inputs = Inputs(product=given, has_step1_layers=1 not in steps)
            make(tmp_path / name, steps=steps, inputs=inputs, engine=engine, seed=seed)
        told.append(engine.seeds)
    whole, cut, other = told
    assert list(whole) == ["background", "refine", "text", "blend"]
    assert cut == whole
    assert len({*whole.values(), *other.values()}) == 8


def test_without_words_step_1_is_the_ad(tmp_path):
    events, checks = make(tmp_path, steps=(1,), text_content=None)
    assert (tmp_path / "final.png").read_bytes() == (tmp_path / "step1.png").read_bytes()
    assert "final" in events.steps[0][1]
    assert checks["product_core_identity"].passed
    assert checks["text_contrast"].passed is None


def test_without_words_a_given_step_1_is_the_ad(tmp_path):
    given = tmp_path / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(300), "white", (300, 320))))
    events, checks = make(tmp_path, steps=(), text_content=None, inputs=Inputs(step1=given))
    assert (pixels(tmp_path / "final.png") == pixels(given)).all()
    assert set(events.steps[-1][1]) == {"step1", "final"}
    assert all(check.passed is None for check in checks.values())


def test_a_job_that_drops_the_words_of_an_earlier_one_describes_none(whole, tmp_path):
    for name in ("step1.png", "cutout.png", "layout.json"):
        shutil.copy(whole[0] / name, tmp_path / name)
    _, checks = make(tmp_path, steps=(), text_content=None, inputs=Inputs(has_step1_layers=True))
    document = read_document((tmp_path / "layout.json").read_bytes())
    assert document.product is not None
    assert (document.objects, document.under) == ((), ())
    assert checks["product_core_identity"].passed


def test_a_pause_after_step_1_leaves_the_ad_unfinished(tmp_path):
    _, checks = make(tmp_path, steps=(1,))
    assert not checks
    assert not (tmp_path / "final.png").exists()


@pytest.mark.parametrize("mode", ["overlay", "blend", "behind"])
@pytest.mark.parametrize("position", ["top", "center", "bottom", "auto"])
def test_every_mode_and_position_keeps_product_and_margins(tmp_path, mode, position):
    _, checks = make(tmp_path, composition_mode=mode, text_position=position, text_content="Slow\nMorning")
    assert checks["product_core_identity"].passed
    assert checks["safe_margins"].passed
    assert checks["glyph_overlap"].passed


def test_behind_brings_the_product_to_the_front(tmp_path):
    make(tmp_path, composition_mode="behind", text_content="SUMMER")
    document = read_document((tmp_path / "layout.json").read_bytes())
    assert document.lettering.mode == "behind"
    inside = core(tmp_path)
    assert (pixels(tmp_path / "final.png")[inside] == pixels(tmp_path / "cutout.png", "RGBA")[inside][:, :3]).all()


def test_real_alpha_is_used_as_it_is(tmp_path):
    _, checks = make(tmp_path, picture=bottle(500), steps=(1,), text_content=None)
    assert checks["product_core_identity"].passed
    assert read_document((tmp_path / "layout.json").read_bytes()).product.route == "alpha"


def test_a_photo_over_the_working_size_keeps_the_identity_promise(tmp_path):
    picture = photo(bottle(2000), "gradient", (2100, 2600))
    _, checks = make(tmp_path, picture=picture, steps=(1,), text_content=None)
    assert checks["product_core_identity"].passed
    assert max(size_of(tmp_path / "product.png")) == 2048


@pytest.mark.parametrize("size", [(256, 256), (257, 301), (700, 256)])
def test_odd_canvases_are_served(tmp_path, size):
    events, checks = make(tmp_path, width=size[0], height=size[1])
    assert events.steps[-1][2] == size
    assert checks["product_core_identity"].passed


def test_a_foreign_step_1_is_the_canvas_and_says_that_nothing_is_verified(tmp_path):
    given = tmp_path / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(300), "gradient", (500, 420))))
    events, checks = make(tmp_path, steps=(2, 3), inputs=Inputs(step1=given))
    assert "product_unverified" in events.codes
    assert checks["product_core_identity"].passed is None
    assert size_of(tmp_path / "final.png") == (500, 420)
    assert set(events.steps[0][1]) == {"step1", "cutout", "step2"}


def test_a_foreign_step_1_job_resumes_at_step_3_like_an_uninterrupted_one(tmp_path):
    given = tmp_path / "edited.png"
    given.write_bytes(file_bytes(photo(bottle(300), "gradient", (500, 420))))
    for name, cuts in (("one", ((2, 3),)), ("two", ((2,), (3,)))):
        for steps in cuts:
            make(tmp_path / name, steps=steps, inputs=Inputs(step1=given))
    assert (tmp_path / "one" / "final.png").read_bytes() == (tmp_path / "two" / "final.png").read_bytes()


def test_foreign_letters_are_used_and_reported_unverified(whole, tmp_path):
    letters = Image.new("RGBA", (200, 60), (0, 0, 0, 0))
    letters.paste((20, 20, 60, 255), (10, 10, 190, 50))
    given = tmp_path / "letters.png"
    given.write_bytes(file_bytes(letters))
    make(tmp_path, steps=(1,))
    events, checks = make(tmp_path, steps=(3,), inputs=Inputs(step2=given, has_step1_layers=True))
    assert "text_unverified" in events.codes
    assert checks["glyph_overlap"].passed is None
    assert checks["product_core_identity"].passed


def test_translucent_foreign_letters_stand_where_they_were_wanted(tmp_path):
    letters = Image.new("RGBA", (200, 60), (0, 0, 0, 0))
    letters.paste((20, 20, 60, 110), (10, 10, 190, 50))
    given = tmp_path / "letters.png"
    given.write_bytes(file_bytes(letters))
    make(tmp_path, steps=(1,))
    make(tmp_path, steps=(3,), inputs=Inputs(step2=given, has_step1_layers=True), text_position="top")
    x, y, width, height = read_document((tmp_path / "layout.json").read_bytes()).lettering.box
    assert abs(x + width / 2 - 200) <= 2
    assert y + height < 192


def test_words_too_small_for_a_solid_pixel_are_set_and_reported(tmp_path):
    _, checks = make(
        tmp_path, width=256, height=256, text_content="\n".join("·" * 60), font_name="NanumPen/NanumPen.ttf"
    )
    assert checks["product_core_identity"].passed
    assert checks["glyph_overlap"].passed is False


@pytest.mark.parametrize("steps", [(2, 3), (3,)])
def test_a_missing_earlier_picture_is_named(tmp_path, steps):
    with pytest.raises(AdAgentError) as caught:
        make(tmp_path, steps=steps, inputs=Inputs())
    assert caught.value.info.code is ErrorCode.INVALID_REQUEST
    assert caught.value.info.field == "step1_image"


class Repainting(DraftEngine):
    """Changes every pixel in every pass, as a diffusion model does."""

    def refine(self, image, **kwargs):
        super().refine(image, **kwargs)
        return 255 - image

    def blend_text(self, image, letters, **kwargs):
        return 255 - super().blend_text(image, letters, **kwargs)


def test_a_locked_product_survives_an_engine_that_repaints_everything(tmp_path):
    _, checks = make(tmp_path, engine=Repainting())
    assert checks["product_core_identity"].passed


class Washing(DraftEngine):
    """Leaves nearly nothing of the letters."""

    def blend_text(self, image, letters, **kwargs):
        faint = letters.copy()
        faint[..., 3] //= 20
        return super().blend_text(image, faint, **kwargs)


def test_faint_words_that_were_not_blended_are_not_told_to_be(tmp_path):
    events, checks = make(tmp_path, text_content="가" * 200, width=256, height=256)
    assert not checks["text_contrast"].passed
    assert "blend_reduced" not in events.codes


def test_words_that_blending_made_illegible_are_brought_back_with_a_warning(whole, tmp_path):
    events, checks = make(tmp_path, engine=Washing())
    assert "blend_reduced" in events.codes
    assert "blend_reduced" not in whole[1].codes
    assert checks["text_contrast"].passed


def test_an_unlocked_product_stays_as_painted_and_is_not_judged(tmp_path):
    _, checks = make(tmp_path, engine=Repainting(), product_lock=False)
    assert checks["product_core_identity"].passed is None
    inside = core(tmp_path)
    cutout = pixels(tmp_path / "cutout.png", "RGBA")[inside][:, :3]
    assert (pixels(tmp_path / "step1.png")[inside] == 255 - cutout).mean() > 0.9


def test_a_changed_product_fails_the_job_before_it_is_delivered(tmp_path, monkeypatch):
    composed = run.make_composition

    def tamper(workspace):
        workspace.pictures["step1.png"] = np.clip(workspace.step1.astype(int) + 1, 0, 255).astype(np.uint8)
        return composed(workspace)

    monkeypatch.setattr(run, "make_composition", tamper)
    with pytest.raises(AdAgentError) as caught:
        make(tmp_path)
    assert caught.value.info.code is ErrorCode.CHECK_FAILED
    assert not (tmp_path / "final.png").exists()


def test_skipped_passes_are_left_out(tmp_path):
    events, checks = make(tmp_path, skip=frozenset({Stage.REFINE, Stage.BLEND}))
    assert not {Stage.REFINE, Stage.BLEND} & {stage for stage, *_ in events.progress}
    assert checks["product_core_identity"].passed


def test_characters_without_a_glyph_are_refused(tmp_path):
    with pytest.raises(AdAgentError) as caught:
        make(tmp_path, text_content="hot \U0001fae0")
    assert caught.value.info.field == "text_content"


def test_a_product_box_hint_is_followed_in_the_photo(tmp_path):
    picture = Image.new("RGB", (1000, 500), (248, 248, 248))
    for left in (100, 700):
        picture.paste(bottle(400), (left, 50), bottle(400))
    make(tmp_path, picture=picture, product_box=(690, 40, 190, 430), steps=(1,))
    document = read_document((tmp_path / "layout.json").read_bytes())
    assert document.product.source_box[0] > 650


def test_without_a_shaping_library_korean_is_set_with_a_notice_and_arabic_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ad_agent_mcp.pipeline.text_asset.has_shaping", lambda: False)
    events, _ = make(tmp_path / "korean", text_content="봄 세일")
    assert "shaping_limited" in events.codes
    with pytest.raises(AdAgentError) as refusal:
        make(tmp_path / "arabic", text_content="سلام")
    assert "libfribidi0" in str(refusal.value)


def test_words_with_nothing_to_draw_are_refused_before_they_are_painted(tmp_path):
    events = Events(tmp_path)
    with pytest.raises(AdAgentError, match="nothing to see"):
        make(tmp_path, events=events, text_content="\u2060\u00ad\u2060")
    assert Stage.TEXT_PAINT not in {stage for stage, _, _ in events.progress}


def test_letters_too_small_to_read_are_told_before_they_are_painted_and_in_the_checks(tmp_path):
    def look(stage):
        if stage is Stage.TEXT_PAINT:
            assert "text_small" in events.codes

    events = Events(tmp_path, on_iteration=look)
    _, checks = make(tmp_path, events=events, text_content="\n".join(f"{line}번째 줄" for line in range(1, 21)))
    missed = checks["text_size"]
    assert missed.passed is False
    assert missed.value < missed.limit == 0.02
    assert missed.fix is not None
    again = {name: value for name, value in missed.fix.arguments.items() if name not in ("resume_job_id", "start_step")}
    assert "text_small" not in make(tmp_path, steps=(2, 3), inputs=Inputs(has_step1_layers=True), **again)[0].codes


def test_two_hundred_characters_are_set_large_enough_to_be_read(tmp_path):
    _, checks = make(tmp_path, text_content="가나다라 마바사아 " * 20)
    assert checks["text_size"].passed


def test_what_letters_do_not_follow_is_told(tmp_path):
    events, _ = make(tmp_path, text_model_prompt="blue balloon with tiny stars")
    told = dict(events.notices)["lettering_simplified"]
    assert "balloon, blue" in told
    assert "tiny, stars" in told
    events, _ = make(tmp_path, steps=(2, 3), inputs=Inputs(has_step1_layers=True), text_model_prompt="blue balloon")
    assert "lettering_simplified" not in events.codes


@pytest.mark.parametrize(("first", "then"), [("top", "center"), ("top", "bottom"), ("bottom", "center")])
def test_a_place_for_words_without_effect_is_told_with_the_call_that_makes_room(tmp_path, first, then):
    events, _ = make(tmp_path, text_position=first)
    assert "text_position_unused" not in events.codes
    layers, photo_of = Inputs(has_step1_layers=True), {"product_image": "ad://jobs/x/product.png"}
    events, _ = make(tmp_path, steps=(2, 3), inputs=layers, text_position=then, **photo_of)
    told = dict(events.notices)["text_position_unused"]
    assert f"generate(resume_job_id='job-1', start_step=1, text_position='{then}')" in told
    events, _ = make(tmp_path, text_position=then, **photo_of)
    assert "text_position_unused" not in events.codes
