"""kill -9 of the worker, the server and both at every boundary: nothing is forgotten, nothing runs twice."""

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import STAGES
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.store import JobStore

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio

BOUNDARIES = [
    *(stage.value for stage, row in STAGES.items() if stage in INFO.stages and row.step == 1),
    "step1",
    *(stage.value for stage, row in STAGES.items() if stage in INFO.stages and row.step == 2),
    "step2",
    *(stage.value for stage, row in STAGES.items() if stage in INFO.stages and row.step == 3),
    "step3",
]


def killer(target: str, boundary: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.workers.killer", target, boundary, str(folder))


def finished_before(boundary: str) -> int:
    """The last step whose result was told before the kill."""
    if boundary.startswith("step"):
        return int(boundary[-1])
    return next(row.step for stage, row in STAGES.items() if stage == boundary) - 1


def ran_after_the_kill(folder: Path, boundary: str) -> list[str]:
    lines = (folder / "log").read_text().split()
    return lines[lines.index(boundary) + 1 :]


@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_killed_worker_costs_only_the_step_it_was_in(
    boundary: str, settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with app_with(settings, killer("worker", boundary, tmp_path)) as app:
        job = await settled(app, await app.service.generate(request_))
        assert job.error is not None
        assert job.error.code is ErrorCode.WORKER_CRASHED
        kept = finished_before(boundary)
        assert sorted(job.finished) == list(range(1, kept + 1))
        if kept == 3:
            assert app.service.store.layer(job.id, "final") is not None
            return
        resumed = await settled(app, await app.service.generate(GenerateRequest(resume_job_id=job.id)))
        assert resumed.status is JobState.COMPLETED
        assert resumed.request.start_step == kept + 1
        expected = [name for name in BOUNDARIES if BOUNDARIES.index(name) > _index_of_step(kept)]
        assert ran_after_the_kill(tmp_path, boundary) == expected


@pytest.mark.parametrize("target", ["server", "both"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_killed_server_is_continued_by_the_next_one_under_the_same_id(
    target: str, boundary: str, settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    command = killer(target, boundary, tmp_path)
    job_id = await anyio.to_thread.run_sync(_serve_until_killed, settings, request_, command)
    before = JobStore(settings.data_dir).load(job_id)
    kept = finished_before(boundary)
    assert before.status is JobState.RUNNING
    percents: list[float] = []

    async with app_with(settings, command) as app:

        async def watch(job: Job) -> None:
            percents.append(job.percent)

        with anyio.fail_after(30):
            job = await app.service.wait(job_id, 30, on_change=watch, every_s=0.01)
        assert job.status is JobState.COMPLETED, job.error
        assert job.retries == 1
        assert sorted(job.finished) == [1, 2, 3]
        assert [check.name for check in job.checks][:1] == ["product_core_identity"]
        assert percents == sorted(percents)
        assert percents[0] >= before.percent
        assert app.service.store.active_jobs() == {}
    expected = [name for name in BOUNDARIES if BOUNDARIES.index(name) > _index_of_step(kept)]
    assert ran_after_the_kill(tmp_path, boundary) == expected


async def test_a_job_is_continued_once_and_then_left_to_be_resumed(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    job_id = await anyio.to_thread.run_sync(
        _serve_until_killed, settings, request_, killer("both", "text_paint", first)
    )
    await anyio.to_thread.run_sync(_serve_until_killed, settings, None, killer("both", "placement", second))
    async with app_with(settings, killer("worker", "never", tmp_path)) as app:
        job = await settled(app, app.service.find(job_id))
        assert job.status is JobState.FAILED
        assert job.error is not None
        assert job.error.code is ErrorCode.INTERRUPTED
        assert sorted(job.finished) == [1, 2]
        resumed = await settled(app, await app.service.generate(GenerateRequest(resume_job_id=job_id)))
        assert resumed.status is JobState.COMPLETED
        assert resumed.request.start_step == 3


async def test_a_job_that_waits_for_approval_survives_its_server(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    command = killer("worker", "never", tmp_path)
    async with app_with(settings, command) as app:
        paused = request_.model_copy(update={"pause_after_step": 2})
        job = await settled(app, await app.service.generate(paused))
        assert job.waiting_for == "approval"
    async with app_with(settings, command) as app:
        assert app.service.find(job.id).waiting_for == "approval"
        assert app.service.current is None
        job = await settled(app, await app.service.approve(job.id, action="approve", changes={}))
        assert job.status is JobState.COMPLETED


def _index_of_step(step: int) -> int:
    return BOUNDARIES.index(f"step{step}") if step else -1


def _serve_until_killed(settings: Settings, request: GenerateRequest | None, command: tuple[str, ...]) -> str:
    """Run a stdio server in a process of its own until it is killed; with a request, make it run that."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workers.serve", *command],
        env={"PATH": "/usr/bin:/bin", **settings.to_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    job_id = ""
    with process:
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        messages = [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ]
        if request is not None:
            arguments = request.model_dump(mode="json")
            call = {"name": "generate", "arguments": arguments}
            messages.append({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
        for message in messages:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        process.wait(60)
        for line in process.stdout:
            answer = json.loads(line)
            if answer.get("id") == 2:
                job_id = answer["result"]["structuredContent"]["job_id"]
        assert process.returncode == -9
    return job_id or JobStore(settings.data_dir).job_ids()[0]
