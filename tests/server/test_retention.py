"""Old jobs go, by count, age and space; what is not over stays."""

import time
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.schemas import GenerateRequest, JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.server.job import Job
from ad_agent_mcp.server.retention import DAY_S, prune
from ad_agent_mcp.server.store import JobStore
from ad_agent_mcp.server.worker_process import WORKER_COMMAND

from .conftest import app_with, settled

NOW = time.time()


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path)


def add(store: JobStore, *, age_days: float = 0.0, size: int = 10, status: JobState = JobState.COMPLETED) -> str:
    """A stored job of some age; the later one added is the newer one of equals."""
    milliseconds = int((NOW - age_days * DAY_S) * 1000) + len(store.job_ids())
    hexadecimal = f"{milliseconds:012x}"
    job_id = f"{hexadecimal[:8]}-{hexadecimal[8:]}-7000-8000-000000000000"
    job = Job(
        id=job_id,
        status=status,
        request=GenerateRequest(),
        engine=EngineName.DRAFT,
        steps=(1,),
        created_at=NOW,
        finished={1: {"step1": f"{milliseconds:064x}"}},
    )
    store.create(job, {"product_image": b"x" * size}, {})
    store.save(job)
    store.remember_step1(f"{milliseconds:064x}", job_id)
    return job_id


def limits(**changes: float) -> Settings:
    return Settings.model_validate({"keep_jobs": 100, "keep_days": 30, "keep_gb": 1, **changes})


def test_the_newest_jobs_are_kept_by_count(store: JobStore):
    ids = [add(store) for _ in range(5)]
    assert prune(store, limits(keep_jobs=2), now=NOW) == ids[:3][::-1]
    assert store.job_ids() == ids[:2:-1]
    assert len(list(store.steps.iterdir())) == 2


def test_old_jobs_and_uploads_go_by_age(store: JobStore):
    old, young = add(store, age_days=31), add(store, age_days=29)
    store.add_asset(b"picture")
    assert prune(store, limits(), now=NOW) == [old]
    assert store.job_ids() == [young]
    assert list(store.assets.iterdir())
    prune(store, limits(), now=NOW + 365 * DAY_S)
    assert not list(store.assets.iterdir())


def test_jobs_go_by_disk_space_but_never_the_newest_one(store: JobStore):
    ids = [add(store, size=600_000) for _ in range(3)]
    prune(store, limits(keep_gb=0.0007), now=NOW)
    assert store.job_ids() == [ids[2]]
    prune(store, limits(keep_gb=0.0001), now=NOW)
    assert store.job_ids() == [ids[2]]


def test_the_job_just_made_stays_although_the_clock_was_set_back(store: JobStore):
    add(store)
    made = add(store, age_days=1)
    assert made == store.latest_id() != store.job_ids()[0]
    prune(store, limits(keep_jobs=1), now=NOW - DAY_S)
    assert made in store.job_ids()


@pytest.mark.parametrize("status", [JobState.RUNNING, JobState.PENDING])
def test_a_job_that_is_not_over_is_never_removed(store: JobStore, status: JobState):
    waiting = add(store, age_days=400, status=status)
    [add(store) for _ in range(3)]
    prune(store, limits(keep_jobs=1, keep_gb=0.00001), now=NOW)
    assert waiting in store.job_ids()


def test_what_is_no_job_is_left_alone_and_links_are_not_followed(store: JobStore, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "photo.png").touch()
    old = add(store, age_days=400)
    linked_job = add(store, age_days=399)
    store.remove(linked_job)
    (store.jobs / linked_job).symlink_to(outside)
    (store.jobs / old / "inputs" / "linked").symlink_to(outside)
    (store.assets / "linked").symlink_to(outside)
    (store.jobs / "notes.txt").touch()
    (store.jobs / "a folder").mkdir()
    prune(store, limits(), now=NOW + 500 * DAY_S)
    assert not (store.jobs / old).exists()
    assert (outside / "photo.png").exists()
    assert (store.jobs / "notes.txt").exists()
    assert (store.jobs / "a folder").exists()


@pytest.mark.anyio
async def test_strange_things_in_the_data_folder_hinder_nobody(settings: Settings, request_: GenerateRequest):
    store = JobStore(settings.data_dir)
    (store.jobs / "zzz").mkdir()
    (store.active / "notes").mkdir()
    (store.assets / "folder").mkdir()
    async with app_with(settings, WORKER_COMMAND) as app:
        for _ in range(2):
            job = await settled(app, await app.service.generate(request_))
            assert job.status is JobState.COMPLETED
            assert store.latest_id() == job.id
