"""What comes while the next job is chosen and given the worker: stops, calls, callers that leave, models that go."""

import sys
from functools import partial

import anyio
import anyio.from_thread
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import ModelMoved
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.files import FileLock
from ad_agent_mcp.jobs.peers import Peers
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, meanwhile, others_go_on, running, settled
from .test_engine_choice import ready

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")


async def test_a_stop_while_the_next_job_is_chosen_does_not_lose_the_one_after_it(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, SLOW, queue_size=3) as app:
        first, second, third = [await app.service.generate(request_) for _ in range(3)]
        owns_pending = Peers.owns_pending

        def stop_then_look(peers: Peers, job_id: str) -> bool:
            if job_id == second.id:
                anyio.from_thread.run(partial(app.service.stop, job_id, force=False))
            return owns_pending(peers, job_id)

        monkeypatch.setattr(Peers, "owns_pending", stop_then_look)
        await app.service.stop(first.id, force=False)
        await running(app)
        assert app.service.current is not None
        assert app.service.current.id == third.id
        assert app.service.find(second.id).status is JobState.STOPPED
        await app.service.stop(third.id, force=False)


async def test_a_job_that_comes_while_the_next_one_is_chosen_does_not_lose_that_one(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, SLOW, queue_size=4) as app, anyio.create_task_group() as tasks:
        first, second, third = [await app.service.generate(request_) for _ in range(3)]
        owns_pending = Peers.owns_pending
        chosen: list[str] = []

        async def come_too() -> None:
            with anyio.fail_after(20):
                while app.service.queue_length < 3:
                    await anyio.sleep(0.001)
            await others_go_on()

        def come_and_look(peers: Peers, job_id: str) -> bool:
            chosen.append(job_id)
            if chosen == [second.id]:
                anyio.from_thread.run_sync(tasks.start_soon, app.service.generate, request_)
                anyio.from_thread.run(come_too)
            return owns_pending(peers, job_id)

        monkeypatch.setattr(Peers, "owns_pending", come_and_look)
        await app.service.stop(first.id, force=False)
        await running(app)
        assert app.service.current is not None
        assert app.service.current.id == second.id
        assert app.service.queue_length == 2
        (fourth,) = set(app.service.store.job_ids()) - {first.id, second.id, third.id}
        for job_id in (fourth, third.id, second.id):
            await app.service.stop(job_id, force=False)


async def test_models_that_leave_the_device_while_the_next_job_is_chosen_do_not_take_it_from_that_job(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, SLOW, queue_size=2) as app, anyio.create_task_group() as tasks:
        first, second = [await app.service.generate(request_) for _ in range(2)]
        owns_pending = Peers.owns_pending
        left = ModelMoved(model="a model", state="unloaded")

        def leave_then_look(peers: Peers, job_id: str) -> bool:
            meanwhile(tasks, partial(app.service.slot.on_event, left))
            return owns_pending(peers, job_id)

        monkeypatch.setattr(Peers, "owns_pending", leave_then_look)
        await app.service.stop(first.id, force=False)
        await running(app)
        assert not FileLock.is_free(settings.device_lock)
        await app.service.stop(second.id, force=False)


async def test_a_caller_that_goes_away_while_its_job_is_started_leaves_a_job_that_runs_to_its_end(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, WORKER_COMMAND) as app:
        await ready(app)
        owns_pending = Peers.owns_pending
        call = anyio.CancelScope()

        def go_away_then_look(peers: Peers, job_id: str) -> bool:
            anyio.from_thread.run_sync(call.cancel)
            return owns_pending(peers, job_id)

        monkeypatch.setattr(Peers, "owns_pending", go_away_then_look)
        with call:
            await app.service.generate(request_)
        (job_id,) = app.service.store.job_ids()
        assert (await settled(app, app.service.find(job_id))).status is JobState.COMPLETED
