"""What clients are told about the rest of a job holds: replayed from recorded jobs, and from made-up ones of a GPU."""

import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import JobFailed, ModelMoved, StageProgress
from ad_agent_mcp.contract.stages import STAGES, EngineName, Plan, Stage
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.estimates import LoadState, StageTimes
from ad_agent_mcp.jobs.job import Job, advance, move_model, share_of, start
from ad_agent_mcp.jobs.plan import plan_segment
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api import views
from ad_agent_mcp.mcp_api.views import JobStatus

from .traces import BEGAN, DRAFT, EXACT, ID, Trace, diffusion_trace, replay

WORDS = GenerateRequest(text_content="Summer Sale")
MEGAPIXEL = 1024 * 1024
WARM, COLD, STARTING = LoadState.WARM, LoadState.COLD, LoadState.STARTING


def made_up(found: tuple[LoadState, ...], **changes: int) -> list[Trace]:
    request = WORDS.model_copy(update=changes)
    return [diffusion_trace(request, found=state, seed=number) for number, state in enumerate(found)]


def sequence(name: str) -> list[Trace]:
    if name in DRAFT:
        return DRAFT[name]
    return made_up((COLD, *[WARM] * 7) if name == "diffusion, kept loaded" else (COLD,) * 8)


# Scenes differ in the work that placing words on them takes: four jobs in four scenes are not three of a kind.
KINDS = [*(set(DRAFT) - {"scenes"}), "diffusion, kept loaded", "diffusion, loaded for every job"]


@pytest.fixture
def times(tmp_path: Path) -> StageTimes:
    return StageTimes(tmp_path / "times.json")


def told_total_s(job: Job) -> float:
    assert job.ends_at is not None
    return job.ends_at - BEGAN


@pytest.mark.parametrize("name", sorted(KINDS))
def test_after_three_jobs_of_a_kind_the_told_total_is_right_within_15_percent(name: str, times: StageTimes):
    at_start: list[float] = []
    on_average: list[float] = []
    for trace in sequence(name):
        told = replay(trace, times)
        at_start.append(abs(told_total_s(told[0][1]) / trace.total_s - 1))
        errors = [(until - at) * abs(told_total_s(job) / trace.total_s - 1) for (at, job), (until, _) in pairwise(told)]
        on_average.append(sum(errors) / trace.total_s)
    assert len(at_start) >= 5
    assert statistics.median(at_start[3:]) <= 0.15
    assert statistics.median(on_average[3:]) <= 0.15


@pytest.mark.parametrize("name", [*sorted(KINDS), "scenes"])
def test_percent_never_jumps_back_and_ends_at_100(name: str, times: StageTimes):
    for trace in sequence(name):
        told = [job.percent for _, job in replay(trace, times)]
        assert told == sorted(told)
        assert told[0] == 0
        assert told[-1] == 100


