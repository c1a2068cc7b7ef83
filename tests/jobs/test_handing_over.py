"""What becomes of jobs whose server ends: only a death while a job runs is its one retry."""

import sys
from functools import partial

import anyio
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode
from ad_agent_mcp.contract.messages import Command, Shutdown
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND
from ad_agent_mcp.supervisor.supervisor import Supervisor

from ..in_process import app_with, running, settled

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")
SCRIPTED = (sys.executable, "-m", "tests.workers.scripted")


def as_if_it_had_died(settings: Settings, owner: str) -> None:
    """What the system leaves of a server that was killed: the file of its lock, held by nobody."""
    (settings.data_dir / "locks" / f"server-{owner}.lock").touch()


async def begun(settings: Settings, *requests: GenerateRequest, dies: bool) -> list[Job]:
    """Jobs of a server that has ended while it ran the first of them, or of those it found."""
    async with app_with(settings, SLOW, queue_size=5) as app:
        jobs = [await app.service.generate(request) for request in requests]
        await running(app)
        owner = app.service.server_id
    if dies:
        as_if_it_had_died(settings, owner)
    return jobs


async def test_orderly_restarts_use_up_nothing_of_running_or_queued_jobs(settings: Settings, request_: GenerateRequest):
    jobs = await begun(settings, request_, request_, request_, dies=False)
    for _ in range(3):
        await begun(settings, dies=False)
    async with app_with(settings, WORKER_COMMAND, queue_size=5) as app:
        ended = [await settled(app, await app.service.find_fresh(job.id)) for job in jobs]
    assert [(job.status, job.retries) for job in ended] == [(JobState.COMPLETED, 0)] * 3


async def test_deaths_of_servers_count_only_against_the_job_that_ran(settings: Settings, request_: GenerateRequest):
    first, second, third = await begun(settings, request_, request_, request_, dies=True)
    await begun(settings, dies=True)  # the first one's second death
    async with app_with(settings, WORKER_COMMAND, queue_size=5) as app:
        ended = [await settled(app, await app.service.find_fresh(job.id)) for job in (first, second, third)]
    assert ended[0].error is not None
    assert ended[0].error.code is ErrorCode.INTERRUPTED
    assert [(job.status, job.retries) for job in ended[1:]] == [(JobState.COMPLETED, 0)] * 2


@pytest.mark.parametrize("dies", [True, False])
async def test_a_job_that_never_ran_is_never_too_old_to_run_and_one_that_did_is(
    dies: bool, settings: Settings, request_: GenerateRequest
):
    ran, queued = await begun(settings, request_, request_, dies=dies)
    async with app_with(settings, WORKER_COMMAND, resume_max_age_s=0) as app:
        assert (await settled(app, await app.service.find_fresh(queued.id))).status is JobState.COMPLETED
        assert (await app.service.find_fresh(ran.id)).status is JobState.FAILED


async def test_the_age_of_a_job_is_that_of_the_last_decision_about_it(settings: Settings, request_: GenerateRequest):
    paused = request_.model_copy(update={"pause_after_step": 1})
    async with app_with(settings, WORKER_COMMAND) as app:
        job = await settled(app, await app.service.generate(paused))
    store = JobStore(settings.data_dir)
    store.save(store.load(job.id).model_copy(update={"created_at": 1.0}))
    async with app_with(settings, SLOW) as app:
        await app.service.approve(job.id, action="approve", changes={})
        await running(app)
    async with app_with(settings, WORKER_COMMAND) as app:
        assert (await settled(app, await app.service.find_fresh(job.id))).status is JobState.COMPLETED


async def test_an_approved_job_that_waits_its_turn_is_not_asked_about_again(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(app, await app.service.generate(paused))
    async with app_with(settings, SLOW, queue_size=1) as app:
        await app.service.generate(request_)
        await app.service.approve(job.id, action="approve", changes={})
        assert app.service.find(job.id).status is JobState.PENDING
    async with app_with(settings, WORKER_COMMAND, queue_size=5) as app:
        assert (await settled(app, await app.service.find_fresh(job.id))).status is JobState.COMPLETED


async def test_a_worker_that_ends_because_its_server_does_has_not_failed_its_job(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    send = Supervisor.send

    async def send_and_see_it_end(keeper: Supervisor, command: Command) -> bool:
        is_sent = await send(keeper, command)
        if isinstance(command, Shutdown):
            keeper.kill()
            with anyio.fail_after(20):
                while keeper.ready is not None:
                    await anyio.sleep(0.001)
        return is_sent

    monkeypatch.setattr(Supervisor, "send", send_and_see_it_end)
    (job,) = await begun(settings, request_, dies=False)
    assert (await anyio.to_thread.run_sync(partial(JobStore(settings.data_dir).load, job.id))).error is None
