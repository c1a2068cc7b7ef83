"""One worker process as its server sees it."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import anyio
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import ErrorCode
from ad_agent_mcp.supervisor.process import WorkerDiedError, WorkerProcess

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio
NEWER = (sys.executable, "-m", "tests.workers.newer")
OLDER = (sys.executable, "-m", "tests.workers.older")
DRIFTED = (sys.executable, "-m", "tests.workers.drifted")
ENDS = (sys.executable, "-c", "from tests.workers import wire; wire.ready(); raise SystemExit(7)")


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="there is no waitid")
async def test_a_worker_killed_the_moment_it_ends_is_told_by_its_own_exit_code(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    if sys.version_info < (3, 12):  # what later ones do by themselves: the loop, and no thread, takes the exit status
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        monkeypatch.setattr(asyncio.get_event_loop_policy(), "_watcher", watcher)
    caplog.set_level(logging.WARNING)
    async with anyio.create_task_group() as tasks, WorkerProcess.spawn(settings, tasks, ENDS) as (worker, ready):
        os.waitid(os.P_PID, ready.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  # the loop must not see it end
        worker.kill()
        events = worker.events()
        with pytest.raises(WorkerDiedError, match="exit code 7"):
            await anext(events)
    assert caplog.text == ""


async def test_a_worker_that_leaves_signals_to_its_server_ends_in_order_when_its_stdin_closes(
    settings: Settings, tmp_path: Path
):
    code = (
        "import pathlib, signal, sys; from tests.workers import wire; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"wire.ready(); sys.stdin.read(); pathlib.Path({str(tmp_path / 'ended')!r}).touch()"
    )
    async with anyio.create_task_group() as tasks, WorkerProcess.spawn(settings, tasks, (sys.executable, "-c", code)):
        pass
    assert (tmp_path / "ended").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes")
async def test_no_signal_to_the_servers_group_meets_a_worker(settings: Settings):
    command = (sys.executable, "-m", "tests.workers.slow")
    async with anyio.create_task_group() as tasks, WorkerProcess.spawn(settings, tasks, command) as (_, ready):
        assert os.getpgid(ready.pid) != os.getpgid(0)


async def test_cuda_counts_gpus_as_the_driver_does_in_a_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    tells = (
        "import os; from tests.workers import wire; "
        "wire.ready(note=os.environ['CUDA_DEVICE_ORDER'] + ' ' + os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    async with (
        anyio.create_task_group() as tasks,
        WorkerProcess.spawn(settings, tasks, (sys.executable, "-c", tells)) as (_, ready),
    ):
        assert ready.note == "PCI_BUS_ID 1"


async def test_a_worker_is_told_which_c_compiler_to_use_and_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CC", "mycc")
    monkeypatch.setenv("SECRET", "s")
    tells = 'import os; from tests.workers import wire; wire.ready(note=f\'{os.getenv("CC")} {os.getenv("SECRET")}\')'
    async with (
        anyio.create_task_group() as tasks,
        WorkerProcess.spawn(settings, tasks, (sys.executable, "-c", tells)) as (_, ready),
    ):
        assert ready.note == "mycc None"


@pytest.mark.parametrize(
    ("command", "told"),
    [(OLDER, "could not read what the server sent"), (NEWER, "stage_progress.shade"), (DRIFTED, "protocol 999")],
    ids=["older", "newer", "another protocol"],
)
async def test_a_worker_of_another_version_fails_the_job_with_what_to_do(
    command: tuple[str, ...], told: str, settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, command) as app:
        job = await settled(app, await app.service.generate(request_))
    assert job.error is not None
    assert job.error.code is ErrorCode.WORKER_CRASHED
    assert "different versions" in job.error.message
    assert "start the server again" in job.error.message
    assert told in job.error.message
