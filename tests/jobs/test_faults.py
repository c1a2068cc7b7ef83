"""Whose fault it is: what a worker cannot mean costs the worker, what the server itself fails at only that job."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import JobDone, JobEvent, StageProgress, StepResult
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName, Stage
from ad_agent_mcp.contract.texts import say
from ad_agent_mcp.jobs.job import Estimate, Job, advance, steps_to_run
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.responses import status_result
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.mcp_api.views import job_status
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled
from .test_job import ID, requests, running_job


def lies(how: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.workers.liar", how)


@pytest.mark.anyio
@pytest.mark.parametrize("pause", [None, 1])
@pytest.mark.parametrize("how", ["done before any step", "a step it was not given"])
async def test_a_worker_that_says_what_cannot_be_is_replaced_and_its_job_fails(
    how: str, pause: int | None, settings: Settings, request_: GenerateRequest
):
    lie = request_.model_copy(update={"bg_prompt": "lie", "pause_after_step": pause, "text_content": pause and "words"})
    async with app_with(settings, lies(how)) as app, Client(app.server) as client:
        job = await settled(app, await app.service.generate(lie))
        assert job.error is not None
        assert job.error.code is ErrorCode.WORKER_CRASHED
        told = await client.call_tool("status", {"job_id": job.id})
        assert (told.structured_content or {})["status"] == "failed"
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED
        assert app.service.worker.restarts == 1


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["more iterations than there are", "very many iterations"])
async def test_progress_beyond_all_bounds_is_told_as_progress(how: str, settings: Settings, request_: GenerateRequest):
    async with app_with(settings, lies(how)) as app:
        lie = request_.model_copy(update={"bg_prompt": "lie"})
        assert (await settled(app, await app.service.generate(lie))).status is JobState.COMPLETED
        assert app.service.worker.restarts == 0


def tally_fails(app: App, patch: pytest.MonkeyPatch, error: Exception) -> None:
    patch.setattr(app.service.counters, "stage_ended", raising(error))


def giving_it_to_the_worker_fails(app: App, patch: pytest.MonkeyPatch, error: Exception) -> None:
    patch.setattr(app.service.store, "inputs", raising(error))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


FULL = AdAgentError(ErrorCode.STORAGE_FULL, say("jobs.broken_disk_full"))
FAULTS = [
    (ValueError("/a/path of ours"), ErrorCode.ENGINE_FAILED, "ValueError"),
    (OSError(errno.ENOSPC, "No space left on device"), ErrorCode.STORAGE_FULL, "is full"),
    (OSError(errno.EMFILE, "Too many open files"), ErrorCode.ENGINE_FAILED, "Too many open files"),
    (FULL, ErrorCode.STORAGE_FULL, FULL.info.message),
]


@pytest.mark.anyio
@pytest.mark.parametrize("where", [tally_fails, giving_it_to_the_worker_fails])
@pytest.mark.parametrize(("error", "code", "words"), FAULTS)
async def test_what_the_server_fails_at_is_told_in_its_own_words_and_leaves_the_worker_alone(
    where: Callable[..., None],
    error: Exception,
    code: ErrorCode,
    words: str,
    settings: Settings,
    request_: GenerateRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    async with app_with(settings, WORKER_COMMAND) as app:
        await settled(app, await app.service.generate(request_))
        pid = app.service.worker.ready and app.service.worker.ready.pid
        with monkeypatch.context() as broken:
            where(app, broken, error)
            job = await settled(app, await app.service.generate(request_))
        assert job.error is not None
        assert (job.status, job.error.code, job.error.job_id) == (JobState.FAILED, code, job.id)
        assert words in job.error.message
        assert "/a/path" not in job.error.message
        assert app.service.store.load(job.id) == job
        assert "Traceback" in caplog.text
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED
        assert app.service.worker.ready is not None
        assert app.service.worker.ready.pid == pid


@pytest.mark.anyio
async def test_a_job_whose_end_cannot_be_saved_for_a_bug_of_ours_ends_all_the_same(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with app_with(settings, WORKER_COMMAND) as app:
        with monkeypatch.context() as broken:
            save = app.service.store.save

            def fail(job: Job, **options: Any) -> None:
                if job.status.is_terminal:
                    raise ValueError("a bug of ours")
                save(job, **options)

            broken.setattr(app.service.store, "save", fail)
            job = await settled(app, await app.service.generate(request_))
            assert job.status is JobState.COMPLETED
            again = await settled(app, await app.service.generate(request_))
            assert again.status is JobState.COMPLETED
        assert caplog.text.count("Traceback") == 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> JobStore:
    return JobStore(tmp_path_factory.mktemp("data"))


def shown(job: Job, store: JobStore) -> JobState:
    """As every tool and resource shows it."""
    status = job_status(job, store=store, locate=lambda job_id, name: name, metrics=None)
    return JobState((status_result(status).structured_content or {})["status"])


far = st.integers(0, 10**400)
wild = st.one_of(
    st.builds(
        lambda stage, done, total: StageProgress(job_id=ID, stage=stage, done=done, total=total + 1),
        st.sampled_from(Stage),
        far,
        far,
    ),
    st.builds(lambda step: StepResult(job_id=ID, step=step, files={}, width=-1, height=10**9), st.integers(1, 3)),
    st.just(JobDone(job_id=ID)),
)


@given(requests, st.lists(wild, max_size=8))
def test_no_view_fails_whatever_a_worker_says(store: JobStore, request: GenerateRequest, sequence: list[JobEvent]):
    job = running_job(request)
    for at, event in enumerate(sequence):
        job = advance(job, event, at=float(at))
        assert shown(job, store) is job.status
        assert set(job.finished) <= set(job.steps)
        assert job.waiting_for is None or job.finished
        assert job.status is not JobState.COMPLETED or set(job.finished) == set(job.steps)


stored = st.builds(
    lambda request, **fields: Job(id=ID, request=request, steps=steps_to_run(request), created_at=0.0, **fields),
    requests,
    status=st.sampled_from(JobState),
    waiting_for=st.sampled_from([None, "approval"]),
    engine=st.sampled_from(EngineName),
    stage=st.sampled_from([None, *Stage]),
    loading=st.sampled_from([None, "flux"]),
    done=far,
    total=far,
    expected=st.just({Stage.CUT_OUT: Estimate(0.0, 0.0)}),
    percent=st.floats(0, 100),
    ends_at=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    running_since=st.none() | st.floats(0, 1e12),
    finished=st.dictionaries(st.integers(1, 3), st.just({})),
    error=st.none() | st.just(ErrorInfo(code=ErrorCode.ENGINE_FAILED, message="")),
)


@given(stored)
def test_no_view_fails_whatever_state_is_stored(store: JobStore, job: Job):
    assert shown(job, store) is job.status


@pytest.mark.anyio
@pytest.mark.parametrize("action", ["approve", "redo", "stop"])
async def test_a_stored_job_that_waits_without_a_finished_step_can_be_shown_and_decided_about(
    action: Any, settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        done = await settled(app, await app.service.generate(request_))
        odd = done.model_copy(update={"status": JobState.PENDING, "waiting_for": "approval", "finished": {}})
        app.service.store.save(odd)
        told = await client.call_tool("status", {"job_id": odd.id})
        assert (told.structured_content or {})["waiting_for"] == "approval"
        assert not (await client.call_tool("approve_step", {"job_id": odd.id, "action": action})).is_error
        ended = await settled(app, await app.service.find_fresh(odd.id))
        assert ended.status is (JobState.STOPPED if action == "stop" else JobState.COMPLETED)
