"""What a request becomes before it runs: what it takes over, what it may change, what it is told."""

import base64
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.admission import Admission, Prepared
from ad_agent_mcp.jobs.image_refs import ReferenceReader
from ad_agent_mcp.jobs.job import Job, new_job_id, steps_to_run
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.media.fonts import FontCatalog

from ..conftest import draw_product
from ..in_process import app_with

SLOW = (sys.executable, "-m", "tests.workers.slow")
NEW_ID = "01a205b1-7000-7d9d-b70b-4e69506ec1dd"
OLD_ID = "01a205b1-6d95-7d9d-b70b-4e69506ec1dd"
SIDE = 400
"""Of the photo, in pixels."""


class Door:
    """An admission with a photo and a store, and no server around it."""

    def __init__(self, settings: Settings, pictures: Path) -> None:
        self.photo = str(pictures / "bottle.png")
        self.store = JobStore(settings.data_dir)
        reader = ReferenceReader(settings, self.store, (pictures,))
        self._admission = Admission(settings, self.store, reader, FontCatalog(settings.font_dirs))

    def prepare(self, **arguments: Any) -> Prepared:
        return self._admission.prepare(GenerateRequest.model_validate(arguments), NEW_ID)

    def refusal(self, **arguments: Any) -> ErrorInfo:
        with pytest.raises(AdAgentError) as caught:
            self.prepare(**arguments)
        return caught.value.info

    def earlier(self, *finished: int, **arguments: Any) -> Job:
        """A job that has these steps behind it, with their pictures."""
        request = GenerateRequest.model_validate({"product_image": self.photo, "seed": 5, **arguments})
        job = Job(
            id=OLD_ID,
            request=request,
            engine=EngineName.DRAFT,
            steps=steps_to_run(request),
            created_at=0,
            waiting_for="approval",
        )
        self.store.create(job, {"product_image": Path(self.photo).read_bytes()}, {})
        for step, name in {1: "step1", 2: "step2", 3: "final"}.items():
            if step in finished:
                draw_product(SIDE).save(self.store.folder(OLD_ID) / f"{name}.png")
        job = job.model_copy(update={"finished": {step: {} for step in finished}, "status": JobState.PENDING})
        self.store.save(job)
        return job

    def redone(self, job: Job, **changes: Any) -> GenerateRequest:
        return self._admission.changed(job, changes).request

    def redo_refusal(self, job: Job, **changes: Any) -> ErrorInfo:
        with pytest.raises(AdAgentError) as caught:
            self.redone(job, **changes)
        return caught.value.info


@pytest.fixture
def door(settings: Settings, pictures: Path) -> Door:
    return Door(settings, pictures)


def codes(prepared: Prepared) -> list[str]:
    return [notice.code for notice in prepared.notices]


@pytest.mark.parametrize(
    ("box", "meant"),
    [
        ([100, 50, 300, 380], [100, 50, 200, 330]),
        ([100, 50, SIDE, SIDE], [100, 50, SIDE - 100, SIDE - 50]),
        ([10, 20, SIDE + 1, 100], [10, 20, SIDE - 10, 100]),
        ([0, 0, SIDE + 2, SIDE + 2], [0, 0, SIDE, SIDE]),
    ],
)
def test_a_box_that_reaches_outside_the_photo_is_refused_with_the_one_that_was_meant(
    box: list[int], meant: list[int], door: Door
):
    error = door.refusal(product_image=door.photo, product_box=box, seed=3)
    assert (error.code, error.field) == (ErrorCode.INVALID_REQUEST, "product_box")
    assert f"{SIDE} x {SIDE}" in error.message
    assert str(meant) in error.message
    assert error.fix is not None
    assert error.fix.arguments == {"product_image": door.photo, "product_box": meant, "seed": 3}
    assert door.prepare(**error.fix.arguments).request.product_box == tuple(meant)


def test_a_box_beside_the_photo_gets_no_ready_call(door: Door):
    assert door.refusal(product_image=door.photo, product_box=[SIDE, 0, 10, 10]).fix is None


def test_a_box_as_large_as_the_photo_is_taken(door: Door):
    assert door.prepare(product_image=door.photo, product_box=[0, 0, SIDE, SIDE]).request.product_box is not None


def test_a_ready_call_is_not_offered_without_the_picture_that_it_needs(door: Door):
    stream = io.BytesIO()
    draw_product(SIDE).save(stream, "PNG")
    photo = base64.b64encode(stream.getvalue()).decode()
    assert door.refusal(product_image=photo, product_box=[100, 50, 300, 380]).fix is None


