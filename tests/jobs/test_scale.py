"""However many jobs are stored, a start, a status and the end of a job look at the same few files."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.retention import prune
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

FEW, MANY = 3, 300


class Touched:
    """The paths under a folder that this process opens, lists and asks the system about."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.paths: list[str] = []
        self.listed: list[str] = []
        sys.addaudithook(self._hear)
        self._stat = os.stat

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.root is not None and event in ("open", "os.scandir", "os.listdir"):
            self._note(arguments[0])
            if event != "open":
                self.listed.append(str(arguments[0]))

    def _note(self, path: object) -> None:
        if self.root is not None and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root):
            self.paths.append(os.fspath(path))

    def stat(self, path: object, *rest: object, **options: object) -> os.stat_result:
        self._note(path)
        return self._stat(path, *rest, **options)  # pyright: ignore


HEARD = Touched()  # an audit hook stays for the life of the process


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Touched]:
    monkeypatch.setattr(os, "stat", HEARD.stat)
    HEARD.paths.clear()
    yield HEARD
    HEARD.root = None


def filled(root: Path, count: int) -> JobStore:
    """A data folder with finished jobs, written as the store would have."""
    store = JobStore(root)
    job = Job(
        id=new_job_id(),
        status=JobState.COMPLETED,
        request=GenerateRequest(product_image="x"),
        engine=EngineName.DRAFT,
        steps=(1,),
        created_at=1.0,
        finished={1: {}},
    )
    for _ in range(count):
        stored = job.model_copy(update={"id": new_job_id()})
        folder = store.jobs / stored.id
        folder.mkdir()
        (folder / "job.json").write_text(stored.model_dump_json(by_alias=True))
        (folder / "final.png").write_bytes(b"picture")
    return store


async def of_a_start_and_a_status(settings: Settings, job_id: str | None, touched: Touched) -> int:
    touched.root = str(settings.data_dir)
    touched.paths.clear()
    touched.listed.clear()
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        for _ in range(3):
            arguments = {"include_images": "none"} | ({"job_id": job_id} if job_id else {})
            assert not (await client.call_tool("status", arguments)).is_error
    touched.root = None
    assert str(settings.data_dir / "jobs") not in touched.listed
    return len(touched.paths)


@pytest.mark.anyio
async def test_a_start_and_a_status_look_at_no_more_files_when_there_are_more_jobs(
    settings: Settings, request_: GenerateRequest, touched: Touched
):
    counts: dict[bool, list[int]] = {False: [], True: []}
    for number in (FEW, MANY):
        store = filled(settings.data_dir, number)
        async with app_with(settings.model_copy(update={"keep_jobs": 10_000}), WORKER_COMMAND) as app:
            latest = (await settled(app, await app.service.generate(request_))).id
        assert store.latest_id() == latest
        for by_id in counts:
            counts[by_id].append(await of_a_start_and_a_status(settings, latest if by_id else None, touched))
        shutil.rmtree(settings.data_dir)
    for few, many in counts.values():
        assert few == many > 0


def test_retention_looks_only_at_the_jobs_that_are_new(tmp_path: Path, touched: Touched):
    counts: list[int] = []
    for number in (FEW, MANY):
        store = filled(tmp_path / str(number), number)
        settings = Settings(keep_jobs=10_000)
        assert prune(store, settings) == []
        filled(store.root, 1)
        touched.root = str(store.root)
        touched.paths.clear()
        assert prune(store, settings) == []
        touched.root = None
        counts.append(len(touched.paths))
    assert counts[0] == counts[1] > 2


def test_what_a_job_takes_is_counted_by_its_size_and_forgotten_with_the_job(tmp_path: Path):
    store = filled(tmp_path, 3)
    for job_id in store.job_ids():
        (store.jobs / job_id / "final.png").write_bytes(bytes(1 << 20))
    settings = Settings(keep_jobs=10_000, keep_gb=2.5 / 1024)
    oldest = store.job_ids()[-1]
    assert prune(store, settings) == [oldest]
    assert oldest not in (tmp_path / "sizes.json").read_text()
    (tmp_path / "sizes.json").write_text("{broken")
    assert prune(store, settings) == []
    filled(tmp_path, 1)
    assert prune(store, settings) == []


def test_the_latest_job_is_found_in_a_folder_that_never_noted_it_or_lost_it(tmp_path: Path):
    store = filled(tmp_path, 3)
    assert store.latest_id() == store.job_ids()[0]
    newest = Job(id=new_job_id(), request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=1.0)
    store.create(newest, {}, {})
    assert store.latest_id() == newest.id
    store.remove(newest.id)
    assert store.latest_id() == store.job_ids()[0] != newest.id
    assert JobStore(tmp_path / "empty").latest_id() is None


@pytest.mark.anyio
async def test_a_list_by_status_reads_only_jobs_that_may_have_it(settings: Settings, touched: Touched):
    store = filled(settings.data_dir, MANY)
    failed = store.load(store.job_ids()[-1]).model_copy(update={"status": JobState.FAILED, "id": new_job_id()})
    store.create(failed, {}, {})
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        for status, found, most in (("running", 0, 5), ("failed", 1, 2 * MANY), ("failed", 1, 5), ("stopped", 0, 5)):
            touched.root = str(store.jobs)
            touched.paths.clear()
            listed = (await client.call_tool("list_jobs", {"status": status})).structured_content or {}
            touched.root = None
            assert (len(listed["jobs"]), listed["total"]) == (found, MANY + 1)
            assert len(touched.paths) <= most
