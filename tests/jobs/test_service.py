"""The server outlives its worker, whichever way it dies: one fake worker per way."""

import errno
import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, running, settled

pytestmark = pytest.mark.anyio


def fake(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.workers.{name}")


@pytest.mark.parametrize("worker", ["crash_mid_stage", "garbage", "crash_on_start", "drifted"])
async def test_a_dead_worker_fails_its_job_with_a_code_and_a_way_on(
    worker: str, settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, fake(worker)) as app:
        job = await settled(app, await app.service.generate(request_))
        assert job.status is JobState.FAILED
        assert job.error is not None
        assert job.error.code is ErrorCode.WORKER_CRASHED
        assert job.error.fix is not None
        assert job.error.fix.arguments == {"resume_job_id": job.id}
        async with Client(app.server) as client:
            health = await client.call_tool("health", {})
            assert not health.is_error
        again = await settled(app, await app.service.generate(request_))
        assert again.error is not None
        assert again.error.code is ErrorCode.WORKER_CRASHED


@pytest.mark.parametrize("dies", [False, True])
async def test_where_the_worker_failed_is_told_to_the_log_alone(
    dies: bool, settings: Settings, request_: GenerateRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (folder := tmp_path / "worker").mkdir()
    if dies:
        (folder / "mark").touch()
    async with app_with(settings, (*fake("confiding"), str(folder))) as app:
        job = await settled(app, await app.service.generate(request_))
        assert job.error is not None
        assert job.error.code is (ErrorCode.WORKER_CRASHED if dies else ErrorCode.ENGINE_FAILED)
        assert "exit code 3" in job.error.message or "FileNotFoundError" in job.error.message
        assert "secret" not in job.model_dump_json()
        told = ""
        with anyio.fail_after(20):
            while "/opt/secret/place/model.bin" not in told:
                told += capfd.readouterr().err
                await anyio.sleep(0.01)


async def test_a_worker_that_cannot_be_started_is_told_without_its_path(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, ("/opt/secret/python",)) as app:
        job = await settled(app, await app.service.generate(request_))
        assert job.error is not None
        assert "secret" not in job.model_dump_json()


async def test_a_silent_worker_is_replaced_and_its_job_fails_as_stalled(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, fake("hang"), stall_timeout_s=0.4) as app:
        job = await settled(app, await app.service.generate(request_))
        assert job.error is not None
        assert job.error.code is ErrorCode.WORKER_STALLED


async def test_running_out_of_memory_fails_the_job_and_keeps_the_worker(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, fake("oom")) as app:
        pids = set()
        for _ in range(2):
            job = await settled(app, await app.service.generate(request_))
            assert job.error is not None
            assert job.error.code is ErrorCode.OUT_OF_MEMORY
            assert app.service.worker.ready is not None
            pids.add(app.service.worker.ready.pid)
        assert len(pids) == 1


async def test_stop_waits_for_the_worker_and_leaves_it_alive(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, fake("slow")) as app:
        job = await app.service.generate(request_)
        await running(app)
        pid = app.service.worker.ready and app.service.worker.ready.pid
        stopped = await app.service.stop(job.id, force=False)
        assert (stopped.status, stopped.error) == (JobState.STOPPED, None)
        assert app.service.worker.ready is not None
        assert app.service.worker.ready.pid == pid
        assert await app.service.stop(job.id, force=True) == stopped


@pytest.mark.parametrize("force", [True, False])
async def test_stop_forces_a_worker_that_does_not_listen_and_a_fresh_one_comes(
    force: bool, settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, fake("hang"), stop_grace_s=0.2) as app:
        job = await app.service.generate(request_)
        await running(app)
        pid = app.service.worker.ready and app.service.worker.ready.pid
        with anyio.fail_after(20):
            stopped = await app.service.stop(job.id, force=force)
        assert stopped.status is JobState.STOPPED
        with anyio.fail_after(20):
            while app.service.worker.ready is None:
                await anyio.sleep(0.01)
        assert app.service.worker.ready.pid != pid


async def test_what_a_worker_says_is_passed_on_in_whole_lines(
    settings: Settings, request_: GenerateRequest, capsys: pytest.CaptureFixture[str]
):
    async with app_with(settings, fake("mumble")) as app:
        with anyio.fail_after(20):
            while app.service.worker.ready is None:
                await anyio.sleep(0.01)
        print("a line of the server", file=sys.stderr)
        await app.service.generate(request_)
        told = ""
        with anyio.fail_after(20):
            while "no end\n" not in told:
                told += capsys.readouterr().err
                await anyio.sleep(0.01)
    assert [line for line in told.splitlines() if "half" in line or "server" in line] == [
        "a line of the server",
        "one half and 나머지",
    ]


async def test_a_second_generate_is_told_when_to_retry(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, fake("slow")) as app:
        job = await app.service.generate(request_)
        with pytest.raises(AdAgentError) as refusal:
            await app.service.generate(request_)
        info = refusal.value.info
        assert (info.code, info.job_id) == (ErrorCode.BUSY, job.id)
        assert info.retry_after_seconds is not None
        assert info.retry_after_seconds >= 1
        assert app.service.store.job_ids() == [job.id]


async def test_with_a_queue_jobs_wait_in_order_and_a_waiting_one_can_be_stopped(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, fake("slow"), queue_size=2) as app:
        first, second, third = [await app.service.generate(request_) for _ in range(3)]
        with pytest.raises(AdAgentError):
            await app.service.generate(request_)
        assert [app.service.find(job.id).status for job in (second, third)] == [JobState.PENDING] * 2
        assert (await app.service.stop(second.id, force=False)).status is JobState.STOPPED
        await app.service.stop(first.id, force=False)
        await running(app)
        assert app.service.current is not None
        assert app.service.current.id == third.id


async def test_the_first_answer_tells_how_long_it_will_take_and_a_waiting_job_comes_after_the_others(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, fake("slow"), queue_size=2) as app, Client(app.server) as client:
        with anyio.fail_after(20):
            while app.service.worker.ready is None:  # before the first one ever, nothing is known of its engine
                await anyio.sleep(0.01)
        arguments = request_.model_dump(mode="json", exclude_unset=True)
        told = [(await client.call_tool("generate", arguments)).structured_content or {} for _ in range(3)]
        assert [status["status"] for status in told] == ["running", "pending", "pending"]
        ends = [status["eta_seconds"] for status in told]
        assert 0 < ends[0] < ends[1] < ends[2]
        assert all(0 < status["step_eta_seconds"] <= status["eta_seconds"] for status in told)
        await app.service.stop(told[1]["job_id"], force=False)
        state = (await client.call_tool("status", {"job_id": told[2]["job_id"]})).structured_content or {}
        assert state["eta_seconds"] <= ends[1]


async def test_a_job_that_waits_for_a_person_has_no_end_in_sight(settings: Settings, request_: GenerateRequest):
    request = request_.model_copy(update={"pause_after_step": 1})
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        job = await settled(app, await app.service.generate(request))
        state = (await client.call_tool("status", {"job_id": job.id})).structured_content or {}
        assert (state["waiting_for"], state["eta_seconds"], state["step_eta_seconds"]) == ("approval", None, None)


async def test_what_jobs_took_is_expected_of_the_next_one_and_by_the_next_server(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        first = await app.service.generate(request_)
        await settled(app, first)
        second = await app.service.generate(request_)
        assert second.expected != first.expected
        await settled(app, second)
    kept = settings.data_dir / "stage_times.json"
    assert len(json.loads(kept.read_bytes())["work_s"]) == len(second.expected)
    async with app_with(settings, WORKER_COMMAND) as app:
        third = await app.service.generate(request_)
        assert third.expected.keys() == second.expected.keys()
        shipped, learned = ({stage: told.work_s for stage, told in job.expected.items()} for job in (first, third))
        assert all(learned[stage] != shipped[stage] for stage in shipped)


async def test_progress_is_a_view_of_the_workers_facts(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, fake("slow")) as app, Client(app.server) as client:
        job = await app.service.generate(request_)
        await running(app)
        state = (await client.call_tool("status", {"job_id": job.id})).structured_content or {}
        assert state["current_step"] == "step1_background"
        assert state["sub_step"].startswith("draft_cut_out (")
        assert state["sub_step"].endswith("/1000)")
        assert state["eta_seconds"] is not None
        assert 0 <= state["progress_percent"] < 33
        assert state["parameters"]["seed"] is not None
        assert state["parameters"]["product_image"] == f"ad://jobs/{job.id}/product.png"


async def test_a_caller_that_gives_up_while_its_job_is_accepted_leaves_no_job_behind_that_nobody_runs(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, fake("slow")) as app:
        create = app.service.store.create

        async with anyio.create_task_group() as tasks:

            def create_and_give_up(*arguments: object) -> None:
                create(*arguments)  # pyright: ignore[reportArgumentType]
                anyio.from_thread.run_sync(tasks.cancel_scope.cancel)

            monkeypatch.setattr(app.service.store, "create", create_and_give_up)
            tasks.start_soon(app.service.generate, request_)
        await running(app)
        (job_id,) = app.service.store.job_ids()
        assert app.service.current is not None
        assert app.service.current.id == job_id
        await app.service.stop(job_id, force=False)


async def test_a_full_disk_is_logged_once_and_the_job_is_saved_when_there_is_room_again(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    tries: list[JobState] = []

    def refuse(job: Job, **_: Any) -> None:
        tries.append(job.status)
        raise OSError(errno.ENOSPC, "No space left on device")

    async with app_with(settings, fake("hang"), stall_timeout_s=0.2) as app:
        with monkeypatch.context() as full:
            job = await app.service.generate(request_)
            full.setattr(app.service.store, "save", refuse)
            assert (await settled(app, job)).status is JobState.FAILED
            with anyio.fail_after(20):
                while tries.count(JobState.FAILED) < 4:
                    await anyio.sleep(0.01)
        assert caplog.text.count("was not saved") == 1
        with anyio.fail_after(20):
            while app.service.store.load(job.id).status is not JobState.FAILED:
                await anyio.sleep(0.01)


async def test_a_queued_job_that_cannot_be_read_for_a_while_starts_when_it_can(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    tries: list[str] = []

    def refuse(job_id: str) -> Job:
        tries.append(job_id)
        raise OSError(errno.EMFILE, "Too many open files")

    async with app_with(settings, WORKER_COMMAND) as app:
        with monkeypatch.context() as starved:
            starved.setattr(app.service.store, "load", refuse)
            job = await app.service.generate(request_)
            with anyio.fail_after(20):
                while len(tries) < 3:
                    await anyio.sleep(0.01)
            assert app.service.queue_length == 1
        assert (await settled(app, job)).status is JobState.COMPLETED
