"""Whatever lies in the data folder is at most the trouble of one job: the server starts, works, and tells the rest."""

import json
import os
import random
import uuid
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.retention import prune
from ad_agent_mcp.jobs.store import JobStore, UnreadableJobError
from ad_agent_mcp.mcp_api.responses import MAX_MESSAGE_BYTES
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with, settled

NAMES = (".DS_Store", "Thumbs.db", "desktop.ini", "._job", "a folder", "x" * 250, "한글", "CON", "job.json", ".nfs0001")
CONTENTS = (b"", b"\0" * 20, bytes(range(128, 256)), b"{", b"null", b'{"id": 1}', b"[" * 50_000, "가".encode("cp949"))


def stored(store: JobStore, **changes: object) -> str:
    job = Job(
        id=new_job_id(),
        status=JobState.COMPLETED,
        request=GenerateRequest(product_image="x"),
        engine=EngineName.DRAFT,
        steps=(1,),
        created_at=1.0,
        finished={1: {"step1": "0" * 64}},
    )
    store.create(job, {"product_image": b"x"}, {})
    store.save(job.model_copy(update=changes))
    return job.id


def strew(store: JobStore, count: int, seed: int) -> None:
    """`count` strange things at random places, under names of nobody's and of ours; no sound job is touched."""
    chance = random.Random(seed)
    store.root.joinpath("brands").mkdir(exist_ok=True)
    ruined = [stored(store) for _ in range(count // 8)]
    places = [store.root, store.jobs, store.active, store.steps, store.assets, store.locks]
    for _ in range(count):
        job_id = chance.choice(ruined)
        path = chance.choice(
            [
                *(place / chance.choice(NAMES) for place in places),
                *(place / os.fsdecode(b"\xff\xfe" + chance.randbytes(3).replace(b"/", b"_").replace(b"\0", b"_"))
                  for place in places),
                store.jobs / new_job_id(), store.active / new_job_id(), store.jobs / str(uuid.UUID(int=2**128 - 1)),
                store.active / job_id, store.jobs / job_id / "job.json", store.jobs / job_id / "layout.json",
                store.jobs / job_id / "final.png", store.jobs / job_id / "inputs", store.jobs / job_id,
                store.steps / ("0" * 64), store.assets / ("0" * 32), store.root / "latest", store.root / "sizes.json",
                store.root / "stage_times.json", store.locks / "server-0a1b2c3d4e5f.lock",
                store.locks / "device-0.lock", store.locks / "adoption.lock",
            ]
        )  # fmt: skip
        put_strange_thing(path, chance)


def put_strange_thing(path: Path, chance: random.Random) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        if chance.random() < 0.3 and path.is_file():
            path.write_bytes(path.read_bytes()[: chance.randrange(1 + path.stat().st_size)])
            return
        path.unlink()
    elif path.exists():
        path.rename(path.with_name(f"was-{chance.randrange(10**9)}"))
    if not path.parent.is_dir():
        return
    match chance.randrange(7):
        case 0:
            path.mkdir()
            (path / "inside").write_bytes(b"x")
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            path.symlink_to(path)
        case 4:
            path.symlink_to("/nowhere/at/all")
        case _:
            path.write_bytes(chance.choice((*CONTENTS, chance.randbytes(300))))


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_with_200_strange_things_in_the_data_folder_the_server_works_and_lists_the_sound_jobs(
    seed: int, settings: Settings, request_: GenerateRequest
):
    store = JobStore(settings.data_dir)
    sound = [stored(store) for _ in range(3)]
    strew(store, 200, seed)
    with anyio.fail_after(60):
        async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
            job = await settled(app, await app.service.generate(request_))
            assert job.status is JobState.COMPLETED
            listed = (await client.call_tool("list_jobs", {"limit": 100})).structured_content or {}
            states = {row["job_id"]: (row["status"], row["message"]) for row in listed["jobs"]}
            assert all(states[job_id] == ("completed", None) for job_id in (*sound, job.id))
            assert all(message for status, message in states.values() if status == "failed")
            for job_id in states:
                told = await client.call_tool("status", {"job_id": job_id})
                assert (told.structured_content or {})["message"]
            assert not (await client.call_tool("health", {})).is_error
            await anyio.to_thread.run_sync(prune, store, settings)
            assert set(sound) < set(store.job_ids())
    async with app_with(settings, WORKER_COMMAND) as app:
        assert app.service.find(job.id).status is JobState.COMPLETED


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(b"\x80\x81\0"),
    "a gigabyte": lambda path: os.truncate(path, 1 << 30),
    "nested": lambda path: path.write_bytes(b"[" * 1_000_000),
    "of another job": lambda path: path.write_text(path.read_text().replace('"id":"0', '"id":"1')),
    "of another version": lambda path: path.write_text('{"from": "the future"}'),
    "no number": lambda path: path.write_text(path.read_text().replace('"percent":0.0', '"percent":NaN')),
    "no date": lambda path: path.write_text(path.read_text().replace('"created_at":1.0', '"created_at":1e300')),
    "no step": lambda path: path.write_text(path.read_text().replace('"steps":[1]', '"steps":[7]')),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))),
}


