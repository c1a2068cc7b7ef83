# pyright: basic
"""What the server keeps of the diffusion engine between jobs, with the real worker and tiny models on the CPU."""

from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest

from ad_agent_mcp.config import EngineChoice, Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tiny_settings: Callable[[str], Settings], tmp_path: Path, pictures: Path) -> Settings:
    own = {"data_dir": tmp_path / "data", "image_roots": (pictures,)}
    return tiny_settings("exact").model_copy(update=own)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More do nothing for tensors this small but wait for each other."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def request_(pictures: Path) -> GenerateRequest:
    return GenerateRequest(
        product_image=str(pictures / "bottle.png"),
        text_content="봄",
        text_model_prompt="gold foil " * 50,
        width=256,
        height=256,
        seed=5,
        num_inference_steps=2,
        composition_steps=3,
    )


async def followed(app: App, job: Job) -> tuple[Job, list[str]]:
    """The finished job, and every sub-step that it was seen in."""
    seen: list[str] = []

    async def see(job: Job) -> None:
        seen.append((job.sub_step or "").split(" ")[0])

    with anyio.fail_after(90):
        return await app.service.wait(job.id, 90, on_change=see, every_s=0.001), seen


async def test_a_job_is_painted_by_models_which_then_keep_the_device(
    settings: Settings, request_: GenerateRequest, capsys: pytest.CaptureFixture[str]
):
    elsewhere = app_with(settings, WORKER_COMMAND, engine=EngineChoice.DRAFT)
    async with app_with(settings, WORKER_COMMAND) as app, elsewhere as other:
        job, seen = await followed(app, await app.service.generate(request_))
        assert (job.status, job.engine, job.error) == (JobState.COMPLETED, EngineName.DIFFUSION, None)
        assert "loading_diffusion" in seen
        assert "flux_bg_generation" in seen
        cut = [notice.message for notice in job.warnings if notice.code == "prompt_truncated"]
        assert [text.split(" is too long: ")[0] for text in cut] == ["text_model_prompt"] * 2
        assert ["letters" in text for text in cut] == [True, False]  # the words of both are in two prompts
        assert app.service.slot.resident_models
        log = capsys.readouterr().err
        assert "stage text_paint" in log
        assert "gold foil" not in log
        with pytest.raises(AdAgentError) as refusal:
            await other.service.generate(request_)
        assert refusal.value.info.code is ErrorCode.BUSY
        drafted = await settled(app, await app.service.generate(request_.model_copy(update={"test_mode": True})))
        assert (drafted.status, drafted.engine) == (JobState.COMPLETED, EngineName.DRAFT)
        assert app.service.slot.resident_models


async def test_nothing_is_kept_between_jobs_that_load_for_each_stage(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, WORKER_COMMAND, residency="jit") as app:
        job = await app.service.generate(request_.model_copy(update={"text_content": None}))
        assert (await followed(app, job))[0].status is JobState.COMPLETED
        assert not app.service.slot.resident_models


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="a system that does not tell what is loaded")
async def test_what_the_first_job_needs_is_imported_before_it_comes(settings: Settings):
    me = psutil.Process()
    async with app_with(settings, WORKER_COMMAND) as app:
        with anyio.fail_after(60):
            while not any("libtorch" in Path(one.path).name for child in me.children() for one in child.memory_maps()):
                await anyio.sleep(0.05)
        assert not app.service.slot.resident_models


async def test_preloaded_models_are_unloaded_when_no_job_comes(settings: Settings):
    async with app_with(settings, WORKER_COMMAND, preload=True, idle_unload_s=1) as app:
        with anyio.fail_after(60):
            while not app.service.slot.resident_models:
                await anyio.sleep(0.01)
            while app.service.slot.resident_models:
                await anyio.sleep(0.01)
        assert app.service.worker.restarts == 0