@settings(max_examples=40)
@given(
    found=st.sampled_from(LoadState),
    learned=st.lists(st.sampled_from(LoadState), max_size=3),
    noise=st.floats(0, 1),
    iterations=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_percent_never_jumps_back_however_uneven_the_job_is(
    found: LoadState, learned: list[LoadState], noise: float, iterations: int, seed: int
):
    times = StageTimes(Path("nothing is read here"))
    for number, state in enumerate(learned):
        replay(diffusion_trace(WORDS, found=state, seed=number), times)
    request = WORDS.model_copy(update={"num_inference_steps": iterations})
    told = replay(diffusion_trace(request, found=found, seed=seed, noise=noise), times)
    percents = [job.percent for _, job in told]
    assert percents == sorted(percents)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_percent_at_the_end_of_a_stage_is_its_share_of_the_steps_time(name: str, times: StageTimes):
    errors: list[float] = []
    for number, trace in enumerate(sequence(name)):
        told = replay(trace, times)
        if number < 3:
            continue
        begins = {job.stage: (at, job) for at, job in reversed(told) if job.stage}
        stages = list(begins)[::-1]
        step_begins = {STAGES[stage].step: begins[stage][0] for stage in reversed(stages)}
        step_begins[STAGES[stages[0]].step] = 0.0
        step_ends = {step: step_begins.get(step + 1, trace.total_s) for step in step_begins}
        for stage in stages[1:]:
            step = STAGES[stage].step
            if begins[stage][0] > step_begins[step]:
                at, job = begins[stage]
                low, high = share_of(job, step)
                done = (at - step_begins[step]) / (step_ends[step] - step_begins[step])
                errors.append(abs(job.percent - (low + (high - low) * done)))
    assert statistics.mean(errors) <= 3
    assert max(errors) <= 12


def status_at(job: Job, at: float, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> JobStatus:
    monkeypatch.setattr(views.time, "time", lambda: BEGAN + at)
    return views.job_status(job, store=store, locate=lambda job_id, name: name, metrics=None)


def test_the_estimate_counts_down_between_updates_goes_negative_and_is_null_when_nothing_runs(
    times: StageTimes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = JobStore(tmp_path)
    *running, (end, done) = replay(made_up((COLD,))[0], times)
    for at, job in running:
        told = [status_at(job, at + later, store, monkeypatch) for later in (0, 1, 2, 500)]
        seconds = [status.eta_seconds for status in told]
        of_step = [status.step_eta_seconds for status in told]
        for etas in (seconds, of_step):
            assert all(isinstance(eta, int) for eta in etas)
            assert [(etas[0] or 0) - (eta or 0) for eta in etas] == [0, 1, 2, 500]
            assert (etas[-1] or 0) < 0
        assert (of_step[0] or 0) <= (seconds[0] or 0)
    over = status_at(done, end + 1, store, monkeypatch)
    assert (over.eta_seconds, over.step_eta_seconds) == (None, None)


def plan_of(request: GenerateRequest, engine: EngineName = EngineName.DIFFUSION) -> Plan:
    job = Job(id=ID, request=request, engine=engine, steps=(1, 2, 3), created_at=0.0)
    return plan_segment(job, EXACT)[0]


def test_an_unseen_size_is_expected_from_the_nearest_one_that_is_known(times: StageTimes):
    for side in (1024, 2048):
        replay(made_up((WARM,), width=side, height=side)[0], times)
    square, portrait, large, huge = (
        times.expect(plan_of(WORDS), EXACT, pixels=pixels, found=WARM)
        for pixels in (MEGAPIXEL, 1080 * 1350, 2048 * 2048, 2048 * 1900)
    )
    assert portrait[Stage.BACKGROUND].work_s / square[Stage.BACKGROUND].work_s == pytest.approx(1080 * 1350 / MEGAPIXEL)
    assert huge[Stage.BACKGROUND].work_s / large[Stage.BACKGROUND].work_s == pytest.approx(1900 / 2048)
    assert portrait[Stage.CUT_OUT] == square[Stage.CUT_OUT]


def test_a_size_nobody_asked_for_yet_is_told_within_15_percent_after_three_jobs_of_another(times: StageTimes):
    first = next(number for number, trace in enumerate(DRAFT["sizes"]) if trace.request.height == 1350)
    for trace in DRAFT["sizes"][:first]:
        replay(trace, times)
    portrait = DRAFT["sizes"][first]
    assert first == 3
    assert told_total_s(replay(portrait, times)[0][1]) == pytest.approx(portrait.total_s, rel=0.15)


def test_fewer_iterations_take_less_time_also_where_models_had_to_be_loaded(tmp_path: Path):
    few = GenerateRequest(text_content="Summer Sale", num_inference_steps=4)
    unknown, known = StageTimes(tmp_path / "unknown.json"), StageTimes(tmp_path / "known.json")
    replay(made_up((COLD,))[0], known)
    for times in (unknown, known):
        less, more = (
            times.expect(plan_of(request), EXACT, pixels=MEGAPIXEL, found=COLD)[Stage.BACKGROUND]
            for request in (few, WORDS)
        )
        assert more.work_s / less.work_s == pytest.approx(7)
        assert more.lead_s == less.lead_s > 0
    trace = diffusion_trace(few, found=COLD, seed=9)
    assert told_total_s(replay(trace, known)[0][1]) == pytest.approx(trace.total_s, rel=0.15)


def test_one_cold_job_teaches_what_a_warm_one_takes(times: StageTimes):
    cold, warm = made_up((COLD, WARM))
    assert cold.total_s > 1.3 * warm.total_s
    replay(cold, times)
    assert told_total_s(replay(warm, times)[0][1]) == pytest.approx(warm.total_s, rel=0.1)
    again = made_up((COLD,))[0]
    assert told_total_s(replay(again, times)[0][1]) == pytest.approx(again.total_s, rel=0.1)


def test_a_load_that_takes_longer_than_ever_moves_the_end_when_it_is_over(times: StageTimes):
    plan = plan_of(WORDS)
    job = Job(id=ID, request=WORDS, engine=EngineName.DIFFUSION, steps=(1, 2, 3), created_at=BEGAN)
    job = start(job, plan, times.expect(plan, EXACT, pixels=MEGAPIXEL, found=WARM), at=BEGAN, owner="a")
    job = advance(job, StageProgress(job_id=ID, stage=Stage.CUT_OUT, done=0, total=1), at=BEGAN)
    at_first = told_total_s(job)
    job = move_model(job, ModelMoved(model="birefnet", state="loading"), at=BEGAN)
    assert job.sub_step == "loading_birefnet"
    job = move_model(job, ModelMoved(model="birefnet", state="loaded"), at=BEGAN + 300)
    assert told_total_s(job) == pytest.approx(at_first + 300)


def test_what_stages_took_is_kept_for_the_next_server_and_a_broken_file_is_not_believed(tmp_path: Path):
    path = tmp_path / "times.json"
    times, plan = StageTimes(path), plan_of(WORDS)
    shipped = times.expect(plan, EXACT, pixels=MEGAPIXEL, found=COLD)
    replay(made_up((COLD,))[0], times)
    times.save()
    learned = StageTimes(path).expect(plan, EXACT, pixels=MEGAPIXEL, found=COLD)
    assert learned == times.expect(plan, EXACT, pixels=MEGAPIXEL, found=COLD) != shipped
    for broken in ('{"not json', "[]", '{"work_s": {"a": {"0": [1]}}}', '{"work_s": {"a": {"9": []}}}'):
        path.write_text(broken)
        assert StageTimes(path).expect(plan, EXACT, pixels=MEGAPIXEL, found=COLD) == shipped


def test_one_slow_job_among_many_changes_no_expectation_much(times: StageTimes):
    for trace in made_up((WARM, WARM, WARM)):
        replay(trace, times)
    before = times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM)[Stage.BACKGROUND].work_s
    slow = diffusion_trace(WORDS, found=WARM, seed=1)
    replay(Trace(slow.engine, slow.request, WARM, tuple((at * 20, event) for at, event in slow.events)), times)
    after = times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM)[Stage.BACKGROUND].work_s
    assert after == pytest.approx(before, rel=0.1)


def test_what_is_remembered_stays_small_however_many_sizes_are_asked_for(tmp_path: Path):
    path = tmp_path / "times.json"
    times = StageTimes(path)
    for number in range(60):
        side = 256 + 30 * number
        replay(diffusion_trace(WORDS.model_copy(update={"width": side}), found=WARM, seed=number), times)
    times.save()
    assert path.stat().st_size < 6_000


def test_a_clock_that_is_set_back_teaches_nothing(times: StageTimes):
    shipped = times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM)
    job = Job(id=ID, request=WORDS, engine=EngineName.DIFFUSION, steps=(1, 2, 3), created_at=BEGAN)
    job = start(job, plan_of(WORDS), shipped, at=BEGAN, owner="a")
    for at, stage in ((BEGAN, Stage.CUT_OUT), (BEGAN - 3600, Stage.BACKGROUND)):
        after = advance(job, StageProgress(job_id=ID, stage=stage, done=0, total=1), at=at)
        assert times.learn(job, after, at=at, found=WARM) is None
        job = after
    assert times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM) == shipped


