"""What is stored is on the disk, and not only with the system, before anybody is told."""

from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.store import JobStore
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled
from ..power_cut import Disk


def test_a_job_that_was_accepted_would_survive_a_power_cut_with_its_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, disk = JobStore(tmp_path), Disk(monkeypatch)
    job = Job(id=new_job_id(), request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=1.0)
    store.create(job, {"product_image": b"photo"}, {})
    folder = store.jobs / job.id
    assert disk.content(folder / "job.json") == (folder / "job.json").read_bytes()
    assert disk.content(folder / "inputs" / "product_image") == b"photo"
    for path in (folder, folder / "inputs"):
        assert disk.has_name(path), f"{path.name} would be lost"
    later = job.model_copy(update={"percent": 50.0})
    store.save(later, durable=False)
    assert disk.content(folder / "job.json") != (folder / "job.json").read_bytes() == later.model_dump_json().encode()


def test_a_job_that_cannot_be_stored_whole_leaves_nothing_behind(tmp_path: Path):
    store = JobStore(tmp_path)
    job = Job(id=new_job_id(), request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=1.0)
    with pytest.raises((AdAgentError, OSError)):
        store.create(job, {"product_image": b"photo"}, {"step1.png": tmp_path / "gone.png"})
    assert not store.active_jobs()
    assert not list(store.jobs.iterdir())


@pytest.mark.anyio
async def test_what_clients_are_told_of_a_finished_step_would_survive_a_power_cut(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk(monkeypatch)
    told: list[tuple[int, ...]] = []
    async with app_with(settings, WORKER_COMMAND) as app:
        tell = app.service.journal.tell

        def look_and_tell(job: Job) -> None:
            kept = disk.content(app.service.store.jobs / job.id / "job.json")
            assert kept is not None
            assert Job.model_validate_json(kept).finished == job.finished
            told.append(tuple(job.finished))
            tell(job)

        monkeypatch.setattr(app.service.journal, "tell", look_and_tell)
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED
    assert list(dict.fromkeys(told)) == [(), (1,), (1, 2), (1, 2, 3)]