@pytest.mark.anyio
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_job_that_cannot_be_read_says_so_and_where_its_pictures_are_and_hides_no_other(
    damage: str, settings: Settings
):
    store = JobStore(settings.data_dir)
    sound, ruined = stored(store), stored(store)
    (store.jobs / ruined / "final.png").write_bytes(b"a picture")
    DAMAGES[damage](store.jobs / ruined / "job.json")
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        state = (await client.call_tool("status", {"job_id": ruined})).structured_content or {}
        assert (state["status"], state["error"]["code"]) == ("failed", "engine_failed")
        assert state["parameters"] == {}
        assert f"jobs rm {ruined}" in state["message"]
        assert f"ad://jobs/{ruined}/final.png" in state["message"]
        assert ("another version" in state["message"]) == (
            damage in ("of another version", "no number", "no date", "no step")
        )
        listed = (await client.call_tool("list_jobs", {})).structured_content or {}
        assert {row["job_id"]: row["status"] for row in listed["jobs"]} == {sound: "completed", ruined: "failed"}
        resumed = await client.call_tool("generate", {"resume_job_id": ruined})
        assert (resumed.structured_content or {})["error"]["field"] == "resume_job_id"
    store.remove(ruined)
    assert store.job_ids() == [sound]


@pytest.mark.parametrize("kind", ["state", "folder"])
def test_a_job_without_permission_is_its_own_trouble_and_is_taken_up_when_it_is_given_back(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = JobStore(tmp_path / "data")
    job_id, other = stored(store), stored(store)
    open_, closed = os.open, store.jobs / job_id / ("job.json" if kind == "state" else "")

    def refuse(path: str | Path, *rest: int, **options: int) -> int:
        if str(path).startswith(str(closed)):
            raise PermissionError(13, "Permission denied", str(path))
        return open_(path, *rest, **options)

    with monkeypatch.context() as refused:
        refused.setattr(os, "open", refuse)
        with pytest.raises(UnreadableJobError, match="Permission denied") as refusal:
            store.load(job_id)
        assert not refusal.value.is_damaged
        assert store.shown(job_id).status is JobState.FAILED
        assert store.load(other).id == other
        assert prune(store, Settings()) == []
    assert store.load(job_id).id == job_id


@pytest.mark.anyio
async def test_a_damaged_marker_keeps_no_server_from_starting_and_its_job_ends(
    settings: Settings, request_: GenerateRequest
):
    async with app_with(settings, WORKER_COMMAND) as app:
        job = await settled(app, await app.service.generate(request_))
    store = JobStore(settings.data_dir)
    for content in (b"\0" * 12, b"a\0b", b"../../x", b"\xff\xfe", b"", b"x" * 10_000, b"0a1b2c3d4e5f"):
        store.save(job.model_copy(update={"status": JobState.RUNNING, "owner": content.decode("latin-1")}))
        (store.active / job.id).write_bytes(content)
        async with app_with(settings, WORKER_COMMAND) as app:
            assert (await settled(app, app.service.find(job.id))).status is JobState.COMPLETED, content


@pytest.mark.anyio
async def test_a_damaged_marker_takes_no_job_from_a_living_server(settings: Settings, request_: GenerateRequest):
    paused = request_.model_copy(update={"pause_after_step": 1})
    async with app_with(settings, WORKER_COMMAND) as first:
        job = await settled(first, await first.service.generate(paused))
        first.service.store.save(job.model_copy(update={"status": JobState.RUNNING, "waiting_for": None}))
        (first.service.store.active / job.id).write_bytes(b"\0")
        async with app_with(settings, WORKER_COMMAND) as second:
            found = await second.service.find_fresh(job.id)
            assert (found.status, found.owner) == (JobState.RUNNING, first.service.server_id)
            assert second.service.current is None


def test_what_is_called_like_a_job_and_is_none_is_not_listed(tmp_path: Path):
    store = JobStore(tmp_path / "data")
    job_id = stored(store)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "job.json").write_bytes((store.jobs / job_id / "job.json").read_bytes())
    file, link, capital = new_job_id(), new_job_id(), new_job_id().upper()
    (store.jobs / file).touch()
    (store.jobs / link).symlink_to(tmp_path / "outside")
    (store.jobs / capital).mkdir()
    assert store.job_ids() == [job_id]
    for name in (file, link):
        with pytest.raises(AdAgentError) as refusal:
            store.load(name)
        assert refusal.value.info.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("what", ["binary", "folder", "pipe", "nowhere"])
