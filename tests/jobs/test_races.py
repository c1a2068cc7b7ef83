"""What meets at a bad moment: stops, approvals, deaths and restarts. Every job ends, none runs twice or unseen."""

import base64
import contextlib
import errno
import io
import random
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from mcp import Client
from PIL import Image

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.files import FileLock
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.responses import MAX_MESSAGE_BYTES
from ad_agent_mcp.supervisor import supervisor as worker_keeper
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, meanwhile, others_go_on, running, settled
from .test_engine_choice import ready

pytestmark = pytest.mark.anyio
LATE = (sys.executable, "-m", "tests.workers.late")
SLOW = (sys.executable, "-m", "tests.workers.slow")
HANGS = (sys.executable, "-m", "tests.workers.hang")
NEVER_READY = (sys.executable, "-c", "import sys; sys.stdin.read()")


async def test_two_stops_of_one_job_do_not_lose_the_next_one(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, LATE, queue_size=3) as app:
        first, second = [await app.service.generate(request_) for _ in range(2)]
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(partial(app.service.stop, first.id, force=False))
        assert (await settled(app, second)).status is JobState.COMPLETED


async def test_a_stop_while_the_workers_death_is_written_down_does_not_lose_the_next_one(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    stopped: list[JobState] = []
    async with app_with(settings, SLOW, queue_size=3) as app, anyio.create_task_group() as tasks:
        first, second = [await app.service.generate(request_) for _ in range(2)]
        await running(app)
        save = app.service.store.save

        async def stop() -> None:
            stopped.append((await app.service.stop(first.id, force=False)).status)

        def stop_and_save(job: Any, **options: Any) -> None:
            if job.status is JobState.FAILED:
                meanwhile(tasks, stop)
            save(job, **options)

        monkeypatch.setattr(app.service.store, "save", stop_and_save)
        app.service.worker.kill()
        with anyio.fail_after(20):
            while not stopped:
                await anyio.sleep(0.01)
        assert stopped == [JobState.FAILED]
        with anyio.fail_after(10):
            while app.service.current is None or app.service.current.id != second.id:
                await anyio.sleep(0.01)
        await app.service.stop(second.id, force=False)


async def test_a_job_that_is_stopped_while_the_worker_gets_ready_never_reaches_it(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, LATE) as app:
        job = await app.service.generate(request_)
        save = app.service.store.save

        def save_when_it_is_ready(job: Any, **options: Any) -> None:
            if job.status is JobState.STOPPED:
                anyio.from_thread.run(ready, app)
                anyio.from_thread.run(others_go_on)
            save(job, **options)

        monkeypatch.setattr(app.service.store, "save", save_when_it_is_ready)
        assert (await app.service.stop(job.id, force=False)).status is JobState.STOPPED
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED
        assert app.service.store.layer(job.id, "product") is None


async def test_forced_stops_are_not_held_against_the_next_worker(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker_keeper, "RESTART_DELAYS_S", (0.0, 3600.0))
    async with app_with(settings, HANGS) as app:
        for _ in range(4):
            job = await app.service.generate(request_)
            await running(app)
            await app.service.stop(job.id, force=True)
        assert not app.service.worker.is_failing


async def test_a_step_that_was_told_just_before_the_server_died_still_waits_for_approval(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(app, await app.service.generate(paused))
    store = JobStore(settings.data_dir)
    store.save(job.model_copy(update={"status": JobState.RUNNING, "waiting_for": None, "finished": {}}))
    async with app_with(settings, WORKER_COMMAND) as app:
        again = await settled(app, app.service.find(job.id))
        assert (again.waiting_for, list(again.finished)) == ("approval", [1])


async def test_two_servers_that_approve_at_once_run_the_job_once(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, WORKER_COMMAND) as one, app_with(settings, WORKER_COMMAND) as two:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(one, await one.service.generate(paused))

        async def approve(app: Any) -> None:
            with contextlib.suppress(AdAgentError):  # one of the two may come too late
                await app.service.approve(job.id, action="approve", changes={})

        states: list[JobState] = []

        async def watch() -> None:
            while True:
                state = one.service.store.load(job.id).status
                if not states or states[-1] is not state:
                    states.append(state)
                await anyio.sleep(0.002)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with anyio.create_task_group() as both:
                both.start_soon(approve, one)
                both.start_soon(approve, two)
            await settled(one, one.service.find(job.id))
            with anyio.fail_after(20):
                while any(app.service.current or app.service.queue_length for app in (one, two)):
                    await anyio.sleep(0.01)
                while states[-1] is not JobState.COMPLETED:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert states.count(JobState.COMPLETED) == 1


async def test_of_two_decisions_at_two_servers_one_is_refused(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, WORKER_COMMAND) as one, app_with(settings, WORKER_COMMAND) as two:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(one, await one.service.generate(paused))
        outcomes: list[str] = []
        is_contended = threading.Event()
        try_acquire = FileLock.try_acquire

        def try_and_tell(lock: FileLock, note: str = "") -> bool:
            is_had = try_acquire(lock, note)
            if lock.path.name == "adoption.lock" and not is_had:
                is_contended.set()
            return is_had

        def save_when_the_other_one_waits(save: Any, job: Any, **options: Any) -> None:
            is_contended.wait(10)
            save(job, **options)

        async def decide(app: Any, action: Any) -> None:
            try:
                await app.service.approve(job.id, action=action, changes={})
                outcomes.append(action)
            except AdAgentError:
                outcomes.append("refused")

        monkeypatch.setattr(FileLock, "try_acquire", try_and_tell)
        for app in (one, two):
            waiting = partial(save_when_the_other_one_waits, app.service.store.save)
            monkeypatch.setattr(app.service.store, "save", waiting)
        async with anyio.create_task_group() as both:
            both.start_soon(decide, one, "approve")
            both.start_soon(decide, two, "redo")
        monkeypatch.undo()
        assert "refused" in outcomes
        decisions = [decision.action for decision in (await settled(one, one.service.find(job.id))).decisions]
        assert decisions == [outcome for outcome in outcomes if outcome != "refused"]


async def test_an_old_step1_picture_is_not_mistaken_for_the_redone_one(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, WORKER_COMMAND) as app:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(app, await app.service.generate(paused))
        layer = app.service.store.layer(job.id, "step1")
        assert layer is not None
        old = layer.read_bytes()
        await app.service.approve(job.id, action="redo", changes={"bg_prompt": "red", "seed": 99})
        await settled(app, app.service.find(job.id))
        await app.service.stop(job.id, force=False)
        given = GenerateRequest(start_step=2, step1_image=base64.b64encode(old).decode(), text_content="안녕", seed=5)
        again = await settled(app, await app.service.generate(given))
        used = app.service.store.layer(again.id, "step1")
        assert used is not None
        with Image.open(used) as one, Image.open(io.BytesIO(old)) as other:
            assert one.convert("RGB").tobytes() == other.convert("RGB").tobytes()


async def test_a_job_that_was_stopped_before_it_ran_can_be_resumed_with_its_pictures(
    settings: Settings, pictures: Path
):
    async with app_with(settings, LATE) as app:
        given = GenerateRequest(start_step=2, step1_image=str(pictures / "bottle.png"), text_content="hi")
        job = await app.service.generate(given)
        await app.service.stop(job.id, force=False)
        again = await settled(app, await app.service.generate(GenerateRequest(resume_job_id=job.id)))
        assert again.status is JobState.COMPLETED


async def test_a_picture_that_is_not_used_is_not_kept_and_said_to_be_unused(
    settings: Settings, request_: GenerateRequest
):
    noise = Image.frombytes("RGB", (1000, 1000), random.Random(1).randbytes(3_000_000))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    async with app_with(settings, WORKER_COMMAND) as app:
        job = await settled(app, await app.service.generate(request_))
        given = GenerateRequest(
            resume_job_id=job.id, start_step=2, product_image=base64.b64encode(buffer.getvalue()).decode()
        )
        again = await settled(app, await app.service.generate(given))
        assert again.status is JobState.COMPLETED
        assert "unused_argument" in [notice.code for notice in again.warnings]
        assert len(again.model_dump_json()) < 20_000


async def test_no_answer_is_over_the_budget_in_bytes(settings: Settings, request_: GenerateRequest):
    hangul = "가" * 2000
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        wordy = request_.model_copy(
            update=dict.fromkeys(("bg_prompt", "bg_negative_prompt", "negative_prompt"), hangul)
        )
        job = await settled(app, await app.service.generate(wordy.model_copy(update={"pause_after_step": 1})))
        changes = {"product_image": "A" * 3_000_000}
        answers = [
            await client.call_tool("approve_step", {"job_id": job.id, "action": "redo", "changes": changes}),
            await client.call_tool("status", {"job_id": job.id, "include_images": "full"}),
        ]
        assert max(len(answer.model_dump_json(by_alias=True).encode()) for answer in answers) <= MAX_MESSAGE_BYTES
        assert not answers[1].is_error


async def test_a_server_whose_stderr_is_closed_lives_on(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    async with app_with(settings, (*WORKER_COMMAND,)) as app:
        monkeypatch.setattr("ad_agent_mcp.supervisor.process.sys.stderr", Gone())
        job = await settled(app, await app.service.generate(request_))
        monkeypatch.undo()
        assert job.status is JobState.COMPLETED


@pytest.mark.parametrize("is_refused_first", [False, True])
async def test_what_is_saved_late_is_not_saved_over_what_came_later(
    is_refused_first: bool, settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, NEVER_READY) as app, anyio.create_task_group() as tasks:
        save = app.service.store.save
        told: list[JobState] = []
        is_stopped, is_running = threading.Event(), threading.Event()

        def stop_and_save(job: Any, **options: Any) -> None:
            told.append(job.status)
            if told.count(JobState.RUNNING) == 1 and job.status is JobState.RUNNING and is_refused_first:
                raise OSError(errno.ENOSPC, "No space left on device")  # the watch tries again
            if job.status is JobState.RUNNING:
                meanwhile(tasks, partial(app.service.stop, job.id, force=False))
                if JobState.STOPPED in told:
                    is_stopped.wait(10)
            save(job, **options)
            if job.status is not JobState.PENDING:
                (is_stopped if job.status is JobState.STOPPED else is_running).set()

        monkeypatch.setattr(app.service.store, "save", stop_and_save)
        job = await app.service.generate(request_)
        with anyio.fail_after(20):
            while not (is_stopped.is_set() and is_running.is_set()):
                await anyio.sleep(0.01)
        assert app.service.store.load(job.id).status is JobState.STOPPED
