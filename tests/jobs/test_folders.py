"""Folders that settings name and that are not there, or cannot be written: said, and nothing stops for it."""

from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs.folders import folder_warnings
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..commands.test_cli import run
from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def astray(tmp_path: Path) -> dict[str, str]:
    """Settings that lead nowhere: not there, relative, a file, and a folder under a file."""
    (tmp_path / "file").touch()
    return {
        "AD_AGENT_IMAGE_ROOTS": f"{tmp_path}/gone:photos-of-nobody",
        "AD_AGENT_FONT_DIRS": f"{tmp_path}/file",
        "AD_AGENT_OUTPUT_DIR": f"{tmp_path}/file/ads",
    }


def test_doctor_names_every_folder_that_leads_nowhere(astray: dict[str, str], tmp_path: Path):
    found = run("doctor", data=tmp_path / "data", **{**astray, "COLUMNS": "400"})
    assert found.returncode == 0, found.stdout
    for setting in astray:
        assert f"{setting}: " in found.stdout
    for folder in (f"{tmp_path}/gone is no", f"{Path.cwd()}/photos-of-nobody is no", f"{tmp_path}/file/ads"):
        assert folder in found.stdout


async def test_health_names_them_too_and_the_ad_that_could_not_be_copied_says_so(
    settings: Settings, astray: dict[str, str], request_: GenerateRequest, tmp_path: Path
):
    changes = {"image_roots": (*settings.image_roots, tmp_path / "gone"), "output_dir": tmp_path / "file" / "ads"}
    async with app_with(settings, WORKER_COMMAND, **changes) as app:
        report = await app.context.health()
        assert report.status == "ok"
        assert [warning.partition(":")[0] for warning in report.warnings[:2]] == [
            "AD_AGENT_IMAGE_ROOTS",
            "AD_AGENT_OUTPUT_DIR",
        ]
        job = await settled(app, await app.service.generate(request_))
        assert job.status is JobState.COMPLETED
        told = {notice.code: notice.message for notice in app.service.store.load(job.id).warnings}
        assert str(tmp_path / "file" / "ads") in told["copy_failed"]


def test_folders_that_are_there_or_can_be_made_are_not_mentioned(settings: Settings, tmp_path: Path):
    well = {"image_roots": (tmp_path,), "font_dirs": (tmp_path,), "output_dir": tmp_path / "new" / "ads"}
    assert folder_warnings(settings.model_copy(update=well)) == []
    assert not (tmp_path / "new").exists()