def test_the_latest_job_is_found_whatever_the_note_about_it_is(what: str, tmp_path: Path):
    store = JobStore(tmp_path)
    ids = [stored(store) for _ in range(2)]
    note = tmp_path / "latest"
    note.unlink()
    match what:
        case "binary":
            note.write_bytes(b"\xff\0" * 18)
        case "folder":
            note.mkdir()
        case "pipe":
            os.mkfifo(note)
        case _:
            note.write_text(new_job_id())
    assert store.latest_id() == ids[1]
    newest = stored(store)
    assert store.latest_id() == newest


@pytest.mark.parametrize("name", ["jobs", "active", "steps", "assets", "locks", "inbox"])
def test_a_file_in_a_folders_place_is_put_aside_and_kept(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"somebody's")
    store = JobStore(tmp_path)
    assert stored(store) in store.job_ids()
    (aside,) = tmp_path.glob(f"{name}.aside-*")
    assert aside.read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    "content",
    [b"\0", b"[" * 100_000, b'{"work_s": {"a": {"1": [1e999]}}}', b'{"work_s": {"a": {"' + b"9" * 500 + b'": [1]}}}'],
)
@pytest.mark.anyio
async def test_broken_stage_times_cost_only_the_estimate(content: bytes, settings: Settings, request_: GenerateRequest):
    JobStore(settings.data_dir).root.joinpath("stage_times.json").write_bytes(content)
    async with app_with(settings, WORKER_COMMAND) as app:
        assert (await settled(app, await app.service.generate(request_))).status is JobState.COMPLETED
    assert json.loads((settings.data_dir / "stage_times.json").read_bytes())["work_s"].keys() > {"a"} - {"a"}


@pytest.mark.anyio
async def test_no_text_of_a_stored_job_is_so_long_that_it_hides_the_rest(settings: Settings):
    store = JobStore(settings.data_dir)
    job_id = stored(store)
    path = store.jobs / job_id / "job.json"
    giant = "x" * 2_000_000
    state = json.loads(path.read_bytes()) | {
        "status": "failed",
        "error": {"code": "engine_failed", "message": f"It began {giant} and ended."},
        "warnings": [{"code": "w", "message": giant}, *({"code": "w", "message": f"{n}"} for n in range(5_000))],
        "checks": [{"name": giant, "pass": True, "value": 1, "limit": 1}],
    }
    state["request"]["product_image"] = giant
    path.write_text(json.dumps(state))
    async with app_with(settings, WORKER_COMMAND) as app, Client(app.server) as client:
        told = await client.call_tool("status", {"job_id": job_id})
        assert not told.is_error
        assert len(told.model_dump_json()) < MAX_MESSAGE_BYTES // 4
        shown = told.structured_content or {}
        assert shown["message"].startswith("It began xxx")
        assert shown["message"].endswith("xxx and ended.")
        assert "characters left out" in shown["message"]
        assert not (await client.call_tool("list_jobs", {})).is_error
        assert not (await client.read_resource(f"ad://jobs/{job_id}")).contents[0].text.startswith("x")
