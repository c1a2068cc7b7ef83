"""What a request's words become before its job runs, whichever way they come in."""

import sys
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.schemas import GenerateRequest
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.server.job import Job, new_job_id

from .conftest import app_with

pytestmark = pytest.mark.anyio
SLOW = (sys.executable, "-m", "tests.workers.slow")


async def test_words_are_mended_and_told_in_a_new_job_and_in_a_resumed_one(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SLOW, queue_size=2) as app:
        damaged = request_.model_copy(update={"text_content": r"봄&amp;여름\n{name}"})
        first = await app.service.generate(damaged)
        again = await app.service.generate(damaged.model_copy(update={"resume_job_id": first.id}))
        for job in (first, again):
            assert job.request.text_content == "봄&여름\n{name}"
            assert [notice.code for notice in job.warnings] == ["text_mended", "text_suspicious"]
        inherited = GenerateRequest(resume_job_id=first.id)
        assert app.service.intake.prepare(inherited, new_job_id()).notices == []


async def test_words_are_mended_and_told_when_a_step_is_redone(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SLOW) as app:
        job = Job(
            id=new_job_id(),
            request=request_,
            engine=EngineName.DRAFT,
            steps=(1, 2, 3),
            finished={1: {}, 2: {}},
            created_at=0.0,
        )
        redone = app.service.intake.changed(job, {"text_content": "여름<br>세일"})
        assert redone.request.text_content == "여름\n세일"
        assert [notice.code for notice in redone.notices] == ["text_mended"]


async def test_words_with_nothing_to_see_make_an_ad_without_words(
    settings: Settings, request_: GenerateRequest, pictures: Path
):
    async with app_with(settings, SLOW) as app:
        job = await app.service.generate(request_.model_copy(update={"text_content": "\u3164\u200b"}))
        assert job.request.text_content is None
        assert job.steps == (1,)
        assert [notice.code for notice in job.warnings] == ["text_mended"]
