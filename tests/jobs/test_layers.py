"""What a job holds for its ad to be rendered again, whoever made its step 1: it, another job, or version 0.1."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.pipeline.verify import rendering_trouble
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with
from ..pipeline.stored import document_of, jobs_of_version_1, rendered_again

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[App, Client]]:
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        yield app, client


async def finished(app: App, client: Client, tool: str, **arguments: Any) -> Path:
    """The folder of the job that this call finishes."""
    asked = (await client.call_tool(tool, arguments)).structured_content or {}
    told = await client.call_tool("status", {"job_id": asked["job_id"], "wait_seconds": 50})
    assert (told.structured_content or {})["status"] == "completed", told
    folder = app.service.store.folder(asked["job_id"])
    assert rendered_again(folder) == (folder / "final.png").read_bytes()
    assert rendering_trouble(folder) is None
    return folder


async def test_a_job_that_took_a_step_1_over_is_rendered_when_the_other_is_gone(
    settings: Settings, request_: GenerateRequest
):
    async with served(settings) as (app, client):
        first = await finished(app, client, "generate", **request_.model_dump(mode="json", exclude_unset=True))
        again = await finished(app, client, "generate", resume_job_id=first.name, text_content="Later")
        assert again != first
        product = document_of(again).product
        assert product == document_of(first).product
        kept = (first / "matte.png").read_bytes()
        app.service.store.remove(first.name)
        assert (again / product.matte.file).read_bytes() == kept
        assert rendered_again(again) == (again / "final.png").read_bytes()


async def test_layers_that_only_a_rendering_needs_are_no_pictures_for_clients(
    settings: Settings, request_: GenerateRequest
):
    async with served(settings) as (app, client):
        folder = await finished(app, client, "generate", **request_.model_dump(mode="json", exclude_unset=True))
        told = (await client.call_tool("status", {"job_id": folder.name})).structured_content or {}
        for name in ("letters", "matte"):
            assert (folder / f"{name}.png").is_file()
            assert app.service.store.layer(folder.name, name) is None
            assert f"{name}.png" not in str(told)


async def test_jobs_of_0_1_are_resumed_and_leave_documents_of_today(settings: Settings):
    earlier = jobs_of_version_1(settings.data_dir)
    done = [job_id for job_id, folder in earlier.items() if (folder / "final.png").is_file()]
    async with served(settings) as (app, client):
        for job_id in done:
            folder = await finished(app, client, "generate", resume_job_id=job_id, text_content="Later", start_step=2)
            assert document_of(folder).lettering.words.content == "Later"
            assert document_of(folder).product.source_box == document_of(earlier[job_id]).product.source_box


async def test_a_paused_job_of_0_1_goes_on_when_it_is_approved(settings: Settings):
    earlier = jobs_of_version_1(settings.data_dir)
    async with served(settings) as (app, client):
        waiting = [job_id for job_id in earlier if app.service.store.load(job_id).waiting_for == "approval"]
        assert waiting
        for job_id in waiting:
            folder = await finished(app, client, "approve_step", job_id=job_id, action="approve")
            assert b'"version": 2' in (folder / "layout.json").read_bytes()


async def test_a_step_to_be_made_again_no_longer_counts_in_a_document_of_0_1(tmp_path: Path):
    earlier, store = jobs_of_version_1(tmp_path), JobStore(tmp_path)
    job_id = next(job_id for job_id, folder in earlier.items() if 3 in document_of(folder).finished)
    before = document_of(earlier[job_id])
    store.forget_step(job_id, 3)
    after = document_of(earlier[job_id])
    assert 3 not in after.finished
    assert after == before.model_copy(update={"finished": after.finished})


async def test_a_damaged_document_of_0_1_is_none(tmp_path: Path):
    earlier, store = jobs_of_version_1(tmp_path), JobStore(tmp_path)
    for job_id, folder in earlier.items():
        assert store.document(job_id) is not None
        (folder / "layout.json").write_bytes((folder / "layout.json").read_bytes().replace(b'"source_box"', b'"x"'))
        assert store.document(job_id) is None
