"""Models on the device keep it from other servers, until they are unloaded or their worker is gone."""

import sys
from pathlib import Path

import anyio
import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ad_agent_mcp.contract.messages import Command, UnloadModels
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.files import FileLock
from ad_agent_mcp.mcp_api.server import App, open_app
from ad_agent_mcp.supervisor.process import WORKER_COMMAND
from ad_agent_mcp.supervisor.supervisor import Supervisor

from ..in_process import app_with, settled
from .test_engine_choice import GPU, introduced, ready

pytestmark = pytest.mark.anyio
KEEPS = introduced(**GPU)


async def refused(app: App, request: GenerateRequest) -> ErrorInfo:
    with pytest.raises(AdAgentError) as refusal:
        await app.service.generate(request)
    assert refusal.value.info.code is ErrorCode.BUSY
    return refusal.value.info


async def served(app: App, request: GenerateRequest) -> None:
    """Until the device is free and a job is done."""
    with anyio.fail_after(20):
        while True:
            try:
                job = await app.service.generate(request)
            except AdAgentError:
                await anyio.sleep(0.02)
            else:
                break
    assert (await settled(app, job)).status is JobState.COMPLETED


async def test_loaded_models_keep_the_device_and_the_refusal_names_whose_they_are(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, KEEPS) as first, app_with(settings, WORKER_COMMAND) as second:
        for _ in range(2):
            done = await settled(first, await first.service.generate(request_))
            info = await refused(second, request_)
            assert first.service.server_id in info.message
            assert "AD_AGENT_IDLE_UNLOAD_S" in info.message
            assert done.id not in info.message
            assert info.retry_after_seconds is not None
        first.service.store.remove(done.id)
        assert first.service.server_id in (await refused(second, request_)).message


def test_a_lock_that_is_held_already_tells_of_its_latest_use(tmp_path: Path):
    lock = FileLock(tmp_path / "lock")
    for note in ("a long first job", "short"):
        assert lock.try_acquire(note)
        assert lock.read_note() == note


async def test_the_device_is_free_when_the_worker_with_the_models_is_gone(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, KEEPS) as first, app_with(settings, WORKER_COMMAND) as second:
        await settled(first, await first.service.generate(request_))
        await refused(second, request_)
        first.service.worker.kill()
        await served(second, request_)


async def test_idle_models_are_unloaded_and_the_device_is_free(settings: Settings, request_: GenerateRequest):
    changed = settings.model_copy(update={"idle_unload_s": 0.3, "stall_timeout_s": 2.0})
    async with app_with(changed, KEEPS) as first, app_with(settings, WORKER_COMMAND) as second:
        await settled(first, await first.service.generate(request_))
        await served(second, request_)
        assert first.service.worker.restarts == 0
        await served(first, request_)


async def test_models_that_only_pass_through_leave_the_device_free(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, KEEPS) as first, app_with(settings, WORKER_COMMAND) as second:
        passing = request_.model_copy(update={"bg_prompt": "0"})
        await settled(first, await first.service.generate(passing))
        job = await second.service.generate(request_)
        assert (await settled(second, job)).status is JobState.COMPLETED


async def test_preloaded_models_take_the_device_before_any_job(settings: Settings, request_: GenerateRequest):
    async with app_with(settings, WORKER_COMMAND) as second, app_with(settings, KEEPS, preload=True) as first:
        await ready(first)
        with anyio.fail_after(10):
            while not first.service.slot.resident_models:
                await anyio.sleep(0.01)
        assert first.service.server_id in (await refused(second, request_)).message
        await served(first, request_)


async def test_who_preloads_while_another_server_has_the_device_lets_go_again(
    settings: Settings, request_: GenerateRequest, monkeypatch: pytest.MonkeyPatch
):
    async with app_with(settings, KEEPS) as first:
        await settled(first, await first.service.generate(request_))
        told: list[Command] = []
        send = Supervisor.send

        async def listened(keeper: Supervisor, command: Command) -> bool:
            told.append(command)
            return await send(keeper, command)

        monkeypatch.setattr(Supervisor, "send", listened)
        async with app_with(settings, KEEPS, preload=True) as second:
            with anyio.fail_after(10):
                while UnloadModels() not in told or second.service.slot.resident_models:
                    await anyio.sleep(0.001)
            assert first.service.server_id in (await refused(second, request_)).message


@pytest.mark.parametrize(
    ("setting", "is_remote", "expected"), [(None, False, 600.0), (None, True, None), (5.0, True, 5.0)]
)
async def test_models_are_unloaded_by_default_only_where_several_hosts_start_servers(
    setting: float | None, is_remote: bool, expected: float | None, settings: Settings
):
    changed = settings.model_copy(update={"idle_unload_s": setting})
    async with open_app(changed, is_remote=is_remote, command=KEEPS) as app:
        assert app.service.settings.idle_unload_s == expected


async def test_a_worker_with_a_broken_gpu_is_replaced_before_the_next_job(
    settings: Settings, request_: GenerateRequest, tmp_path: Path
):
    command = (sys.executable, "-m", "tests.workers.broken_gpu", str(tmp_path))
    async with app_with(settings, command, queue_size=1) as app:
        broken, following = [await app.service.generate(request_) for _ in range(2)]
        broken = await settled(app, broken)
        assert broken.error is not None
        assert broken.error.code is ErrorCode.ENGINE_FAILED
        assert "illegal memory access" in broken.error.message
        assert "TORCH_USE_CUDA_DSA" not in broken.error.message
        assert (await settled(app, following)).status is JobState.COMPLETED
        assert app.service.worker.restarts == 1
