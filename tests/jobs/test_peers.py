"""Two servers on one data folder: all read, one runs at a time, the living do not adopt from the living."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.files import FileLock
from ad_agent_mcp.jobs import service, turn
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.peers import Peers
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, others_go_on, running, settled

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")


async def test_a_second_server_reads_everything_and_is_busy_while_the_first_one_works(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SLOW) as first, app_with(settings, SLOW) as second:
        job = await first.service.generate(request_)
        await running(first)
        seen = await second.service.find_fresh(job.id)
        assert (seen.status, seen.owner) == (JobState.RUNNING, first.service.server_id)
        for attempt in (second.service.generate(request_), second.service.stop(job.id, force=True)):
            with pytest.raises(AdAgentError) as refusal:
                await attempt
            assert refusal.value.info.code is ErrorCode.BUSY
            assert refusal.value.info.job_id == job.id
            assert first.service.server_id in refusal.value.info.message
        await first.service.stop(job.id, force=False)
        assert second.service.find(job.id).status is JobState.STOPPED
        other = await second.service.generate(request_)
        await running(second)
        with pytest.raises(AdAgentError):
            await first.service.generate(request_)
        await second.service.stop(other.id, force=False)


async def test_with_a_queue_a_job_waits_for_the_other_servers_device(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SLOW) as first, app_with(settings, WORKER_COMMAND, queue_size=1) as second:
        job = await first.service.generate(request_)
        waiting = await second.service.generate(request_)
        assert waiting.status is JobState.PENDING
        await first.service.stop(job.id, force=False)
        assert (await settled(second, waiting)).status is JobState.COMPLETED


async def test_a_server_that_starts_leaves_the_jobs_of_living_servers_alone(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SLOW) as first:
        job = await first.service.generate(request_)
        await running(first)
        async with app_with(settings, SLOW) as second:
            assert second.service.current is None
            assert second.service.find(job.id).owner == first.service.server_id
        await first.service.stop(job.id, force=False)


async def test_a_living_server_takes_over_a_job_whose_server_died_when_somebody_asks_for_it(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as survivor:
        async with app_with(settings, SLOW) as dying:
            job = await dying.service.generate(request_)
            await running(dying)
        assert survivor.service.find(job.id).status is JobState.RUNNING
        adopted = await settled(survivor, await survivor.service.find_fresh(job.id))
        assert adopted.status is JobState.COMPLETED
        assert adopted.owner == survivor.service.server_id


async def test_a_cut_off_job_that_is_too_old_is_failed_as_interrupted(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SLOW) as dying:
        job = await dying.service.generate(request_)
        await running(dying)
    async with app_with(settings, WORKER_COMMAND, resume_max_age_s=0) as app:
        found = app.service.find(job.id)
        assert found.error is not None
        assert found.error.code is ErrorCode.INTERRUPTED
        assert app.service.current is None


async def test_finished_ads_are_copied_to_the_output_folder(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with app_with(settings, WORKER_COMMAND, output_dir=tmp_path / "ads") as app:
        job = await settled(app, await app.service.generate(request_))
        final = app.service.store.layer(job.id, "final")
        assert final is not None
        assert (tmp_path / "ads" / f"ad-{job.id}.png").read_bytes() == final.read_bytes()


async def test_the_worker_is_ready_before_the_first_job(settings: Settings):
    async with app_with(settings, WORKER_COMMAND) as app:
        with anyio.fail_after(10):
            while app.service.worker.ready is None:
                await anyio.sleep(0.01)


@contextlib.contextmanager
def a_decision_elsewhere(settings: Settings) -> Iterator[None]:
    """As long as it lasts, a server on the data folder does not come to the end of a decision."""
    lock = FileLock(settings.data_dir / "locks" / "adoption.lock")
    assert lock.try_acquire("server of the test")
    try:
        yield
    finally:
        lock.release()


async def test_who_cannot_decide_alone_is_told_busy_and_nothing_has_changed(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turn, "TIMEOUT_S", 0.1)
    async with app_with(settings, WORKER_COMMAND) as app:
        paused = await settled(app, await app.service.generate(request_.model_copy(update={"pause_after_step": 1})))
        decisions: list[Any] = [
            partial(app.service.approve, paused.id, action="approve", changes={}),
            partial(app.service.approve, paused.id, action="redo", changes={"bg_prompt": "a forest"}),
            partial(app.service.approve, paused.id, action="stop", changes={}),
            partial(app.service.stop, paused.id, force=True),
        ]
        with a_decision_elsewhere(settings):
            for decide in decisions:
                with pytest.raises(AdAgentError) as refusal:
                    await decide()
                info = refusal.value.info
                assert (info.code, info.job_id) == (ErrorCode.BUSY, paused.id)
                assert (info.retry_after_seconds or 0) >= 1
                assert "server of the test" in info.message
            assert app.service.store.load(paused.id) == paused
        await app.service.approve(paused.id, action="approve", changes={})
        done = await settled(app, app.service.find(paused.id))
        assert [decision.action for decision in done.decisions] == ["approve"]


async def test_who_waits_to_decide_answers_everyone_else_and_decides_when_it_can(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app, anyio.create_task_group() as tasks:
        paused = await settled(app, await app.service.generate(request_.model_copy(update={"pause_after_step": 1})))
        with a_decision_elsewhere(settings):
            tasks.start_soon(partial(app.service.stop, paused.id, force=False))
            await others_go_on()
            other = await settled(app, await app.service.generate(request_))
            assert other.status is JobState.COMPLETED
            assert (await app.service.find_fresh(paused.id)).waiting_for == "approval"
        with anyio.fail_after(20):
            while (await app.service.find_fresh(paused.id)).status is not JobState.STOPPED:
                await anyio.sleep(0.01)


async def test_what_a_dead_server_left_waits_for_the_end_of_another_servers_decision(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service, "ADOPTION_TIMEOUT_S", 0.1)
    async with app_with(settings, SLOW) as dying:
        job = await dying.service.generate(request_)
        await running(dying)
    with a_decision_elsewhere(settings):
        async with app_with(settings, WORKER_COMMAND) as app:
            await app.service.adopt_ghosts()
            assert (await app.service.find_fresh(job.id)).owner == job.owner
            assert app.service.current is None
    adopt = Peers.adopt
    tries: list[str] = []

    def adopt_at_second_try(peers: Peers, mine: set[str]) -> list[Job]:
        tries.append(peers.server_id)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return adopt(peers, mine)

    monkeypatch.setattr(Peers, "adopt", adopt_at_second_try)
    async with contextlib.AsyncExitStack() as servers:
        with a_decision_elsewhere(settings):
            app = await servers.enter_async_context(app_with(settings, WORKER_COMMAND))
        with anyio.fail_after(20):  # nobody has to ask for it
            while app.service.store.load(job.id).status is not JobState.COMPLETED:
                await anyio.sleep(0.01)
