"""Calls of `generate` that wait for the slot: in the order in which they came, without a trace until they have it."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs import service
from ad_agent_mcp.jobs.admission import Prepared
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, others_go_on, running, settled

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")
SCRIPTED = (sys.executable, "-m", "tests.workers.scripted")


@pytest.fixture
def prepared_(monkeypatch: pytest.MonkeyPatch) -> Callable[[App], list[str]]:
    """Ids of the jobs that were prepared by a server: its callers stand in line, in this order."""

    def listen(app: App) -> list[str]:
        ids: list[str] = []
        prepare = app.service.admission.prepare

        def told(request: GenerateRequest, job_id: str) -> Prepared:
            prepared = prepare(request, job_id)
            ids.append(job_id)
            return prepared

        monkeypatch.setattr(app.service.admission, "prepare", told)
        return ids

    return listen


async def stand_in_line(app: App, tasks: TaskGroup, request: GenerateRequest, prepared: list[str]) -> str:
    count = len(prepared)
    tasks.start_soon(app.service.generate, request)
    with anyio.fail_after(20):
        while len(prepared) == count:
            await anyio.sleep(0.001)
    await others_go_on()
    return prepared[-1]


async def runs(app: App, job_id: str) -> None:
    with anyio.fail_after(20):
        while app.service.current is None or app.service.current.id != job_id:
            await anyio.sleep(0.01)


async def test_callers_that_wait_get_the_slot_in_the_order_in_which_they_came(
    settings: Settings,
    request_: GenerateRequest,
    prepared_: Callable[[App], list[str]],
    monkeypatch: pytest.MonkeyPatch,
):
    refused: list[int] = []
    busy = service.busy

    def look_again_soon_if_first(*arguments: Any, **options: Any) -> AdAgentError:
        refused.append(anyio.get_current_task().id)
        monkeypatch.setattr(service, "WATCH_EVERY_S", 0.01 if refused[-1] == refused[0] else 3600.0)
        return busy(*arguments, **options)

    monkeypatch.setattr(service, "busy", look_again_soon_if_first)
    waiting = request_.model_copy(update={"wait_seconds": 50})
    async with app_with(settings, SCRIPTED) as app, anyio.create_task_group() as tasks:
        prepared = prepared_(app)
        first = await app.service.generate(waiting)
        line = [await stand_in_line(app, tasks, waiting, prepared) for _ in range(4)]
        assert app.service.store.job_ids() == [first.id]
        current = first.id
        for position, following in enumerate(line):
            await app.service.stop(current, force=False)
            await runs(app, following)
            assert sorted(app.service.store.job_ids()) == sorted([first.id, *line[: position + 1]])
            current = following
        await app.service.stop(current, force=False)


async def test_a_caller_that_goes_away_while_it_waits_leaves_no_trace_and_lets_the_next_one_come(
    settings: Settings, request_: GenerateRequest, prepared_: Callable[[App], list[str]]
):
    waiting = request_.model_copy(update={"wait_seconds": 50})
    async with app_with(settings, SLOW) as app, anyio.create_task_group() as tasks:
        prepared = prepared_(app)
        first = await app.service.generate(waiting)
        async with anyio.create_task_group() as vanishing:
            for _ in range(2):
                await stand_in_line(app, vanishing, waiting, prepared)
            last = await stand_in_line(app, tasks, waiting, prepared)
            vanishing.cancel_scope.cancel()
        await app.service.stop(first.id, force=False)
        await runs(app, last)
        assert sorted(app.service.store.job_ids()) == sorted([first.id, last])
        await app.service.stop(last, force=False)


async def test_a_caller_whose_time_is_up_is_refused_with_nothing_stored(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SLOW) as app:
        first = await app.service.generate(request_)
        began = anyio.current_time()
        with pytest.raises(AdAgentError) as refusal:
            await app.service.generate(request_.model_copy(update={"wait_seconds": 1}))
        assert anyio.current_time() - began >= 1
        assert (refusal.value.info.code, refusal.value.info.job_id) == (ErrorCode.BUSY, first.id)
        assert app.service.store.job_ids() == [first.id]


@pytest.mark.parametrize("wait_seconds", [0, 50])
async def test_a_wrong_argument_is_told_at_once_also_while_another_job_runs(
    wait_seconds: int, settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SLOW) as app:
        first = await app.service.generate(request_)
        wrong = request_.model_copy(update={"product_image": "no/such.png", "wait_seconds": wait_seconds})
        with anyio.fail_after(20), pytest.raises(AdAgentError) as refusal:
            await app.service.generate(wrong)
        assert (refusal.value.info.code, refusal.value.info.field) == (ErrorCode.INVALID_REQUEST, "product_image")
        assert app.service.store.job_ids() == [first.id]


async def test_a_caller_waits_for_the_device_that_another_server_has(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SLOW) as first, app_with(settings, WORKER_COMMAND) as second:
        job = await first.service.generate(request_)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(second.service.generate, request_.model_copy(update={"wait_seconds": 50})))
            await running(first)
            assert second.service.store.job_ids() == [job.id]
            await first.service.stop(job.id, force=False)
        (other,) = [job_id for job_id in second.service.store.job_ids() if job_id != job.id]
        assert (await settled(second, await second.service.find_fresh(other))).status is JobState.COMPLETED


async def test_of_four_calls_at_once_that_may_wait_each_gets_its_finished_ad(
    settings: Settings, request_: GenerateRequest
):
    arguments = request_.model_dump(mode="json", exclude_unset=True) | {"bg_prompt": "complete", "wait_seconds": 50}
    states: list[str] = []
    async with app_with(settings, SCRIPTED) as app, Client(app.server) as client:

        async def call(seed: int) -> None:
            answer = await client.call_tool("generate", {**arguments, "seed": seed})
            states.append((answer.structured_content or {})["status"])

        with anyio.fail_after(40):
            async with anyio.create_task_group() as tasks:
                for seed in range(4):
                    tasks.start_soon(call, seed)
        assert states == ["completed"] * 4
