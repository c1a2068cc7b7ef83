"""What the worker says it can do decides on which engine, with how many steps and whether at all a job runs."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from ad_agent_mcp.config import EngineChoice, Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName, Stage
from ad_agent_mcp.engines.diffusion.info import describe
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.jobs.plan import plan_segment
from ad_agent_mcp.mcp_api.server import App
from ad_agent_mcp.models.catalog import PRESETS, preset_named
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

pytestmark = pytest.mark.anyio
INFOS = {name: describe(preset, {"guidance_embeds": name != "schnell"}) for name, preset in PRESETS.items()}
REFUSAL = {"engine": "diffusion", "presets": ["exact"], "refusal": "Its models are not prepared."}


def engines(**changes: Any) -> list[Any]:
    """What a worker with `schnell` says, here with a number of SDXL's steps that is nobody's default."""
    told = INFOS["schnell"].model_copy(update=changes).model_dump(mode="json")
    told["stages"]["text_paint"]["iterations"] = 20
    return [INFO.model_dump(mode="json"), told]


GPU = {
    "engine": "diffusion",
    "device": "Fake L4",
    "presets": ["schnell"],
    "note": "diffusion, preset schnell.",
    "engines": engines(preset_values={}),
}


def introduced(*gate: Path, **words: Any) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.workers.introduced", json.dumps(words), *map(str, gate))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO; a worker that is given it is ready when something was written to it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


async def pass_through(gate: Path) -> None:
    await anyio.to_thread.run_sync(gate.write_bytes, b"")


async def ready(app: App) -> None:
    with anyio.fail_after(20):
        while app.service.worker.ready is None:
            await anyio.sleep(0.01)


def iterations(job: Job) -> dict[Stage, int]:
    assert job.plan is not None
    return {planned.stage: planned.iterations for planned in job.plan.stages}


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_job_runs_on_the_engine_and_with_the_steps_of_the_worker_even_if_it_came_first(
    is_early: bool, settings: Settings, request_: GenerateRequest, gate: Path
):
    async with app_with(settings, introduced(gate, **GPU), preset="schnell") as app:
        if not is_early:
            await pass_through(gate)
            await ready(app)
        job = await app.service.generate(request_)
        if is_early:
            assert app.service.worker.ready is None
            await pass_through(gate)
        job = await settled(app, job)
        assert (job.status, job.engine) == (JobState.COMPLETED, EngineName.DIFFUSION)
        assert job.plan is not None
        assert job.plan.preset == "schnell"
        wanted = {Stage.BACKGROUND: 4, Stage.REFINE: 3, Stage.TEXT_PAINT: 20, Stage.BLEND: 12}
        assert {stage: iterations(job)[stage] for stage in wanted} == wanted
        drafted = await settled(app, await app.service.generate(request_.model_copy(update={"test_mode": True})))
        assert drafted.engine is EngineName.DRAFT


async def test_a_job_before_any_worker_ever_told_of_itself_starts_without_an_estimate_and_is_planned_after(
    settings: Settings, request_: GenerateRequest, gate: Path
):
    async with app_with(settings, introduced(gate)) as app:
        job = await app.service.generate(request_.model_copy(update={"strength": 0.3}))
        assert (job.status, job.sub_step, job.plan, job.ends_at) == (JobState.RUNNING, "starting", None, None)
        await pass_through(gate)
        job = await settled(app, job)
        assert job.status is JobState.COMPLETED
        assert [notice.code for notice in job.warnings].count("not_supported") == 1
        with anyio.fail_after(20):
            while not (app.service.store.root / "stage_times.json").exists():
                await anyio.sleep(0.01)
    async with app_with(settings, introduced(gate)) as app:
        job = await app.service.generate(request_.model_copy(update={"strength": 0.3}))
        assert (job.status, job.sub_step, job.warnings) == (JobState.RUNNING, "starting", ())
        assert job.plan is not None
        assert job.ends_at is not None
        await pass_through(gate)
        job = await settled(app, job)
        assert [notice.code for notice in job.warnings].count("not_supported") == 1


async def test_a_job_of_an_engine_that_is_not_here_and_never_was_is_refused_not_left_waiting(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        job = await settled(app, await app.service.generate(request_.model_copy(update={"pause_after_step": 1})))
    app.service.store.save(job.model_copy(update={"engine": EngineName.DIFFUSION}))
    async with app_with(settings, introduced(note="draft, because the GPU is gone.")) as app:
        await ready(app)
        with pytest.raises(AdAgentError, match="the GPU is gone") as refusal:
            await app.service.approve(job.id, action="approve", changes={})
        assert refusal.value.info.code is ErrorCode.MODEL_UNAVAILABLE


async def test_a_job_that_the_engine_cannot_run_is_refused_with_the_draft_engine_as_the_way_on(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, introduced(**REFUSAL)) as app:
        await ready(app)
        with pytest.raises(AdAgentError) as refusal:
            await app.service.generate(request_)
        info = refusal.value.info
        assert info.code is ErrorCode.MODEL_UNAVAILABLE
        assert "not prepared" in info.message
        assert app.service.store.job_ids() == []
        assert info.fix is not None
        job = await app.service.generate(GenerateRequest.model_validate(info.fix.arguments))
        assert (await settled(app, job)).engine is EngineName.DRAFT
        assert job.request.text_content == request_.text_content


async def test_a_job_that_came_before_the_refusal_was_known_fails_with_it_and_the_next_one_runs(
    settings: Settings, request_: GenerateRequest, gate: Path
):
    async with app_with(settings, introduced(gate, **REFUSAL), queue_size=2) as app:
        refused = await app.service.generate(request_)
        drafted = await app.service.generate(request_.model_copy(update={"test_mode": True}))
        assert app.service.worker.ready is None
        await pass_through(gate)
        refused = await settled(app, refused)
        assert refused.error is not None
        assert refused.error.code is ErrorCode.MODEL_UNAVAILABLE
        assert (await settled(app, drafted)).status is JobState.COMPLETED
        assert app.service.worker.restarts == 0


async def test_a_job_that_waits_is_not_approved_while_the_engine_cannot_go_on_with_it(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        paused = request_.model_copy(update={"pause_after_step": 1})
        job = await settled(app, await app.service.generate(paused))
    app.service.store.save(job.model_copy(update={"engine": EngineName.DIFFUSION}))
    async with app_with(settings, introduced(**REFUSAL)) as app:
        await ready(app)
        for action in ("approve", "redo"):
            with pytest.raises(AdAgentError) as refusal:
                await app.service.approve(job.id, action=action, changes={})
            assert refusal.value.info.code is ErrorCode.MODEL_UNAVAILABLE
        assert app.service.find(job.id).waiting_for == "approval"
        assert app.service.find(job.id).decisions == ()
        assert refusal.value.info.fix is not None
        again = await app.service.generate(GenerateRequest.model_validate(refusal.value.info.fix.arguments))
        assert (again.engine, again.steps) == (EngineName.DRAFT, (2, 3))
        await settled(app, again)
        stopped = await app.service.approve(job.id, action="stop", changes={})
        assert stopped.status is JobState.STOPPED


@pytest.mark.parametrize(
    ("words", "engine", "warning"),
    [
        (GPU, EngineChoice.AUTO, None),
        (REFUSAL, EngineChoice.AUTO, "Jobs are refused"),
        ({"note": "draft, because the GPU is small."}, EngineChoice.AUTO, "the GPU is small"),
        ({"note": "AD_AGENT_ENGINE=draft"}, EngineChoice.DRAFT, None),
    ],
)
async def test_health_and_the_log_tell_what_keeps_jobs_off_the_gpu(
    words: dict[str, Any],
    engine: EngineChoice,
    warning: str | None,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
):
    async with app_with(settings, introduced(**words), engine=engine) as app, Client(app.server) as client:
        await ready(app)
        told = await client.call_tool("health", {})
        report = told.structured_content or {}
        assert report["engine"] == words.get("engine", "draft")
        assert report["preset"] == words.get("presets", ["draft"])[0]
        assert [warning] if warning else [line for line in report["warnings"] if (warning or "") in line] == []
        logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert logged == report["warnings"]
        assert len(logged) == bool(warning)


async def test_the_real_worker_says_why_there_is_no_diffusion_engine(settings: Settings):
    for engine, preset, refused in ((EngineChoice.AUTO, "exact", False), (EngineChoice.DIFFUSION, "exakt", True)):
        async with app_with(
            settings, WORKER_COMMAND, engine=engine, preset=preset, models_dir=settings.data_dir
        ) as app:
            await ready(app)
            assert app.service.worker.ready is not None
            assert (app.service.worker.ready.refusal is not None) is refused
            assert ("exakt" if refused else "GPU") in str(app.service.worker.ready.note)


@pytest.mark.parametrize(
    ("steps", "strength", "runs"),
    [(28, 0.6, 17), (28, 0.4, 12), (28, 1.0, 28), (10, 0.1, 1), (28, 0.03, 0), (28, 0, 0)],
)
def test_a_pass_over_a_picture_is_planned_with_the_iterations_that_diffusers_runs(
    steps: int, strength: float, runs: int
):
    request = GenerateRequest(num_inference_steps=steps, strength=strength)
    job = Job(id="j", request=request, engine=EngineName.DIFFUSION, steps=(1,), created_at=0.0)
    plan, notices = plan_segment(job, INFOS["exact"])
    planned = {stage.stage: stage.iterations for stage in plan.stages}
    assert planned.get(Stage.REFINE, 0) == runs
    assert bool(notices) is (runs == 0)


def test_the_number_of_steps_is_that_of_the_scenes_model_and_not_of_the_letters():
    request = GenerateRequest(num_inference_steps=4, text_content="Sale")
    job = Job(id="j", request=request, engine=EngineName.DIFFUSION, steps=(1, 2, 3), created_at=0.0)
    plan, _ = plan_segment(job, INFOS["exact"])
    planned = {stage.stage: stage.iterations for stage in plan.stages}
    assert (planned[Stage.BACKGROUND], planned[Stage.TEXT_PAINT]) == (4, 28)


FEW = {**GPU, "engines": engines()}


@pytest.mark.parametrize(
    ("asked", "runs", "told"),
    [
        ({}, (4, 10), ["num_inference_steps 4", "composition_steps 10"]),
        ({"composition_steps": 28}, (4, 28), ["num_inference_steps 4"]),
        ({"num_inference_steps": 8, "composition_steps": 6}, (8, 6), []),
        ({"text_content": None}, (4, 28), ["num_inference_steps 4"]),
    ],
)
async def test_a_preset_of_few_steps_runs_with_its_own_where_none_were_given_and_says_so(
    asked: dict[str, Any], runs: tuple[int, int], told: list[str], settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, introduced(**FEW), preset="schnell") as app, Client(app.server) as client:
        await ready(app)
        job = await settled(app, await app.service.generate(request_.model_copy(update=asked)))
        answer = (await client.call_tool("status", {"job_id": job.id})).structured_content or {}
        drafted = await settled(app, await app.service.generate(request_.model_copy(update={"test_mode": True})))
    parameters = answer["parameters"]
    assert (parameters["num_inference_steps"], parameters["composition_steps"]) == runs
    assert parameters["strength"] == 0.6
    notices = [notice["message"] for notice in answer["warnings"] if notice["code"] == "preset_steps"]
    assert len(notices) == bool(told)
    for name in ("num_inference_steps 4", "composition_steps 10"):
        assert any(name in notice for notice in notices) is (name in told)
    planned = iterations(job)
    assert planned[Stage.BACKGROUND] == runs[0]
    if Stage.BLEND in planned:
        assert planned[Stage.TEXT_PAINT] == 20
        assert planned[Stage.BLEND] == runs[1] - int(runs[1] * 0.6)
    assert drafted.request.composition_steps == 28
    assert "preset_steps" not in [notice.code for notice in drafted.warnings]


async def test_a_job_that_came_before_its_worker_and_one_that_waited_have_the_presets_steps_too(
    settings: Settings, request_: GenerateRequest, gate: Path
):
    async with app_with(settings, introduced(gate, **FEW), preset="schnell") as app:
        job = await app.service.generate(request_.model_copy(update={"pause_after_step": 2}))
        await pass_through(gate)
        job = await settled(app, job)
        assert job.waiting_for == "approval"
        assert (job.request_as_run.num_inference_steps, job.request_as_run.composition_steps) == (4, 10)
        job = await settled(app, await app.service.approve(job.id, action="approve", changes={}))
    assert job.status is JobState.COMPLETED
    assert job.request_as_run.composition_steps == 10
    assert {"num_inference_steps", "composition_steps"}.isdisjoint(job.given)  # and no resumed job takes them over
    assert iterations(job)[Stage.BLEND] == 4
    assert [notice.code for notice in job.warnings].count("preset_steps") == 1


async def test_a_job_that_waits_since_before_its_worker_was_there_runs_on_its_workers_engine(
    settings: Settings, request_: GenerateRequest, gate: Path
):
    async with app_with(settings, introduced(gate, **FEW), preset="schnell", queue_size=1) as app:
        jobs = [await app.service.generate(request_) for _ in range(2)]
        await pass_through(gate)
        engines = [(await settled(app, job)).engine for job in jobs]
    assert engines == [EngineName.DIFFUSION] * 2


@pytest.mark.parametrize("preset", ["exact", "fast"])
def test_a_preset_of_many_steps_has_the_published_ones(preset: str):
    assert preset_named(preset).preset_values == {}


def test_the_blend_of_schnell_has_as_many_iterations_as_its_scene():
    request = GenerateRequest()
    own = preset_named("schnell").preset_values
    assert own["composition_steps"] * request.composition_strength >= own["num_inference_steps"] == 4


def test_hangul_in_a_prompt_is_pointed_out_where_models_read_it():
    request = GenerateRequest(
        bg_prompt="나무 탁자", negative_prompt="먼지", text_content="안녕", composition_prompt="warm"
    )
    for info, fields in ((INFOS["exact"], ["bg_prompt", "negative_prompt"]), (INFO, [])):
        job = Job(id="j", request=request, engine=info.name, steps=(1, 2, 3), created_at=0.0)
        notices = [one.message for one in plan_segment(job, info)[1] if one.code == "prompt_not_english"]
        names = ("bg_prompt", "negative_prompt", "text_content", "composition_prompt")
        assert [name for name in names if any(name in notice for notice in notices)] == fields