def test_a_resumed_job_is_not_told_that_a_size_it_never_asked_for_is_ignored(door: Door):
    door.earlier(1, text_content="봄", width=512, height=512)
    assert "size_ignored" not in codes(door.prepare(resume_job_id=OLD_ID, text_content="여름"))
    assert "size_ignored" in codes(door.prepare(resume_job_id=OLD_ID, start_step=2, width=512, text_content="여름"))


def test_a_resumed_job_takes_over_the_ad_and_the_knobs_and_nothing_of_the_call(door: Door):
    door.earlier(1, text_content="봄", bg_prompt="wood", pause_after_step=1, wait_seconds=5, strength=0.3)
    request = door.prepare(resume_job_id=OLD_ID, text_position="bottom").request
    assert (request.text_content, request.bg_prompt, request.strength) == ("봄", "wood", 0.3)
    assert (request.pause_after_step, request.wait_seconds, request.text_position) == (None, 0, "bottom")
    assert request.start_step == 2


def test_a_job_is_resumed_by_the_beginning_of_its_id(door: Door):
    door.earlier(1, text_content="봄")
    assert door.prepare(resume_job_id=OLD_ID[:12].upper()).request.resume_job_id == OLD_ID


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"text_model_prompt": "gold"}, "text_model_prompt"),
        ({"composition_mode": "blend"}, "composition_mode"),
        ({"font_name": "BMJua/BMJUA_ttf.ttf"}, "font_name"),
        ({"step1_image": "x"}, "step1_image"),
    ],
)
def test_what_is_set_for_a_step_that_does_not_run_is_told(arguments: dict[str, Any], name: str, door: Door):
    prepared = door.prepare(product_image=door.photo, **arguments)
    assert [notice.message.partition(" ")[0] for notice in prepared.notices if notice.code == "unused_argument"] == [
        name
    ]


def test_a_default_that_is_said_again_is_no_wish(door: Door):
    told = {"text_position": "top", "negative_prompt": GenerateRequest().negative_prompt, "composition_steps": 28}
    assert "unused_argument" not in codes(door.prepare(product_image=door.photo, **told))


def test_a_given_step1_picture_is_used_with_and_without_words(door: Door):
    for words in ({}, {"text_content": "봄"}):
        prepared = door.prepare(step1_image=door.photo, start_step=2, **words)
        assert "unused_argument" not in codes(prepared)
        assert "step1_image" in prepared.inputs


def test_a_step_made_again_without_changes_gets_another_seed(door: Door):
    job = door.earlier(1, text_content="봄")
    assert door.redone(job).seed not in (5, None)
    assert door.redone(job, seed=None).seed not in (5, None)
    assert door.redone(job, bg_prompt="wood").seed == 5
    assert door.redone(job, seed=9).seed == 9


def test_at_the_pause_after_step_2_a_new_seed_is_taken_and_the_scene_is_not(door: Door):
    job = door.earlier(1, 2, text_content="봄")
    assert door.redone(job, seed=9).seed == 9
    error = door.redo_refusal(job, bg_prompt="wood")
    assert error.fix is not None
    assert error.fix.arguments == {"resume_job_id": OLD_ID, "start_step": 1, "bg_prompt": "wood"}


@pytest.mark.parametrize("nothing", [None, ""])
def test_words_are_not_taken_away_while_a_step_is_made_again(nothing: str | None, door: Door):
    assert door.redo_refusal(door.earlier(1, 2, text_content="봄"), text_content=nothing).field == "text_content"


def test_changes_are_read_like_any_call(door: Door):
    job = door.earlier(1, text_content="봄")
    assert door.redone(job, text_content=["봄", 50]).text_content == "봄\n50"
    error = door.redo_refusal(job, headline="여름")
    assert error.fix is not None
    assert error.fix.tool == "approve_step"
    assert error.fix.arguments == {"job_id": OLD_ID, "action": "redo", "changes": {"text_content": "여름"}}
    assert "text_position" in door.redo_refusal(job, text_position="left").message
    for name in ("width", "product_image", "wait_seconds", "resume_job_id"):
        assert door.redo_refusal(job, **{name: 512 if name == "width" else "5"}).field == name


@pytest.mark.anyio
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
        assert app.service.admission.prepare(inherited, new_job_id()).notices == []


@pytest.mark.anyio
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
        redone = app.service.admission.changed(job, {"text_content": "여름<br>세일"})
        assert redone.request.text_content == "여름\n세일"
        assert [notice.code for notice in redone.notices] == ["text_mended"]


@pytest.mark.anyio
async def test_words_with_nothing_to_see_make_an_ad_without_words(
    settings: Settings, request_: GenerateRequest, pictures: Path
):
    async with app_with(settings, SLOW) as app:
        job = await app.service.generate(request_.model_copy(update={"text_content": "\u3164\u200b"}))
        assert job.request.text_content is None
        assert job.steps == (1,)
        assert [notice.code for notice in job.warnings] == ["text_mended"]
