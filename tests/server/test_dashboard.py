"""What the dashboard is told when jobs come and go meanwhile. The page itself: tests/e2e/test_dashboard.py."""

from pathlib import Path

import httpx2
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.schemas import GenerateRequest
from ad_agent_mcp.server.app import open_app
from ad_agent_mcp.server.http import build_http_app
from ad_agent_mcp.server.store import JobStore

from .conftest import settled

pytestmark = pytest.mark.anyio


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
