"""A person approves a step: asked through their client where it can ask, spoken for by it where it cannot."""

import itertools
from typing import Any

import pytest
from mcp.types import ElicitResult

from ad_agent_mcp.jobs.store import JobStore

from .support import ERAS, SMALL, Place, call, connected, finish, refused

pytestmark = pytest.mark.anyio


def answering(action: str, decision: str | None, asked: list[str]):
    """A client's way to ask its person, who always says the same."""

    async def elicit(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        content = {"action": decision} if decision is not None else None
        return ElicitResult.model_validate({"action": action, "content": content})

    return elicit


async def paused(client: Any, place: Place) -> str:
    job = await call(client, "generate", product_image=place.photo, text_content="안녕", pause_after_step=1, **SMALL)
    assert (await finish(client, job["job_id"]))["waiting_for"] == "approval"
    return job["job_id"]


@pytest.mark.parametrize(("transport", "era"), list(itertools.product(["stdio", "http"], ERAS)))
async def test_the_person_is_asked_and_what_they_say_is_done_and_kept(transport: str, era: str, place: Place):
    asked: list[str] = []
    elicit = answering("accept", "stop", asked)
    async with connected(transport, place, era=era, elicitation_callback=elicit) as client:
        job_id = await paused(client, place)
        state = await call(client, "approve_step", job_id=job_id)
        assert state["status"] == "stopped"
        assert len(asked) == 1
        assert job_id in asked[0]
    (decision,) = JobStore(place.data).load(job_id).decisions
    assert (decision.step, decision.action, decision.by) == (1, "stop", "person")


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_without_a_decision_the_job_goes_on_waiting(action: str, place: Place):
    async with connected("stdio", place, elicitation_callback=answering(action, None, [])) as client:
        job_id = await paused(client, place)
        state = await call(client, "approve_step", job_id=job_id)
        assert state["waiting_for"] == "approval"


async def test_a_decision_in_the_call_is_not_asked_for_again(place: Place):
    asked: list[str] = []
    async with connected("stdio", place, elicitation_callback=answering("accept", "stop", asked)) as client:
        job_id = await paused(client, place)
        await call(client, "approve_step", job_id=job_id, action="approve")
        assert (await finish(client, job_id))["status"] == "completed"
        assert asked == []
        error = await refused(client, "approve_step", job_id=job_id)
        assert error["code"] == "invalid_request"
    assert [decision.by for decision in JobStore(place.data).load(job_id).decisions] == ["client"]
