"""A slot's state machine against generated sequences of events, in whatever order they come."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import (
    CancelJob,
    Event,
    Inputs,
    JobDone,
    JobFailed,
    JobNotice,
    ModelMoved,
    Ready,
    StageProgress,
    StartJob,
    StepResult,
)
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import STAGES, EngineName, Stage
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.job import Estimate, Job, start
from ad_agent_mcp.jobs.plan import plan_segment
from ad_agent_mcp.jobs.slot_states import (
    Broken,
    Chosen,
    Died,
    Effect,
    Ending,
    Gather,
    Gathered,
    Given,
    Idle,
    Keep,
    Kept,
    Kill,
    Reserved,
    Running,
    Said,
    Send,
    Settle,
    Settling,
    SlotEvent,
    State,
    StopAsked,
    Stopping,
    Tick,
    WorkerReady,
    step,
)

SEQUENCES = 6000
LIMIT_S = 60.0
WHY = ErrorInfo(code=ErrorCode.ENGINE_FAILED, message="broken")
CANCELLED = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")


def job_of(request: GenerateRequest, job_id: str) -> Job:
    """A job as a slot takes it."""
    job = Job(id=job_id, request=request, engine=EngineName.DRAFT, steps=(1, 2, 3), created_at=0.0)
    plan, _ = plan_segment(job, INFO)
    return start(job, plan, {planned.stage: Estimate(0.0, 1.0) for planned in plan.stages}, at=0.0, owner="me")


def command_of(job: Job) -> StartJob:
    assert job.plan is not None
    return StartJob(job_id=job.id, request=job.request, plan=job.plan, inputs=Inputs(), out_dir=Path("/out"))


@dataclass
class Slot:
    """What `slot.py` does, without a worker and a disk: events in, effects kept."""

    state: State = field(default_factory=Idle)
    effects: list[Effect] = field(default_factory=list[Effect])
    worker_takes: bool = True
    at: float = 0.0

    def take(self, event: SlotEvent) -> tuple[Effect, ...]:
        self.at += 0.1
        self.state, effects = step(self.state, event, at=self.at)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.command, StartJob) and self.worker_takes:
                self.take(Given(effect.job))
        return effects

    @property
    def job(self) -> Job | None:
        return None if isinstance(self.state, Idle) else self.state.job


def running(**changes: object) -> tuple[Slot, Job]:
    """A slot whose worker has a job."""
    slot, job = Slot(), job_of(GenerateRequest(text_content="a", seed=1, **changes), "job")  # pyright: ignore[reportArgumentType]
    slot.take(Chosen(job))
    slot.take(Gathered(job, command_of(job)))
    assert isinstance(slot.state, Running)
    return slot, job


def words(dice: random.Random, job: Job) -> list[Event]:
    """What a worker may say of a job: sense and nonsense."""
    stage = dice.choice(list(Stage))
    number = dice.choice([1, 2, 3])
    files = {"step1": "0" * 64} if number == 1 else {}
    return [
        StageProgress(job_id=job.id, stage=stage, done=dice.randint(0, 2), total=2),
        StepResult(job_id=job.id, step=number, files=files, width=8, height=8),
        JobNotice(job_id=job.id, code="text_small", message=str(dice.randint(0, 2))),
        JobDone(job_id=job.id),
        JobFailed(job_id=job.id, error=dice.choice([WHY, CANCELLED]), ends_worker=dice.random() < 0.2),
        JobDone(job_id="another"),
        ModelMoved(model="m", state=dice.choice(["loading", "loaded", "unloaded"])),
        Ready(pid=1, engine=EngineName.DRAFT, device="cpu", presets=("draft",)),
    ]


def any_event(dice: random.Random, slot: Slot, jobs: dict[str, Job]) -> SlotEvent:
    """One event, more often than not one that fits; `Chosen` and `Kept` come only when the slot asked for them."""
    job = slot.job or dice.choice(list(jobs.values()))
    other = dice.choice(list(jobs.values()))
    events: list[Callable[[], SlotEvent]] = [
        lambda: Said(dice.choice(words(dice, job))),
        lambda: Said(in_order(dice, job)),
        lambda: Said(in_order(dice, job)),
        lambda: Gathered(gathered := dice.choice([job, job, other]), command_of(gathered)),
        lambda: StopAsked(dice.choice([job, other]).id, slot.at + dice.choice([0.0, 0.3, 5.0])),
        lambda: Died("signal 11", was_ready=dice.random() < 0.7),
        lambda: Broken(dice.choice([job, other]).id, WHY),
        lambda: Tick(slot.at, dice.choice([0.0, 1.0, LIMIT_S]), LIMIT_S),
        lambda: WorkerReady(),
    ]
    if isinstance(slot.state, Idle):
        events += [lambda: Chosen(other)] * 12
    if isinstance(slot.state, Settling):
        events += [lambda: Kept(dice.choice([job, job, other]).id)] * 4
    return dice.choice(events)()


def in_order(dice: random.Random, job: Job) -> Event:
    """What a sound worker says next."""
    planned = job.plan.steps if job.plan is not None else ()
    missing = [number for number in planned if number not in job.finished]
    if not missing:
        return JobDone(job_id=job.id)
    if dice.random() < 0.5:
        return StepResult(job_id=job.id, step=missing[0], files={}, width=8, height=8)
    stages = [stage for stage, row in STAGES.items() if row.step == missing[0]]
    return StageProgress(job_id=job.id, stage=dice.choice(stages), done=1, total=1)


def check(before: State, event: SlotEvent, after: State, effects: tuple[Effect, ...]) -> None:
    """What holds of every step of every sequence."""
    old = None if isinstance(before, Idle) else before.job
    new = None if isinstance(after, Idle) else after.job
    if old is not None and new is not None:
        assert old.id == new.id  # nobody takes a slot away
        assert new.percent >= old.percent
        assert old.finished.keys() <= new.finished.keys()  # nothing that is finished is lost
        assert not old.status.is_terminal or new == old
    if old is None and new is not None:
        assert isinstance(event, Chosen)
    if old is not None and new is None:
        assert isinstance(before, Settling)
        assert event == Kept(old.id)
    settled = [effect for effect in effects if isinstance(effect, Settle)]
    assert len(settled) == (isinstance(after, Settling) and not isinstance(before, Settling))
    for effect in settled:
        assert effect.job == new
        assert effect.job.status.is_terminal or effect.job.waiting_for == "approval"
    if any(isinstance(effect, Kill) for effect in effects) and new is not None and not isinstance(event, Said):
        assert isinstance(after, Ending)  # a worker is killed only for a job that ends with it
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.command, StartJob):
            assert isinstance(before, Reserved)
            assert effect.command.job_id == before.job.id
        if isinstance(effect, Gather):
            assert isinstance(after, Reserved)
    if new is not None and old is not None and new.finished != old.finished and not isinstance(after, Settling):
        assert any(isinstance(effect, Keep) and effect.is_durable for effect in effects)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_in_whatever_order_no_job_is_lost_and_none_changes_after_its_end(seed: int):
    dice = random.Random(seed)
    jobs = {
        "one": job_of(GenerateRequest(text_content="a", seed=1), "one"),
        "two": job_of(GenerateRequest(text_content="b", seed=2, pause_after_step=2), "two"),
    }
    reached: set[tuple[type, type]] = set()
    for _ in range(SEQUENCES // 4):
        slot = Slot(worker_takes=dice.random() < 0.9)
        for _ in range(dice.randint(4, 24)):
            before, event = slot.state, any_event(dice, slot, jobs)
            count = len(slot.effects)
            slot.take(event)
            check(before, event, slot.state, tuple(slot.effects[count:]))
            reached.add((type(before), type(slot.state)))
        rest(slot)
    assert reached >= {
        (Idle, Reserved), (Reserved, Running), (Running, Stopping), (Running, Ending), (Stopping, Ending),
        (Stopping, Settling), (Ending, Settling), (Running, Settling), (Reserved, Settling), (Settling, Idle),
    }  # fmt: skip


def rest(slot: Slot) -> None:
    """Whatever has happened, a dead worker and a disk that writes bring the slot to rest."""
    if isinstance(slot.state, Reserved):
        slot.take(Died("signal 9", was_ready=False))
    elif not isinstance(slot.state, Idle | Settling):
        slot.take(Died("signal 9", was_ready=True))
    if isinstance(slot.state, Settling):
        slot.take(Kept(slot.state.job.id))
    assert isinstance(slot.state, Idle)


def ends_as(slot: Slot) -> tuple[JobState, ErrorCode | None]:
    assert isinstance(slot.state, Settling)
    job = slot.state.job
    return job.status, job.error.code if job.error else None


def test_a_stop_asks_the_worker_first_and_kills_it_when_its_time_is_up():
    slot, job = running()
    assert slot.take(StopAsked("job", 9.0)) == (Send(CancelJob(job_id=job.id), job),)
    assert not any(isinstance(effect, Kill) for effect in slot.take(Tick(8.9, 0.0, LIMIT_S)))
    assert slot.take(Tick(9.0, 0.0, LIMIT_S)) == (Kill(is_fault=False),)
    slot.take(Died("signal 9", was_ready=True))
    assert ends_as(slot) == (JobState.STOPPED, None)


def test_of_two_stops_the_more_impatient_one_counts_and_the_worker_is_asked_once():
    slot, _ = running()
    slot.take(StopAsked("job", 9.0))
    assert slot.take(StopAsked("job", 3.0)) == ()
    assert slot.take(StopAsked("job", 20.0)) == ()
    assert slot.take(Tick(3.0, 0.0, LIMIT_S)) == (Kill(is_fault=False),)


def test_a_worker_that_dies_while_it_is_to_stop_has_stopped():
    slot, _ = running()
    slot.take(StopAsked("job", 9.0))
    slot.take(Died("signal 11", was_ready=True))
    assert ends_as(slot) == (JobState.STOPPED, None)


def test_a_job_that_is_planned_when_the_worker_is_there_is_written_with_its_plan():
    slot, job = Slot(), job_of(GenerateRequest(text_content="a"), "job")
    slot.take(Chosen(start(job, None, {}, at=0.0, owner="me")))
    kept, sent = slot.take(Gathered(job, command_of(job)))
    assert kept == Keep(job, is_durable=True)
    assert isinstance(sent, Send)
    assert slot.state == Running(job)


def test_a_job_that_is_stopped_before_the_worker_has_it_never_reaches_it():
    slot, job = Slot(), job_of(GenerateRequest(text_content="a", seed=1), "job")
    slot.take(Chosen(job))
    slot.take(StopAsked("job", 9.0))
    assert slot.take(Gathered(job, command_of(job))) == ()
    assert slot.take(WorkerReady()) == ()
    assert ends_as(slot) == (JobState.STOPPED, None)


def test_a_job_that_the_worker_could_not_be_given_waits_for_the_next_one():
    slot, job = Slot(worker_takes=False), job_of(GenerateRequest(text_content="a", seed=1), "job")
    slot.take(Chosen(job))
    slot.take(Gathered(job, command_of(job)))
    assert slot.take(Died("signal 9", was_ready=True)) == ()
    slot.worker_takes = True
    assert slot.take(WorkerReady()) == (Gather(job),)
    slot.take(Gathered(job, command_of(job)))
    assert isinstance(slot.state, Running)


def test_a_worker_that_cannot_start_is_the_end_of_the_job_that_waits_for_it():
    slot, job = Slot(), job_of(GenerateRequest(text_content="a", seed=1), "job")
    slot.take(Chosen(job))
    slot.take(Died("it ended with status 1", was_ready=False))
    assert ends_as(slot) == (JobState.FAILED, ErrorCode.WORKER_CRASHED)


def test_a_pause_that_meets_a_stop_is_a_pause():
    slot, job = running(pause_after_step=1)
    slot.take(StopAsked("job", 9.0))
    slot.take(Said(StepResult(job_id=job.id, step=1, files={}, width=8, height=8)))
    slot.take(Said(JobDone(job_id=job.id)))
    assert ends_as(slot) == (JobState.PENDING, None)


def test_a_step_that_is_told_while_the_worker_is_dying_is_kept():
    slot, job = running()
    slot.take(Tick(1.0, LIMIT_S, LIMIT_S))
    assert isinstance(slot.state, Ending)
    effects = slot.take(Said(StepResult(job_id=job.id, step=1, files={"step1": "ab"}, width=8, height=8)))
    assert [(effect.is_durable, effect.step1) for effect in effects if isinstance(effect, Keep)] == [(True, "ab")]
    slot.take(Died("signal 9", was_ready=True))
    assert ends_as(slot) == (JobState.FAILED, ErrorCode.WORKER_STALLED)
    assert slot.job is not None
    assert list(slot.job.finished) == [1]


def test_the_reason_for_a_workers_end_is_the_first_one():
    slot, job = running()
    slot.take(Said(JobFailed(job_id=job.id, error=WHY, ends_worker=True)))
    assert not any(isinstance(effect, Kill) for effect in slot.effects)  # it ends by itself
    slot.take(Broken("job", ErrorInfo(code=ErrorCode.STORAGE_FULL, message="full")))
    assert slot.take(Tick(1.0, LIMIT_S, LIMIT_S)) == (Kill(is_fault=True),)
    slot.take(Died("signal 9", was_ready=True))
    assert ends_as(slot) == (JobState.FAILED, ErrorCode.ENGINE_FAILED)


@pytest.mark.parametrize("nonsense", ["done at once", "ready twice", "a step it was not given"])
def test_a_worker_that_says_what_cannot_be_is_replaced(nonsense: str):
    slot, job = running(pause_after_step=1)
    said: dict[str, Event] = {
        "done at once": JobDone(job_id=job.id),
        "ready twice": Ready(pid=1, engine=EngineName.DRAFT, device="cpu", presets=("draft",)),
        "a step it was not given": StepResult(job_id=job.id, step=3, files={}, width=8, height=8),
    }
    assert slot.take(Said(said[nonsense])) == (Kill(is_fault=True),)
    for word in (StepResult(job_id=job.id, step=1, files={}, width=8, height=8), JobDone(job_id=job.id)):
        assert slot.take(Said(word)) == ()  # who lied is not believed
    slot.take(Died("signal 9", was_ready=True))
    assert ends_as(slot) == (JobState.FAILED, ErrorCode.WORKER_CRASHED)


def test_what_we_cannot_go_on_with_is_cancelled_at_the_worker_and_ends_in_our_words():
    slot, job = running()
    effects = slot.take(Broken("job", WHY))
    assert effects[0] == Send(CancelJob(job_id=job.id), job)
    assert ends_as(slot) == (JobState.FAILED, ErrorCode.ENGINE_FAILED)
    assert isinstance(slot.state, Settling)
    assert slot.take(Said(StepResult(job_id=job.id, step=1, files={}, width=8, height=8))) == ()


def test_a_slot_without_a_job_lets_a_worker_that_talks_nonsense_go():
    slot = Slot()
    ready = Ready(pid=1, engine=EngineName.DRAFT, device="cpu", presets=("draft",))
    assert slot.take(Said(ready)) == (Kill(is_fault=True),)
    assert slot.take(Said(JobDone(job_id="gone"))) == ()


def test_progress_is_shown_and_written_only_when_it_says_something_new():
    slot, job = running()
    first = slot.take(Said(StageProgress(job_id=job.id, stage=Stage.CUT_OUT, done=1, total=2)))
    again = slot.take(Said(StageProgress(job_id=job.id, stage=Stage.CUT_OUT, done=1, total=2)))
    assert [effect.is_saved for effect in (*first, *again) if isinstance(effect, Keep)] == [True, False]
    told = slot.take(Said(JobNotice(job_id=job.id, code="text_small", message="small")))
    assert [effect.is_saved for effect in told if isinstance(effect, Keep)] == [True]
    assert isinstance(slot.state, Running)


def test_only_a_slot_that_is_stopping_has_a_time_limit():
    slot, _ = running()
    assert slot.take(Tick(1e9, 0.0, LIMIT_S)) == ()
    assert not isinstance(slot.state, Stopping)
