"""States on their way to a disk that is slow, full, or gone."""

import contextlib
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs import journal as module
from ad_agent_mcp.jobs.counters import Counters
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.journal import Journal
from ad_agent_mcp.jobs.store import JobStore

from ..in_process import others_go_on

pytestmark = pytest.mark.anyio
ONE, TWO = "01a22322-9498-753c-8268-dd5e20fdd941", "01a22322-9b9d-75c7-95c5-05215a591fde"


def job_of(job_id: str = ONE, **changes: Any) -> Job:
    job = Job(id=job_id, request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=0.0, owner="me")
    return job.model_copy(update={"status": JobState.RUNNING, **changes})


class Disk(JobStore):
    """A store whose writes can be held up, and refused; it notes what it was told to write."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.may_write = threading.Event()
        self.may_write.set()
        self.refuses_with: Exception | None = None
        self.wrote: list[tuple[str, float, bool]] = []
        self.steps_told: list[str] = []

    def save(self, job: Job, *, durable: bool = True) -> None:
        self.may_write.wait(10)
        if self.refuses_with is not None:
            raise self.refuses_with
        super().save(job, durable=durable)
        self.wrote.append((job.id, job.percent, durable))

    def remember_step1(self, sha256: str, job_id: str) -> None:
        assert self.load(job_id).finished, "a step is found by its picture only when its job knows of it"
        self.steps_told.append(sha256)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(module, "RETRY_EVERY_S", 0.01)
    disk = Disk(tmp_path / "data")
    for job_id in (ONE, TWO):
        disk.create(job_of(job_id), {}, {})
    disk.wrote.clear()
    return disk


@pytest.fixture
async def journal(disk: Disk) -> AsyncIterator[Journal]:
    journal = Journal(disk, Counters())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        yield journal
        disk.may_write.set()
        tasks.cancel_scope.cancel()


async def test_nobody_waits_for_a_disk_that_is_slow_and_of_what_waits_the_latest_is_written(
    disk: Disk, journal: Journal
):
    disk.may_write.clear()
    first = journal.put(job_of(percent=1.0))
    await others_go_on()
    later = [journal.put(job_of(percent=float(percent))) for percent in range(2, 50)]
    other = journal.put(job_of(TWO, percent=7.0))
    await others_go_on()  # the loop is free
    assert not first.is_set()
    assert journal.shown(ONE) is None, "a state is shown when the disk has it"
    disk.may_write.set()
    with anyio.fail_after(5):
        for written in (first, *later, other):
            await written.wait()
    assert disk.wrote == [(ONE, 1.0, False), (ONE, 49.0, False), (TWO, 7.0, False)]
    assert disk.load(ONE).percent == 49.0


async def test_what_one_state_wanted_of_the_disk_a_later_one_gets(disk: Disk, journal: Journal):
    disk.may_write.clear()
    journal.put(job_of(TWO))
    await others_go_on()
    told = job_of(percent=33.0, finished={1: {"step1": "ab"}})
    journal.put(told, is_durable=True, step1="ab")
    last = journal.put(told.model_copy(update={"percent": 34.0}), is_saved=False)
    disk.may_write.set()
    with anyio.fail_after(5):
        await last.wait()
    assert disk.wrote[-1] == (ONE, 34.0, True)
    assert disk.steps_told == ["ab"]


async def test_what_only_has_to_be_shown_is_shown_in_its_turn_and_not_written(disk: Disk, journal: Journal):
    with anyio.fail_after(5):
        await journal.put(job_of(percent=5.0), is_saved=False).wait()
    shown = journal.shown(ONE)
    assert shown is not None
    assert shown.percent == 5.0
    assert disk.wrote == []


async def test_what_the_disk_cannot_take_is_remembered_and_written_when_it_can(disk: Disk, journal: Journal):
    disk.refuses_with = OSError(errno.ENOSPC, "full")
    over = job_of(status=JobState.COMPLETED, percent=100.0)
    with anyio.fail_after(5):
        await journal.keep(over)
    assert journal.shown(ONE) == over
    assert journal.is_unsaved(ONE)
    assert disk.load(ONE).status is JobState.RUNNING
    disk.refuses_with = None
    with anyio.fail_after(5):
        while journal.is_unsaved(ONE):
            await anyio.sleep(0.005)
    assert disk.load(ONE) == over
    assert journal.shown(ONE) is None, "what is over is the disk's to tell"


async def test_an_old_state_that_could_not_be_written_does_not_replace_a_newer_one(disk: Disk, journal: Journal):
    disk.refuses_with = OSError(errno.EIO, "broken")
    await journal.keep(job_of(percent=10.0))
    disk.refuses_with = None
    await journal.keep(job_of(percent=20.0))
    await journal.keep(job_of(TWO))
    await others_go_on()
    assert disk.load(ONE).percent == 20.0
    assert [percent for job_id, percent, _ in disk.wrote if job_id == ONE] in ([20.0], [10.0, 20.0])


async def test_a_fault_of_ours_while_writing_does_not_end_the_writing(disk: Disk, journal: Journal):
    disk.refuses_with = RuntimeError("a mistake")
    with anyio.fail_after(5):
        await journal.keep(job_of(status=JobState.FAILED))
    disk.refuses_with = None
    with anyio.fail_after(5):
        await journal.keep(job_of(TWO, percent=3.0))
    assert disk.load(TWO).percent == 3.0


async def test_a_job_whose_folder_somebody_deleted_is_not_written_for_ever(disk: Disk, journal: Journal):
    disk.remove(ONE)
    with anyio.fail_after(5):
        await journal.keep(job_of(status=JobState.FAILED))
    assert not journal.is_unsaved(ONE)
    assert journal.shown(ONE) is None
    assert ONE not in disk.active_jobs()


async def test_changes_are_told_once_each_and_to_whoever_waits(disk: Disk, journal: Journal):
    told: list[set[str]] = []

    async def listen() -> None:
        told.append(await journal.changed_jobs())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await others_go_on()
        assert told == []
        changed = journal.changed
        await journal.keep(job_of())
        assert changed.is_set()
    assert told == [{ONE}]
    with contextlib.suppress(TimeoutError), anyio.fail_after(0.05):
        told.append(await journal.changed_jobs())
    assert told == [{ONE}]


async def test_what_is_due_is_written_before_a_server_ends(disk: Disk, journal: Journal):
    disk.may_write.clear()
    journal.put(job_of(percent=1.0))
    await others_go_on()
    journal.put(job_of(percent=2.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.flush, 5.0)
        await others_go_on()
        disk.may_write.set()
    assert disk.load(ONE).percent == 2.0


async def test_a_disk_that_hangs_does_not_keep_a_server_from_ending(disk: Disk, journal: Journal):
    disk.may_write.clear()
    journal.put(job_of(percent=1.0))
    with anyio.fail_after(5):
        await journal.flush(0.05)


async def test_a_disk_that_refuses_is_asked_again_by_the_clock_and_not_by_other_news(
    disk: Disk, journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "RETRY_EVERY_S", 3600.0)
    disk.refuses_with = OSError(errno.ENOSPC, "full")
    await journal.keep(job_of())
    disk.refuses_with = None
    for percent in range(20):
        await journal.keep(job_of(TWO, percent=float(percent)))
    assert {job_id for job_id, _, _ in disk.wrote} == {TWO}
    assert journal.is_unsaved(ONE)


async def test_a_disk_that_refused_is_asked_again_though_news_never_stop(disk: Disk, journal: Journal):
    disk.refuses_with = OSError(errno.ENOSPC, "full")
    await journal.keep(job_of())
    disk.refuses_with = None
    with anyio.fail_after(5):
        while journal.is_unsaved(ONE):
            await journal.put(job_of(TWO), is_saved=False).wait()
    assert disk.load(ONE).status is JobState.RUNNING
