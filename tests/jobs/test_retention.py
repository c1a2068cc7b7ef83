"""Old jobs go, by count, age and space; what is not over stays."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.retention import ABANDONED_S, DAY_S, SAFE_FROM_AGE, prune, sweep
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

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
    old, *young = add(store, age_days=31), *(add(store, age_days=29) for _ in range(SAFE_FROM_AGE))
    store.add_asset(b"picture")
    assert prune(store, limits(), now=NOW) == [old]
    assert store.job_ids() == young[::-1]
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
    for _ in range(SAFE_FROM_AGE):
        add(store)
    prune(store, limits(), now=NOW + 500 * DAY_S)
    assert not (store.jobs / old).exists()
    assert (outside / "photo.png").exists()
    assert (store.jobs / "notes.txt").exists()
    assert (store.jobs / "a folder").exists()


@pytest.mark.parametrize("ahead_days", [400, 36_500])
def test_a_clock_far_ahead_costs_a_tenth_at_a_time_and_never_the_newest_ads(store: JobStore, ahead_days: float):
    ids = [add(store) for _ in range(60)]
    store.add_asset(b"one")
    store.add_asset(b"other")
    later = NOW + ahead_days * DAY_S
    assert prune(store, limits(), now=later) == ids[:6][::-1]
    assert len(list(store.assets.iterdir())) == 1
    for _ in range(60):
        prune(store, limits(), now=later)
    assert store.job_ids() == ids[: -SAFE_FROM_AGE - 1 : -1]


def test_with_few_jobs_no_clock_removes_one(store: JobStore):
    ids = [add(store, age_days=age) for age in range(SAFE_FROM_AGE, 0, -1)]
    for now in (NOW + 4000 * DAY_S, 0.0, NOW - 4000 * DAY_S, 2.0**40):
        assert prune(store, limits(), now=now) == []
    assert store.job_ids() == ids[::-1]


def test_after_the_clock_was_set_back_jobs_of_the_wrong_time_go_before_those_made_since(store: JobStore):
    ahead = [add(store, age_days=-400) for _ in range(3)]
    since = [add(store) for _ in range(3)]
    assert prune(store, limits(keep_jobs=4), now=NOW) == [ahead[1], ahead[0]]
    assert set(store.job_ids()) == {ahead[2], *since}


def test_a_few_seconds_of_difference_between_clocks_change_no_order(store: JobStore):
    ids = [add(store, age_days=-seconds / DAY_S) for seconds in (0, 2, 4)]
    assert prune(store, limits(keep_jobs=1), now=NOW) == [ids[1], ids[0]]


def test_nothing_is_removed_because_a_file_claims_that_it_is_large(store: JobStore):
    ids = [add(store) for _ in range(3)]
    (store.root / "sizes.json").write_text(json.dumps(dict.fromkeys(ids, 10**15)))
    assert prune(store, limits(), now=NOW) == []
    assert max(json.loads((store.root / "sizes.json").read_text()).values()) < 10**6


@pytest.mark.parametrize("content", ["[]", '{"a": -5}', '{"a": 1e400}', "{", "[" * 100_000, "\0", "\ud800"])
def test_broken_notes_about_sizes_are_made_anew(store: JobStore, content: str):
    job_id = add(store)
    (store.root / "sizes.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    assert prune(store, limits(), now=NOW) == []
    assert list(json.loads((store.root / "sizes.json").read_text())) == [job_id]


def test_a_job_that_cannot_be_removed_hinders_no_other(store: JobStore, monkeypatch: pytest.MonkeyPatch):
    ids = [add(store) for _ in range(4)]
    remove = shutil.rmtree

    def refuse_one(path: Path, **options: bool) -> None:
        if Path(path).name != ids[1]:
            remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse_one)
    assert prune(store, limits(keep_jobs=1), now=NOW) == [ids[2], ids[0]]
    assert store.job_ids() == [ids[3], ids[1]]


def test_removing_a_job_removes_nothing_outside_whatever_its_state_says(store: JobStore, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.touch()
    job_id = add(store)
    job = store.load(job_id)
    for path in (str(victim), "../victim"):
        store.save(job.model_copy(update={"finished": {1: {"step1": path}}}))
        store.remove(job_id)
        assert victim.exists()
        store.create(job, {}, {})


def age(path: Path, seconds: float) -> None:
    os.utime(path, (NOW - seconds, NOW - seconds), follow_symlinks=False)


def test_half_files_of_dead_writers_are_swept_and_those_of_living_ones_are_not(store: JobStore):
    job_id = add(store)
    folders = (store.root, store.active, store.steps, store.assets, store.jobs / job_id, store.jobs / job_id / "inputs")
    for folder in folders:
        for name, seconds in ((".job.json.0a1b2c3d.tmp", ABANDONED_S + 60), (".final.png.0a1b2c3d.tmp", 60.0)):
            (folder / name).write_bytes(b"half")
            age(folder / name, seconds)
        for name in ("notes.tmp", ".hidden", ".x.tmp"):
            (folder / name).touch()
            age(folder / name, 400 * DAY_S)
    for _ in range(2):
        prune(store, limits(), now=NOW)
    for folder in folders:
        assert not (folder / ".job.json.0a1b2c3d.tmp").exists()
        assert sorted(path.name for path in folder.glob("*tmp")) == [".final.png.0a1b2c3d.tmp", ".x.tmp", "notes.tmp"]
    prune(store, limits(), now=NOW + ABANDONED_S)
    assert not list(store.root.rglob(".final.png.0a1b2c3d.tmp"))
    assert job_id in json.loads((store.root / "sizes.json").read_text())


@pytest.mark.parametrize("is_marked", [True, False])
def test_half_made_jobs_are_swept_when_nobody_can_be_making_them_any_more(store: JobStore, is_marked: bool):
    half, young, whole = (add(store) for _ in range(3))
    for job_id, seconds in ((half, ABANDONED_S + 60), (young, 60.0)):
        (store.jobs / job_id / "job.json").unlink()
        if is_marked:
            (store.active / job_id).write_text("0a1b2c3d4e5f")
            age(store.active / job_id, seconds)
        age(store.jobs / job_id, seconds)
    if is_marked:
        sweep(store, now=NOW)
    else:
        prune(store, limits(), now=NOW)
    assert store.job_ids() == [whole, young]
    assert list(store.active_jobs()) == ([young] if is_marked else [])


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
