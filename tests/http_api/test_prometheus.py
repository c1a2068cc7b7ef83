"""`/metrics` after real jobs of a fake worker, read with Prometheus' own parser."""

import os
import sys

import anyio
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.stages import STAGES, EngineName
from ad_agent_mcp.engines.draft.info import INFO
from ad_agent_mcp.hardware import GpuInfo
from ad_agent_mcp.http_api.prometheus import expose
from ad_agent_mcp.jobs.counters import BOUNDS_S, Counters
from ad_agent_mcp.jobs.job import Job
from ad_agent_mcp.mcp_api.server import App

from ..in_process import app_with, running, settled

pytestmark = pytest.mark.anyio
SCRIPTED = (sys.executable, "-m", "tests.workers.scripted")
SECRET = "어머니의 비밀"

Samples = dict[tuple[str, tuple[str, ...]], float]


def scrape(app: App, gpus: list[GpuInfo] | None = None) -> Samples:
    """Every sample, by its name and the values of its labels in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(expose(app.service, gpus or []).decode())
        for sample in family.samples
    }


async def run(app: App, request: GenerateRequest, fate: str) -> Job:
    """One job to its end; `wait` is stopped."""
    job = await app.service.generate(request.model_copy(update={"bg_prompt": fate}))
    if fate == "wait":
        await running(app)
        return await app.service.stop(job.id, force=False)
    return await settled(app, job)


async def test_jobs_are_counted_by_how_they_ended_and_never_counted_down(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SCRIPTED) as app:
        outcomes = ("completed", "failed", "stopped")
        seen = [tuple(scrape(app)["ad_agent_jobs_total", ("draft", outcome)] for outcome in outcomes)]
        for fate in ("complete", "fail", "wait", "complete", "crash"):
            await run(app, request_, fate)
            seen.append(tuple(scrape(app)["ad_agent_jobs_total", ("draft", outcome)] for outcome in outcomes))
        assert seen == [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1), (2, 2, 1)]


async def test_a_job_that_is_stopped_before_it_starts_is_counted_and_a_waiting_one_is_in_the_queue(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SCRIPTED, queue_size=2) as app:
        first, second = [
            await app.service.generate(request_.model_copy(update={"bg_prompt": "wait"})) for _ in range(2)
        ]
        await running(app)
        samples = scrape(app)
        assert (samples["ad_agent_jobs_running", ()], samples["ad_agent_queue_length", ()]) == (1, 1)
        await app.service.stop(second.id, force=False)
        await app.service.stop(first.id, force=False)
        samples = scrape(app)
        assert (samples["ad_agent_jobs_running", ()], samples["ad_agent_queue_length", ()]) == (0, 0)
        assert samples["ad_agent_jobs_total", ("draft", "stopped")] == 2


async def test_every_finished_stage_is_timed_by_its_name(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SCRIPTED) as app:
        for _ in range(2):
            await run(app, request_, "complete")
        samples = scrape(app)
        counted = {labels for name, labels in samples if name == "ad_agent_stage_seconds_count"}
        assert counted == {("draft", str(stage)) for stage in INFO.stages}
        for engine, stage in counted:
            assert samples["ad_agent_stage_seconds_count", (engine, stage)] == 2
            buckets = [
                samples["ad_agent_stage_seconds_bucket", (engine, bound, stage)]
                for bound in (*map(str, BOUNDS_S), "+Inf")
            ]
            assert buckets == sorted(buckets)
            assert buckets[-1] == 2


def test_a_stage_falls_into_the_bucket_of_its_duration():
    counters = Counters()
    stage = next(iter(STAGES))
    for seconds in (0.1, 0.11, 299.0, 1e6):
        counters.stage_ended(EngineName.DRAFT, stage, seconds)
    assert counters.stages[EngineName.DRAFT, stage] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert counters.stage_seconds[EngineName.DRAFT, stage] == pytest.approx(1000299.21)


async def test_a_replaced_worker_is_counted_and_the_memory_of_both_processes_told(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SCRIPTED) as app:
        await run(app, request_, "complete")
        before = scrape(app)
        assert before["ad_agent_worker_restarts_total", ()] == 0
        ready = app.service.worker.ready
        assert ready is not None
        for process, pid in {"server": os.getpid(), "worker": ready.pid}.items():
            told = before["ad_agent_resident_memory_bytes", (process,)]
            assert told == pytest.approx(psutil.Process(pid).memory_info().rss, rel=0.5)
        await run(app, request_, "crash")
        with anyio.fail_after(10):
            while app.service.worker.ready is None:
                await anyio.sleep(0.01)
        assert scrape(app)["ad_agent_worker_restarts_total", ()] == 1


async def test_without_a_worker_only_the_servers_memory_is_told(settings: Settings):
    async with app_with(settings, (sys.executable, "-m", "tests.workers.crash_on_start")) as app:
        told = {labels for name, labels in scrape(app) if name == "ad_agent_resident_memory_bytes"}
        assert told == {("server",)}


async def test_gpu_memory_is_told_by_gpu(settings: Settings):
    gpus = [
        GpuInfo(index=index, name="Fake L4", vram_used_mb=index + 1, vram_total_mb=8, vram_percent=0, utilization=0)
        for index in range(2)
    ]
    async with app_with(settings, SCRIPTED) as app:
        samples = scrape(app, gpus)
        assert [samples["ad_agent_gpu_memory_used_bytes", (str(index),)] for index in range(2)] == [2**20, 2 * 2**20]
        assert samples["ad_agent_gpu_memory_total_bytes", ("1",)] == 8 * 2**20


async def test_nothing_that_a_caller_chose_is_in_the_metrics_and_their_number_is_bounded(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, SCRIPTED) as app:
        request = request_.model_copy(update={"text_content": SECRET})
        ids = [(await run(app, request, "complete")).id for _ in range(2)]
        first = len(scrape(app))
        ids.append((await run(app, request, "fail")).id)
        assert len(scrape(app)) == first
        text = expose(app.service, []).decode()
        assert not [word for word in (SECRET, 'complete"', str(request.font_name), *ids) if word in text]


async def test_servers_of_one_process_do_not_count_each_others_jobs(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, SCRIPTED) as one, app_with(settings, SCRIPTED) as other:
        await run(one, request_, "complete")
        assert scrape(one)["ad_agent_jobs_total", ("draft", "completed")] == 1
        assert scrape(other)["ad_agent_jobs_total", ("draft", "completed")] == 0
