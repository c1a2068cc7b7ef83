"""A slot with a worker of the test's: its mailbox, its clock and its end."""

import threading
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import CancelJob, Command, Ready, Shutdown, StageProgress, StartJob
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName, Stage
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.counters import Counters
from ad_agent_mcp.jobs.estimates import StageTimes
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.journal import Journal
from ad_agent_mcp.jobs.peers import Peers
from ad_agent_mcp.jobs.planner import Planner
from ad_agent_mcp.jobs.slot import Slot
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND
from ad_agent_mcp.supervisor.supervisor import Supervisor

from ..in_process import app_with, others_go_on
from .test_engine_choice import ready

pytestmark = pytest.mark.anyio


class Worker(Supervisor):
    """A worker that takes whatever it is given, and says nothing by itself."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, ())
        self.ready = Ready(pid=1, engine=EngineName.DRAFT, device="cpu", presets=("draft",), engines=(INFO,))
        self.told: list[Command] = []
        self.kills = 0

    async def send(self, command: Command) -> bool:
        self.told.append(command)
        return True

    def kill(self) -> None:
        self.kills += 1


@dataclass
class Bench:
    """A slot, not yet running, and all that it works with."""

    slot: Slot
    worker: Worker
    store: JobStore
    journal: Journal
    queue: list[Job]

    def add(self) -> Job:
        """One more job that waits."""
        request = GenerateRequest(text_content="a", seed=1)
        job = Job(
            id=new_job_id(), request=request, engine=EngineName.DRAFT, steps=(1, 2, 3), created_at=0.0, owner=self.owner
        )
        self.store.create(job, {}, {})
        self.queue.append(job)
        return job

    @property
    def owner(self) -> str:
        return self.slot._peers.server_id  # pyright: ignore[reportPrivateUsage]

    def start(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self.journal.run)
        tasks.start_soon(self.slot.run, tasks)


@pytest.fixture
async def bench(settings: Settings, tmp_path: Path) -> Bench:
    store, worker, counters, queue = JobStore(settings.data_dir), Worker(settings), Counters(), list[Job]()
    peers = Peers(store, tmp_path / "device.lock", resume_max_age_s=60)
    times = StageTimes(tmp_path / "times.json")
    times.introduce((INFO,))
    journal = Journal(store, counters)
    planner = Planner(settings, worker, times, peers.server_id)

    async def on_rest() -> None: ...

    slot = Slot(settings, store, worker, peers, journal, times, counters, queue=queue, planner=planner, on_rest=on_rest)
    return Bench(slot, worker, store, journal, queue)


async def given(bench: Bench, job: Job) -> None:
    """Until the worker has the job."""
    with anyio.fail_after(10):
        while not any(isinstance(command, StartJob) and command.job_id == job.id for command in bench.worker.told):
            await anyio.sleep(0.005)


async def test_a_worker_that_never_stops_talking_does_not_stop_the_clock(bench: Bench):
    async with anyio.create_task_group() as tasks:
        bench.start(tasks)
        job = bench.add()
        await bench.slot.look()
        await given(bench, job)

        async def talk() -> None:
            while not bench.worker.kills:
                for _ in range(20):
                    await bench.slot.on_event(StageProgress(job_id=job.id, stage=Stage.CUT_OUT, done=0, total=1))
                await anyio.lowlevel.checkpoint()
            await bench.slot.on_death("signal 9", True)

        tasks.start_soon(talk)
        with anyio.fail_after(10):
            await bench.slot.stop(job.id, grace_s=0.1)
        assert bench.store.load(job.id).status is JobState.STOPPED
        assert [type(command) for command in bench.worker.told] == [StartJob, CancelJob]
        await bench.slot.close()
        tasks.cancel_scope.cancel()


async def test_the_next_job_comes_as_soon_as_one_has_come_to_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ad_agent_mcp.jobs.slot.WATCH_EVERY_S", 3600.0)
    async with anyio.create_task_group() as tasks:
        bench.start(tasks)
        first, second = bench.add(), bench.add()
        await bench.slot.look()
        await given(bench, first)
        await bench.slot.on_death("signal 11", True)
        await bench.slot.on_ready()
        await given(bench, second)
        assert bench.store.load(first.id).status is JobState.FAILED
        await bench.slot.close()
        tasks.cancel_scope.cancel()


async def test_a_job_that_was_stopped_while_it_was_chosen_is_not_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with anyio.create_task_group() as tasks:
        bench.start(tasks)
        stopped, other = bench.add(), bench.add()
        owns_pending = Peers.owns_pending

        def stop_meanwhile(peers: Peers, job_id: str) -> bool:
            is_ours = owns_pending(peers, job_id)
            bench.queue[:] = [job for job in bench.queue if job.id != stopped.id]
            return is_ours

        monkeypatch.setattr(Peers, "owns_pending", stop_meanwhile)
        await bench.slot.look()
        await given(bench, other)
        assert bench.slot.has(other.id)
        assert "could not go on" not in caplog.text
        await bench.slot.close()
        tasks.cancel_scope.cancel()


async def test_a_job_that_another_server_took_is_not_run(bench: Bench):
    async with anyio.create_task_group() as tasks:
        bench.start(tasks)
        taken, other = bench.add(), bench.add()
        bench.store.save(taken.model_copy(update={"owner": "another"}))
        await bench.slot.look()
        await given(bench, other)
        assert bench.queue == []
        await bench.slot.close()
        tasks.cancel_scope.cancel()


async def test_nobody_waits_for_a_slot_that_is_closed(bench: Bench):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.slot.look)
        await others_go_on()
        await bench.slot.close()
        with anyio.fail_after(5):
            await bench.slot.look()


async def test_a_slot_is_closed_when_no_thread_of_it_has_to_do_with_the_device_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    is_asked, may_go, done = threading.Event(), threading.Event(), list[str]()

    def take_slowly(peers: Peers, job_id: str) -> bool:
        is_asked.set()
        may_go.wait(5)
        done.append("taken")
        return False

    monkeypatch.setattr(Peers, "take_device", take_slowly)
    async with anyio.create_task_group() as tasks:
        bench.start(tasks)
        bench.add()
        tasks.start_soon(bench.slot.look)
        await anyio.to_thread.run_sync(is_asked.wait, 5)

        async def close() -> None:
            await bench.slot.close()
            done.append("closed")

        tasks.start_soon(close)
        await others_go_on()
        may_go.set()
        with anyio.fail_after(5):
            while "closed" not in done:
                await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert done == ["taken", "closed"]


async def test_a_worker_that_is_being_killed_is_given_nothing_more(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app:
        await ready(app)
        app.service.worker.kill()
        assert app.service.worker.ready is None
        assert not await app.service.worker.send(Shutdown())
