"""Whole jobs of the diffusion engine, with tiny models, through the real server and its worker."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp import Client

from ..engines import tiny_models
from .support import SERVER, Place, call, connected, finish, http_server, processes_of, refused

pytestmark = pytest.mark.anyio
SMALL = {"text_content": "봄 세일", "width": 256, "height": 256, "seed": 3, "num_inference_steps": 3}
LONG = {**SMALL, "num_inference_steps": 14, "strength": 0.1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    """A place whose models are prepared as a person prepares them."""
    root = tmp_path_factory.mktemp("diffusion")
    place = Place(
        root / "data",
        pictures,
        {
            "AD_AGENT_ENGINE": "diffusion",
            "AD_AGENT_FLUX_MODEL": str(tiny_models.build_flux(root / "flux")),
            "AD_AGENT_SDXL_MODEL": str(tiny_models.build_sdxl(root / "sdxl")),
            "AD_AGENT_CONTROLNET_MODEL": str(tiny_models.build_controlnet(root / "controlnet")),
            "AD_AGENT_SEGMENTATION_MODEL": str(tiny_models.build_segmentation(root / "segmentation")),
            "AD_AGENT_MODELS_DIR": str(root / "models"),
            "AD_AGENT_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
    )
    prepared = subprocess.run(
        [*SERVER, "models", "prepare"], env=place.environment(), stdin=subprocess.DEVNULL, capture_output=True
    )
    assert prepared.returncode == 0, prepared.stderr.decode()
    return place


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    """A server whose worker stays warm from test to test."""
    with http_server(place) as url:
        yield url


async def follow_to(client: Client, job_id: str, sub_step: str) -> None:
    """Wait until the job tells an iteration of a sub-step."""
    with anyio.fail_after(60):
        while True:
            state = await call(client, "status", job_id=job_id, include_images="none")
            assert state["status"] in ("pending", "running"), state
            if (state["sub_step"] or "").startswith(f"{sub_step} ("):
                return


async def test_a_job_over_stdio_tells_what_it_loads_and_paints(place: Place):
    told: list[tuple[float, str]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message or ""))

    async with connected("stdio", place) as client:
        arguments = {"product_image": place.photo, "wait_seconds": 50, **SMALL}
        state = (await client.call_tool("generate", arguments, progress_callback=on_progress)).structured_content
        assert (state["status"], state["engine"]) == ("completed", "diffusion"), state["error"]
        assert [percent for percent, _ in told] == sorted(percent for percent, _ in told)
        said = " ".join(message for _, message in told)
        assert "loading_" in said
        assert "flux_bg_generation (" in said
        assert "draft_" not in said
        passed = {check["name"]: check["pass"] for check in state["checks"]}
        assert passed["product_core_identity"] is not False
        assert passed["glyph_overlap"]
        health = await call(client, "health")
        assert "diffusion" in str(health)


async def test_a_job_stops_while_it_is_denoised_and_the_next_one_runs(place: Place, url: str):
    async with Client(f"{url}/mcp") as client:
        job = await call(client, "generate", product_image=place.photo, **{**SMALL, "num_inference_steps": 100})
        await follow_to(client, job["job_id"], "flux_bg_generation")
        worker = processes_of(place)["worker"][0].pid
        stopped = await call(client, "stop", job_id=job["job_id"])
        assert stopped["status"] == "stopped"
        again = await call(client, "generate", product_image=place.photo, **SMALL)
        assert (await finish(client, again["job_id"]))["status"] == "completed"
        assert processes_of(place)["worker"][0].pid == worker


async def test_a_job_whose_worker_is_killed_resumes_and_equals_an_uninterrupted_one(place: Place, url: str):
    async with Client(f"{url}/mcp") as client:
        job = await call(client, "generate", product_image=place.photo, **LONG)
        await follow_to(client, job["job_id"], "sdxl_text_generation")
        processes_of(place)["worker"][0].kill()
        failed = await finish(client, job["job_id"])
        assert failed["error"]["code"] == "worker_crashed"
        assert failed["step1_result"]
        resumed = await call(client, "generate", resume_job_id=job["job_id"])
        state = await finish(client, resumed["job_id"])
        assert state["status"] == "completed", state["error"]
        assert state["parameters"]["start_step"] == 2
        whole = await call(client, "generate", product_image=place.photo, **LONG)
        assert (await finish(client, whole["job_id"]))["status"] == "completed"
        jobs = place.data / "jobs"
        for name in ("step1", "step2", "final"):
            first, second = (jobs / one["job_id"] / f"{name}.png" for one in (resumed, whole))
            assert first.read_bytes() == second.read_bytes(), name


async def test_test_mode_runs_on_the_draft_engine(place: Place, url: str):
    async with Client(f"{url}/mcp") as client:
        job = await call(client, "generate", product_image=place.photo, test_mode=True, **SMALL)
        state = await finish(client, job["job_id"])
        assert (state["status"], state["engine"]) == ("completed", "draft")


async def test_models_that_are_missing_are_told_before_a_job_begins(place: Place, tmp_path: Path):
    elsewhere = Place(
        tmp_path / "data", place.pictures, {**place.settings, "AD_AGENT_MODELS_DIR": str(tmp_path / "models")}
    )
    async with connected("stdio", elsewhere) as client:
        arguments = {"product_image": elsewhere.photo, "wait_seconds": 50, **SMALL}
        first = (await client.call_tool("generate", arguments)).structured_content
        assert first["error"]["code"] == "model_unavailable"  # of the job, if the worker is still starting
        error = await refused(client, "generate", **arguments)
        assert error["code"] == "model_unavailable"
        assert "models prepare" in error["message"]
        again = await client.call_tool(error["fix"]["tool"], {**error["fix"]["arguments"], "wait_seconds": 50})
        assert again.structured_content["engine"] == "draft"