@pytest.mark.parametrize("code", [ErrorCode.CANCELLED, ErrorCode.ENGINE_FAILED])
def test_a_stage_that_was_cut_short_teaches_nothing(code: ErrorCode, times: StageTimes):
    shipped = times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM)
    trace = made_up((WARM,))[0]
    end = JobFailed(job_id=ID, error=ErrorInfo(code=code, message=""))
    cut = next(
        number for number, (_, event) in enumerate(trace.events) if isinstance(event, StageProgress) and event.done
    )
    replay(Trace(trace.engine, trace.request, WARM, (*trace.events[:cut], (0.5, end))), times)
    assert times.expect(plan_of(WORDS), EXACT, pixels=MEGAPIXEL, found=WARM) == shipped


def test_what_engines_say_of_themselves_is_kept_for_the_next_server(tmp_path: Path):
    path = tmp_path / "times.json"
    times = StageTimes(path)
    assert times.engine(EngineName.DIFFUSION, "exact") is None
    times.introduce((INFO, EXACT))
    times.save()
    again = StageTimes(path)
    assert again.engine(EngineName.DIFFUSION, "exact") == EXACT
    assert again.engine(EngineName.DRAFT, "draft") == INFO
    assert again.engine(EngineName.DIFFUSION, "fast") is None
    faster = EXACT.model_copy(update={"unused": ()})
    again.introduce((faster,))
    assert again.engine(EngineName.DIFFUSION, "exact") == faster
