"""Jobs as version 0.1 left them on disk: read, shown, gone on with."""

import zipfile
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.mcp_api.server import App, open_app

from ..in_process import settled

pytestmark = pytest.mark.anyio
STORED = Path(__file__).parent.parent / "data" / "jobs-0.1.zip"


@pytest.fixture
def old_folder(settings: Settings) -> Path:
    with zipfile.ZipFile(STORED) as stored:
        stored.extractall(settings.data_dir)
    return settings.data_dir


def jobs_in(folder: Path) -> list[Job]:
    store = JobStore(folder)
    return [store.load(path.name) for path in sorted((folder / "jobs").iterdir())]


def one(folder: Path, **like: object) -> Job:
    return next(job for job in jobs_in(folder) if all(getattr(job.request, name) == like[name] for name in like))


async def ended(app: App, **arguments: object) -> Job:
    job = await app.service.generate(GenerateRequest.model_validate(arguments))
    return await settled(app, job)


def test_every_job_is_read_with_what_its_caller_gave(old_folder: Path):
    assert [(job.status, job.waiting_for) for job in jobs_in(old_folder)] == [
        ("completed", None),
        ("completed", None),
        ("completed", None),
        ("pending", "approval"),
        ("completed", None),
        ("stopped", None),
    ]
    resumed = one(old_folder, text_content="겨울 세일")
    assert {"text_content", "text_model_prompt", "composition_mode", "bg_prompt"} <= resumed.given
    assert resumed.given.isdisjoint({"strength", "composition_steps", "negative_prompt"})


async def test_a_job_that_waits_goes_on_to_its_end(settings: Settings, old_folder: Path):
    async with open_app(settings) as app:
        waiting = one(old_folder, pause_after_step=1)
        assert waiting.waiting_for == "approval"
        job = await settled(app, await app.service.approve(waiting.id, action="approve", changes={}))
    assert job.status == "completed"
    assert all(check.passed is not False for check in job.checks)


async def test_a_finished_job_is_gone_on_from(settings: Settings, old_folder: Path):
    async with open_app(settings) as app:
        old = one(old_folder, text_content="가을 세일", pause_after_step=None)
        anew = await ended(app, resume_job_id=old.id, text_content="봄 세일")
        assert (anew.status, anew.steps) == ("completed", (2, 3))
        assert (anew.request.bg_prompt, anew.request.seed) == (old.request.bg_prompt, old.request.seed)
        assert "product_unverified" not in {notice.code for notice in anew.warnings}


async def test_what_a_job_that_is_gone_on_from_never_said_is_nobodys_wish(settings: Settings, old_folder: Path):
    async with open_app(settings) as app:
        old = one(old_folder, text_content="가을 세일", pause_after_step=None)
        anew = await ended(app, resume_job_id=old.id, text_position="bottom")
        third = await ended(app, resume_job_id=anew.id, text_content="여름")
    assert third.given.isdisjoint({"strength", "composition_steps", "bg_negative_prompt", "seed"} - old.given)
    assert {"text_position", "text_content", "bg_prompt"} <= third.given
