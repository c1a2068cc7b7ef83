"""Lists of jobs, the dashboard's too, while jobs vanish and servers die."""

import shutil
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.http_api.server import build_http_app
from ad_agent_mcp.jobs.job import new_job_id
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.server import open_app

from ..in_process import running, settled

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")


async def test_jobs_that_are_removed_while_the_page_asks_hinder_nobody(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with open_app(settings.model_copy(update={"dev": True}), is_remote=True) as app:
        kept, removed = [await settled(app, await app.service.generate(request_)) for _ in range(2)]
        served = build_http_app(app, token=None, bound_host="localhost")
        picture = JobStore.picture

        def remove_then_tell(store: JobStore, job_id: str, name: str) -> Path | None:
            path = picture(store, job_id, name)
            if job_id == removed.id:
                store.remove(job_id)
            return path

        monkeypatch.setattr(JobStore, "picture", remove_then_tell)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://localhost") as http:
            state = await http.get("/dashboard/state")
            assert {kept.id} <= {job["job_id"] for job in state.json()["over"]} <= {kept.id, removed.id}
            assert (await http.get(f"/dashboard/pictures/{removed.id}/final.webp")).status_code == 404


async def test_no_list_shows_a_job_whose_server_is_dead_as_running(settings: Settings, request_: GenerateRequest):
    async with open_app(settings.model_copy(update={"dev": True, "resume_max_age_s": 0}), is_remote=True) as app:
        done = await settled(app, await app.service.generate(request_))
        ghost = done.model_copy(update={"id": new_job_id(), "status": JobState.RUNNING, "owner": "a dead server"})
        app.service.store.create(ghost, {}, {})
        served = build_http_app(app, token=None, bound_host="localhost")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://localhost") as http:
            state = (await http.get("/dashboard/state")).json()
        assert (state["active"], state["over"][0]["error"]["code"]) == ([], "interrupted")
        app.service.store.create(ghost.model_copy(update={"id": new_job_id()}), {}, {})
        async with Client(app.server) as client:
            listed = (await client.call_tool("list_jobs", {})).structured_content or {}
        assert [job["status"] for job in listed["jobs"]] == ["failed", "failed", "completed"]


async def test_the_page_that_asks_every_second_has_no_finished_job_read_again(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with open_app(settings.model_copy(update={"dev": True}), is_remote=True) as app:
        first, second = [await settled(app, await app.service.generate(request_)) for _ in range(2)]
        served = build_http_app(app, token=None, bound_host="localhost")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(served), base_url="http://localhost") as http:
            before = (await http.get("/dashboard/state")).json()
            read: list[str] = []
            monkeypatch.setattr(JobStore, "load", lambda _, job_id: read.append(job_id))
            assert (await http.get("/dashboard/state")).json()["over"] == before["over"]
            assert read == []
            monkeypatch.undo()
            app.service.store.remove(first.id)
            assert [job["job_id"] for job in (await http.get("/dashboard/state")).json()["over"]] == [second.id]


async def test_a_job_whose_folder_is_deleted_while_it_runs_is_forgotten(
    settings: Settings, request_: GenerateRequest, caplog: pytest.LogCaptureFixture
):
    async with open_app(settings, command=SLOW) as app:
        job = await app.service.generate(request_)
        await running(app)
        shutil.rmtree(app.service.store.folder(job.id))
        app.service.worker.kill()
        with anyio.fail_after(20):
            while app.service.current is not None:
                await anyio.sleep(0.01)
        with pytest.raises(AdAgentError) as caught:
            app.service.find(job.id)
        assert caught.value.info.code is ErrorCode.NOT_FOUND
        assert app.service.store.active_jobs() == {}
        assert "was not saved" not in caplog.text


async def test_a_marker_left_of_a_job_that_is_over_does_not_keep_it_for_ever(
    settings: Settings, request_: GenerateRequest
):
    async with open_app(settings) as app:
        job = await settled(app, await app.service.generate(request_))
    (app.service.store.active / job.id).write_text("a dead server")
    async with open_app(settings) as app:
        assert app.service.store.active_jobs() == {}
