"""Which job a caller speaks of."""

import uuid
from pathlib import Path

import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.lookup import ANY, FINISHED, UNFINISHED, WAITING, Latest, find_job_id, which_job
from ad_agent_mcp.jobs.store import JobStore

FIRST = "01a205b1-6d95-7d9d-b70b-4e69506ec1dd"
SECOND = "01a205b1-7000-7d9d-b70b-4e69506ec1dd"
THIRD = "02b00000-6d95-7d9d-b70b-4e69506ec1dd"


def job_of(job_id: str, state: JobState, **fields: object) -> Job:
    return Job.model_validate(
        {
            "id": job_id,
            "status": state,
            "request": GenerateRequest(),
            "engine": EngineName.DRAFT,
            "steps": (1,),
            "created_at": 0,
            **fields,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    store = JobStore(tmp_path)
    for job_id, state, waiting in (
        (FIRST, JobState.PENDING, "approval"),
        (SECOND, JobState.COMPLETED, None),
        (THIRD, JobState.RUNNING, None),
    ):
        job = job_of(job_id, JobState.PENDING, waiting_for=waiting, finished={1: {}})
        store.create(job, {}, {})
        store.save(job.model_copy(update={"status": state}))
    return store


def meant(store: JobStore, latest: Latest, spoken: str | None = None) -> str:
    return which_job(spoken, store, latest, lambda ids: (store.load(job_id) for job_id in ids))


@pytest.mark.parametrize(
    "spoken",
    [
        FIRST,
        FIRST.upper(),
        f"  {FIRST}\n",
        f"ad://jobs/{FIRST}",
        f"{FIRST[:20]}...",
        f"ad://jobs/{FIRST}/final.png",
        f"AD://JOBS/{FIRST.upper()}/",
        f'"{FIRST}"',
        "{" + FIRST + "}",
        f"urn:uuid:{FIRST}",
        f"job {FIRST}",
        f"http://127.0.0.1:8000/files/{FIRST}/final.png",
        FIRST.replace("-", ""),
        "01a205b1-6d",
        "01a205b16d95",
        "01A205B1-6D95…",
    ],
)
def test_a_job_is_known_by_its_id_in_any_spelling_and_by_its_beginning(spoken: str, store: JobStore):
    assert find_job_id(spoken, store) == FIRST


@pytest.mark.parametrize("spoken", ["latest", " Last "])
def test_the_latest_may_be_named_as_that(spoken: str, store: JobStore):
    assert meant(store, FINISHED, spoken) == SECOND


def test_a_beginning_that_fits_several_jobs_names_them(store: JobStore):
    with pytest.raises(AdAgentError) as caught:
        find_job_id("01a2", store)
    info = caught.value.info
    assert (info.code, info.field) == (ErrorCode.INVALID_REQUEST, "job_id")
    assert FIRST in info.message
    assert SECOND in info.message
    assert THIRD not in info.message


@pytest.mark.parametrize("spoken", ["0f0f", str(uuid.UUID(int=7))[:14]])
def test_a_beginning_of_no_job_is_not_found(spoken: str, store: JobStore):
    with pytest.raises(AdAgentError) as caught:
        find_job_id(spoken, store, field="resume_job_id")
    assert (caught.value.info.code, caught.value.info.field) == (ErrorCode.NOT_FOUND, "resume_job_id")


@pytest.mark.parametrize(
    "spoken",
    ["", "latest", "012", "../../etc/passwd", f"{FIRST} {SECOND}", f"0{FIRST}", FIRST[:-1] + "\0", "z" * 10**6],
)
def test_what_names_no_job_is_refused(spoken: str, store: JobStore):
    with pytest.raises(AdAgentError) as caught:
        find_job_id(spoken, store)
    assert caught.value.info.code is ErrorCode.INVALID_REQUEST
    assert caught.value.info.fix is not None
    assert len(caught.value.info.message) < 500


def test_who_names_no_job_means_the_newest_that_fits(store: JobStore):
    assert meant(store, ANY) == THIRD
    assert meant(store, UNFINISHED) == THIRD
    assert meant(store, WAITING) == FIRST
    assert meant(store, FINISHED) == SECOND


@pytest.mark.parametrize("latest", [ANY, UNFINISHED, WAITING, FINISHED])
def test_without_any_job_that_is_said(latest: Latest, tmp_path: Path):
    with pytest.raises(AdAgentError) as caught:
        meant(JobStore(tmp_path), latest)
    assert (caught.value.info.code, caught.value.info.message) == (ErrorCode.NOT_FOUND, latest.missing.en)
