"""The event loop never waits for a disk: whatever is asked, files are looked at in threads."""

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.http_api.server import build_http_app
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio
AUDITED = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "shutil.rmtree",
}
ASKED = ("stat", "lstat", "readlink")


class Watched:
    """Where a thread touched one of the folders: the lines of ours that led there."""

    def __init__(self) -> None:
        self.folders: tuple[str, ...] = ()
        self.thread = 0
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folders and event in AUDITED:
            self.note(event, arguments[0])

    def note(self, what: str, path: object) -> None:
        if threading.get_ident() != self.thread or not isinstance(path, str | os.PathLike):
            return
        if os.fspath(path).startswith(self.folders):
            ours = [frame for frame in traceback.extract_stack() if "ad_agent_mcp" in frame.filename]
            self.found.append(f"{what} {os.fspath(path)}: {[f'{frame.name}:{frame.lineno}' for frame in ours]}")


HEARD = Watched()  # an audit hook stays for the life of the process


@pytest.fixture
def watched(settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Listens to this thread, in which the event loop of the test runs."""
    for name in ASKED:
        plain = getattr(os, name)

        def ask(path: Any, *rest: Any, _name: str = name, _plain: Any = plain, **options: Any) -> Any:
            if HEARD.folders:
                HEARD.note(_name, path)
            return _plain(path, *rest, **options)

        monkeypatch.setattr(os, name, ask)
    HEARD.found.clear()
    HEARD.thread = threading.get_ident()
    yield HEARD
    HEARD.folders = ()


async def test_no_file_is_looked_at_on_the_event_loop_whatever_is_asked(
    settings: Settings, request_: GenerateRequest, pictures: Path, watched: Watched
):
    arguments = request_.model_dump(mode="json", exclude_unset=True)
    async with app_with(settings, WORKER_COMMAND, dev=True) as app, Client(app.server) as client:
        stored = await settled(app, await app.service.generate(request_))
        watched.folders = (str(settings.data_dir), str(pictures), "/proc/")

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, arguments)
            assert not answer.is_error, answer.content
            return answer.structured_content or {}

        for include in ("none", "preview", "full"):
            await call("status", job_id=stored.id, include_images=include)
        await call("status")
        await call("get_image", job_id=stored.id, name="final")
        await call("stop", job_id=stored.id)
        for name in ("list_jobs", "health", "fonts", "resources"):
            await call(name)
        done = await call("generate", resume_job_id=stored.id, text_content="New", wait_seconds=50)
        assert done["status"] == JobState.COMPLETED
        for action in ("redo", "approve", "stop"):
            paused = await call("generate", **arguments, pause_after_step=1, wait_seconds=50)
            changes = {"changes": {"bg_prompt": "red"}} if action == "redo" else {}
            await call("approve_step", job_id=paused["job_id"], action=action, **changes)
            await call("status", job_id=paused["job_id"], wait_seconds=50)
            await call("stop", job_id=paused["job_id"], force=True)
        for uri in ("", "/layout.json", "/final.png", "/cutout.png?offset=5&length=10"):
            await client.read_resource(f"ad://jobs/{stored.id}{uri}")
        for uri in ("ad://fonts", "ad://system"):
            await client.read_resource(uri)
    assert watched.found == []


async def test_no_file_is_looked_at_on_the_event_loop_by_routes_and_dashboard(
    settings: Settings, request_: GenerateRequest, pictures: Path, watched: Watched
):
    photo = (pictures / "bottle.png").read_bytes()
    async with app_with(settings, WORKER_COMMAND, dev=True) as app, Client(app.server) as client:
        paused = request_.model_copy(update={"pause_after_step": 1})
        stored = await settled(app, await app.service.generate(paused))
        transport = httpx2.ASGITransport(build_http_app(app, token=None, bound_host="127.0.0.1"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            watched.folders = (str(settings.data_dir), str(pictures), "/proc/")

            async def ask(method: str, path: str, **content: Any) -> httpx2.Response:
                answer = await http.request(method, path, **content)
                assert answer.is_success, answer.text
                return answer

            for path in ("/health", "/metrics", "/dashboard", "/dashboard/state"):
                await ask("GET", path)
            await ask("GET", f"/files/{stored.id}/step1.png")
            await ask("GET", f"/dashboard/pictures/{stored.id}/product.webp")
            await ask("POST", f"/dashboard/jobs/{stored.id}/approve", json={"action": "redo"})
            await ask("POST", f"/dashboard/jobs/{stored.id}/stop", json={"force": True})
            uploaded = await ask("POST", "/upload", content=photo)
            await client.read_resource(uploaded.json()["uri"])
    assert watched.found == []


async def test_no_file_is_looked_at_on_the_event_loop_when_a_job_is_taken_over(
    settings: Settings, request_: GenerateRequest, watched: Watched
):
    async with app_with(settings, (sys.executable, "-m", "tests.workers.slow")) as dying:
        job = await dying.service.generate(request_)
    store = JobStore(settings.data_dir)
    async with app_with(settings, WORKER_COMMAND) as app:
        await settled(app, await app.service.find_fresh(job.id))
        store.save(store.load(job.id).model_copy(update={"status": JobState.RUNNING, "owner": "gone"}))
        watched.folders = (str(settings.data_dir),)
        assert (await settled(app, await app.service.find_fresh(job.id))).status is JobState.COMPLETED
    assert watched.found == []
