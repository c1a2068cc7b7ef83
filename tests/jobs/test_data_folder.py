"""A data folder that goes away, fills or closes while the server runs is told as that; no restart when it is back."""

import contextlib
import errno
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.data_folder import FORMAT, DataFolderError
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.peers import Peers
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, running, settled

SLOW = (sys.executable, "-m", "tests.workers.slow")


@contextlib.asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[App, Client]]:
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        yield app, client


async def error_of(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return (result.structured_content or {})["error"]


async def health_of(client: Client) -> tuple[str, str]:
    report = (await client.call_tool("health", {})).structured_content or {}
    return report["status"], " ".join(report["warnings"])


@pytest.mark.anyio
@pytest.mark.parametrize("back", ["as it was", "empty"])
async def test_a_data_folder_that_is_gone_is_named_and_the_server_goes_on_when_it_is_back(
    back: str, settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    arguments = request_.model_dump(mode="json", exclude_unset=True)
    async with served(settings) as (app, client):
        first = await settled(app, await app.service.generate(request_))
        settings.data_dir.rename(tmp_path / "away")
        for tool, given in (
            ("generate", arguments),
            ("list_jobs", {}),
            ("status", {}),
            ("status", {"job_id": first.id}),
            ("approve_step", {"job_id": first.id, "action": "approve"}),
        ):
            told = await error_of(client, tool, **given)
            assert told["code"] == "engine_failed"
            assert str(settings.data_dir) in told["message"]
            assert "is gone" in told["message"]
        status, warnings = await health_of(client)
        assert (status, str(settings.data_dir) in warnings) == ("degraded", True)
        if back == "empty":
            settings.data_dir.mkdir(mode=0o700)
        else:
            (tmp_path / "away").rename(settings.data_dir)
        assert await health_of(client) == ("ok", (await health_of(client))[1])
        again = await settled(app, await app.service.generate(request_))
        assert again.status is JobState.COMPLETED
        listed = (await client.call_tool("list_jobs", {})).structured_content or {}
        assert listed["total"] == (1 if back == "empty" else 2)


@pytest.mark.anyio
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
async def test_only_a_full_disk_is_called_full_and_what_else_is_wrong_is_told(
    code: int, settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    arguments = request_.model_dump(mode="json", exclude_unset=True)
    async with served(settings) as (app, client):
        with monkeypatch.context() as closed:
            replace = os.replace

            def refuse(source: str | Path, target: str | Path) -> None:
                if str(target).startswith(str(settings.data_dir)):
                    raise OSError(code, os.strerror(code), str(source), None, str(target))
                replace(source, target)

            closed.setattr(os, "replace", refuse)
            told = await error_of(client, "generate", **arguments)
        assert told["code"] == ("storage_full" if code == errno.ENOSPC else "engine_failed")
        assert "AD_AGENT_DATA_DIR" in told["message"]
        assert code == errno.ENOSPC or os.strerror(code) in told["message"]
        assert app.service.store.job_ids() == []
        assert app.service.store.active_jobs() == {}
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED


@pytest.mark.anyio
async def test_health_is_degraded_while_the_data_folder_cannot_be_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    async with served(settings) as (_, client):
        assert (await health_of(client))[0] == "ok"
        with monkeypatch.context() as closed:
            access = os.access
            closed.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path).name != "jobs")
            status, warnings = await health_of(client)
            assert (status, "cannot be written" in warnings) == ("degraded", True)
        assert (await health_of(client))[0] == "ok"


@pytest.mark.anyio
async def test_a_job_that_ends_while_its_folder_is_away_is_saved_when_it_is_back(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with app_with(settings, SLOW) as app:
        job = await app.service.generate(request_)
        await running(app)
        settings.data_dir.rename(tmp_path / "away")
        await app.service.stop(job.id, force=False)
        assert app.service.find(job.id).status is JobState.STOPPED
        (tmp_path / "away").rename(settings.data_dir)
        with anyio.fail_after(20):
            while app.service.store.load(job.id).status is not JobState.STOPPED:
                await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_server_is_seen_alive_again_in_a_folder_that_was_made_anew(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with app_with(settings, SLOW) as first:
        settings.data_dir.rename(tmp_path / "away")
        settings.data_dir.mkdir(mode=0o700)
        job = await first.service.generate(request_)
        await running(first)
        async with app_with(settings, SLOW) as second:
            found = await second.service.find_fresh(job.id)
            assert (found.status, found.owner) == (JobState.RUNNING, first.service.server_id)
        await first.service.stop(job.id, force=False)


def test_a_missing_data_folder_is_not_made_again_where_a_disk_may_be_missing(tmp_path: Path):
    store = JobStore(tmp_path / "data")
    for folder in (tmp_path / "data").glob("*/"):
        folder.rmdir()
    assert store.job_ids() == []
    assert store.assets.is_dir()
    (tmp_path / "data").rename(tmp_path / "away")
    with pytest.raises(DataFolderError, match="is gone"):
        store.add_asset(b"picture")
    assert not (tmp_path / "data").exists()


@pytest.mark.anyio
async def test_a_folder_that_others_may_look_into_is_told_and_what_is_made_in_it_is_closed(
    settings: Settings, request_: GenerateRequest, caplog: pytest.LogCaptureFixture
):
    settings.data_dir.mkdir()
    settings.data_dir.chmod(0o755)
    async with served(settings) as (app, client):
        job = await settled(app, await app.service.generate(request_))
        assert "chmod 700" in caplog.text
        status, warnings = await health_of(client)
        assert (status, "mode 755" in warnings) == ("ok", True)
        made = [path for path in settings.data_dir.rglob("*") if path.is_dir()]
        assert app.service.store.jobs / job.id / "inputs" in made
        assert {path.stat().st_mode & 0o077 for path in made} == {0}
        settings.data_dir.chmod(0o700)
        assert "chmod" not in (await health_of(client))[1]


@pytest.mark.anyio
@pytest.mark.parametrize("is_with_worker", [True, False])
async def test_a_job_whose_folder_goes_away_fails_with_what_is_wrong(
    is_with_worker: bool, settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    async with served(settings) as (app, client):
        with anyio.fail_after(20):
            while is_with_worker and app.service.worker.ready is None:
                await anyio.sleep(0.01)
        job = await app.service.generate(request_)
        settings.data_dir.rename(tmp_path / "away")
        failed = await settled(app, job)
        assert failed.error is not None
        assert (failed.error.code, "is gone" in failed.error.message) == (ErrorCode.ENGINE_FAILED, True)
        (tmp_path / "away").rename(settings.data_dir)
        again = await settled(app, await app.service.generate(GenerateRequest(resume_job_id=job.id)))
        assert again.status is JobState.COMPLETED
        assert (await health_of(client))[0] == "ok"


def test_a_folder_that_goes_while_a_jobs_pictures_are_looked_for_is_told_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = JobStore(tmp_path / "data")
    job = Job(id=new_job_id(), request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=0.0)
    store.create(job, {"product_image": b"photo"}, {})
    layer = store.layer

    def look_as_it_goes(job_id: str, name: str) -> Path | None:
        if store.root.exists():
            store.root.rename(tmp_path / "away")
        return layer(job_id, name)

    monkeypatch.setattr(store, "layer", look_as_it_goes)
    with pytest.raises(AdAgentError) as caught:
        store.inputs(job.id, 1)
    assert "is gone" in caught.value.info.message


def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "format").write_text("9")
    with pytest.raises(AdAgentError) as caught:
        JobStore(tmp_path)
    assert "newer version" in caught.value.info.message
    assert (tmp_path / "format").read_text() == "9"


@pytest.mark.parametrize("noted", [None, "", "1", "one", "\0\0", "1" * 300])
def test_a_folder_of_this_version_or_before_there_were_numbers_is_taken_and_marked(noted: str | None, tmp_path: Path):
    if noted is not None:
        (tmp_path / "format").write_text(noted)
    JobStore(tmp_path)
    assert (tmp_path / "format").read_text() == str(FORMAT)


def test_what_keeps_the_device_from_being_taken_is_logged_once_while_it_lasts(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    peers = Peers(JobStore(settings.data_dir), settings.device_lock, resume_max_age_s=60)
    for times in (1, 2):
        settings.data_dir.rename(tmp_path / "away")
        assert [peers.take_device("") for _ in range(3)] == [False] * 3
        assert caplog.text.count("no job is started") == times
        (tmp_path / "away").rename(settings.data_dir)
        assert peers.take_device("")
    peers.release_device()
