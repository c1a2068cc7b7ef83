"""The job as a value: whatever events come, progress never goes back and what is over stays over."""

import time

from hypothesis import given
from hypothesis import strategies as st

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import JobDone, JobEvent, JobFailed, JobNotice, StageProgress, StepResult
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName, Stage
from ad_agent_mcp.jobs.job import Estimate, Job, advance, new_job_id, requeue, start, steps_to_run
from ad_agent_mcp.jobs.plan import plan_segment

from .traces import EXACT

ID = "00000000-0000-7000-8000-000000000000"


def running_job(request: GenerateRequest, *, percent: float = 0.0) -> Job:
    engine = EngineName.DIFFUSION
    job = Job(
        id=ID, request=request, engine=engine, steps=steps_to_run(request), created_at=0.0, percent=percent, owner="a"
    )
    plan, _ = plan_segment(job, EXACT)
    expected = {planned.stage: Estimate(0.0, float(planned.iterations)) for planned in plan.stages}
    return start(job, plan, expected, at=0.0, owner="a")


requests = st.builds(
    GenerateRequest,
    start_step=st.integers(1, 3),
    text_content=st.sampled_from([None, "words"]),
    pause_after_step=st.sampled_from([None, 1, 2]),
).filter(lambda request: steps_to_run(request) != ())
progress = st.builds(
    lambda stage, done, total: StageProgress(job_id=ID, stage=stage, done=min(done, total), total=total),
    st.sampled_from(Stage),
    st.integers(0, 50),
    st.integers(1, 50),
)
events = st.one_of(
    progress,
    st.builds(lambda step: StepResult(job_id=ID, step=step, files={}, width=1, height=1), st.integers(1, 3)),
    st.just(JobDone(job_id=ID)),
    st.builds(
        lambda code: JobFailed(job_id=ID, error=ErrorInfo(code=code, message="")),
        st.sampled_from([ErrorCode.CANCELLED, ErrorCode.ENGINE_FAILED]),
    ),
    st.builds(lambda code: JobNotice(job_id=ID, code=code, message="m"), st.sampled_from(["a", "b"])),
)


@given(requests, st.lists(events), st.floats(0, 66))
def test_progress_never_goes_back_and_a_finished_job_never_changes(
    request: GenerateRequest, sequence: list[JobEvent], percent: float
):
    job = running_job(request, percent=percent)
    assert job.percent >= percent
    for at, event in enumerate(sequence):
        after = advance(job, event, at=float(at))
        assert after.percent >= job.percent
        assert job.status is JobState.RUNNING or after == job
        assert after.status is JobState.COMPLETED or after.percent < 100
        assert (after.error is not None) == (after.status is JobState.FAILED)
        job = after
    assert Job.model_validate_json(job.model_dump_json(by_alias=True)) == job


def test_steps_begin_where_the_contract_says():
    for start_step, low in ((1, 0), (2, 33), (3, 66)):
        job = running_job(GenerateRequest(start_step=start_step, text_content="words"))
        assert job.percent == low
        first = job.plan.stages[0].stage if job.plan else Stage.CUT_OUT
        job = advance(job, StageProgress(job_id=ID, stage=first, done=0, total=1), at=0.0)
        assert int(job.percent) == low


def test_percent_follows_measured_time_inside_a_step():
    job = running_job(GenerateRequest(text_content="words"))
    seconds = {Stage.CUT_OUT: 10.0, Stage.BACKGROUND: 80.0, Stage.COMPOSITE: 0.0, Stage.REFINE: 10.0}
    slow = {stage: Estimate(0.0, seconds.get(stage, 1.0)) for stage in job.expected}
    job = job.model_copy(update={"expected": slow})
    job = advance(job, StageProgress(job_id=ID, stage=Stage.CUT_OUT, done=1, total=1), at=1.0)
    assert round(job.percent, 2) == 3.3
    job = advance(job, StageProgress(job_id=ID, stage=Stage.BACKGROUND, done=14, total=28), at=2.0)
    assert round(job.percent, 2) == 16.5


def test_the_estimate_counts_down_and_goes_negative():
    job = running_job(GenerateRequest(text_content="words"))
    total = sum(stage.whole_s for stage in job.expected.values())
    assert job.ends_at == total
    job = advance(job, StageProgress(job_id=ID, stage=Stage.CUT_OUT, done=1, total=1), at=10.0)
    assert job.ends_at == 10.0 + total - job.expected[Stage.CUT_OUT].whole_s
    assert job.step_ends_at is not None
    assert job.step_ends_at < job.ends_at


def test_a_job_without_words_spends_all_its_percent_on_the_scene():
    job = running_job(GenerateRequest())
    job = advance(job, StageProgress(job_id=ID, stage=Stage.REFINE, done=1, total=1), at=1.0)
    assert job.percent == 99


def test_a_pause_ends_the_segment_and_not_the_job():
    job = running_job(GenerateRequest(text_content="words", pause_after_step=1))
    assert job.plan is not None
    assert job.plan.steps == (1,)
    job = advance(job, StepResult(job_id=ID, step=1, files={"step1": "f"}, width=1, height=1), at=1.0)
    job = advance(job, JobDone(job_id=ID), at=2.0)
    assert (job.status, job.waiting_for, int(job.percent)) == (JobState.PENDING, "approval", 33)
    assert job.remaining_steps == (2, 3)
    assert job.ran_s == 2.0


def test_a_stopped_job_has_no_error_and_keeps_its_steps():
    job = running_job(GenerateRequest(text_content="words"))
    job = advance(job, StepResult(job_id=ID, step=1, files={}, width=1, height=1), at=1.0)
    failed = JobFailed(job_id=ID, error=ErrorInfo(code=ErrorCode.CANCELLED, message="stopped"))
    job = advance(job, failed, at=2.0)
    assert (job.status, job.error, list(job.finished)) == (JobState.STOPPED, None, [1])


def test_a_requeued_job_keeps_its_percent_when_it_starts_again():
    job = running_job(GenerateRequest(text_content="words"))
    job = advance(job, StepResult(job_id=ID, step=1, files={}, width=1, height=1), at=1.0)
    job = advance(job, StageProgress(job_id=ID, stage=Stage.TEXT_PAINT, done=20, total=28), at=2.0)
    again = requeue(job, at=3.0, owner="b", is_retry=True)
    plan, _ = plan_segment(again, EXACT)
    assert plan.steps == (2, 3)
    restarted = start(again, plan, {planned.stage: Estimate(0.0, 1.0) for planned in plan.stages}, at=4.0, owner="b")
    assert restarted.percent == job.percent > 33
    assert (restarted.retries, restarted.owner) == (1, "b")


def test_a_pass_of_less_than_one_iteration_is_skipped_and_said():
    request = GenerateRequest(text_content="words", strength=0.01, composition_strength=0.0)
    job = Job(id=ID, request=request, engine=EngineName.DIFFUSION, steps=(1, 2, 3), created_at=0.0)
    plan, notices = plan_segment(job, EXACT)
    stages = [planned.stage for planned in plan.stages]
    assert Stage.REFINE not in stages
    assert Stage.BLEND not in stages
    assert [notice.code for notice in notices] == ["pass_skipped", "pass_skipped"]


def test_job_ids_are_uuids_that_sort_by_time():
    ids = []
    for _ in range(3):
        ids.append(new_job_id())
        deadline = time.time_ns() + 2_000_000
        while time.time_ns() < deadline:
            pass
    assert ids == sorted(ids)
    assert all(job_id[14] == "7" and job_id[19] in "89ab" for job_id in ids)
