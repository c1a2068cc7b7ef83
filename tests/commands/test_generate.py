"""Making ads at a shell: whose pictures may be read, what is kept, how one stops, and in which words all is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import psutil
import pytest
from PIL import Image

from ad_agent_mcp.commands.parser import parser
from ad_agent_mcp.commands.shell import command_for, in_commands, told
from ad_agent_mcp.contract.errors import ErrorCode, ErrorInfo, Fix
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs.store import JobStore

from ..e2e.support import wait_until
from .test_cli import own_environment, run

SMALL = ("--size", "320x300", "--seed", "3")


@pytest.fixture
def photo(tmp_path: Path, pictures: Path) -> Path:
    """A photo in a folder that nothing allows, its name as a Mac writes it."""
    folder = tmp_path / "가게 사진"
    folder.mkdir()
    return Path(shutil.copy(pictures / "bottle.png", folder / unicodedata.normalize("NFD", "세럼.png")))


def job_of(printed: str) -> str:
    found = re.search(r"job ([0-9a-f-]{36})", printed)
    assert found, printed
    return found[1]


def test_the_job_is_named_and_no_picture_is_written_over_another(tmp_path: Path, photo: Path):
    data, out = tmp_path / "data", tmp_path / "out"
    out.mkdir()
    (out / "final.png").write_bytes(b"somebody's own")
    first = run("generate", str(photo), *SMALL, "--text", "하나", "--out", str(out), data=data)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (out / "final.png").read_bytes() == b"somebody's own"
    stored = data / "jobs" / job_of(first.stdout)
    for name in ("step1", "step2", "final"):
        assert (out / f"{name}-2.png").read_bytes() == (stored / f"{name}.png").read_bytes()
        assert f"  {out / f'{name}-2.png'}\n" in first.stdout
    second = run("generate", str(photo), *SMALL, "--text", "둘", "--font", "nanum pen", "--out", str(out), data=data)
    assert f"  {out / 'final-3.png'}\n" in second.stdout
    shown = json.loads(run("jobs", "show", job_of(second.stdout), data=data).stdout)
    assert shown["request"]["font_name"] == "NanumPen/NanumPen.ttf"
    again = run("generate", str(photo), *SMALL, "--text", "하나", "--out", str(out), data=data)
    assert f"  {out / 'final-2.png'}\n" in again.stdout, "the same pictures are there already"
    assert len(list(out.iterdir())) == 7
    dates = [line.split()[1] for line in run("jobs", "list", data=data, TZ="Asia/Seoul").stdout.splitlines()]
    assert len(dates) == 3
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d", date) for date in dates)


def test_who_types_a_path_may_read_it_whatever_the_field(tmp_path: Path, photo: Path):
    data = tmp_path / "data"
    request = photo.parent / "request.json"
    request.write_text(json.dumps({"product_image": "세럼.PNG", "width": 300, "height": 300, "seed": 1}))
    done = run("generate", "--request", str(request), "--out", str(tmp_path / "one"), data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    scene = photo.parent / "scene.png"
    shutil.copy(tmp_path / "one" / "final.png", scene)
    uri = f"step1_image=file://{scene}"
    done = run("generate", "--set", uri, "--start-step", "2", "--text", "a", "--out", str(tmp_path / "two"), data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(tmp_path / "two" / "final.png") as final:
        assert final.size == (300, 300)


def test_a_refusal_shows_no_bars_and_speaks_of_commands(tmp_path: Path, photo: Path):
    data = tmp_path / "data"
    for arguments, told_ in {
        ("--resume", "01a2226f-9d54-771c-be41-85b41826b452"): "`ad-agent-mcp jobs list`",
        (str(photo), "--text", "a", "--font", "nanumsquare"): "`ad-agent-mcp fonts`",
        (str(photo.with_name("세림.png")),): "Did you mean",
        (): "photo is missing",
    }.items():
        refused = run("generate", *arguments, "--out", str(tmp_path / "out"), data=data)
        assert refused.returncode == 1
        assert told_ in refused.stdout
        assert "step" not in refused.stdout.replace("start-step", "")
        assert not re.search(r"list_jobs|call generate|resume_job_id|`fonts`", refused.stdout)


def ended(data: Path) -> bool:
    return not [
        p for p in psutil.process_iter(["cmdline"]) if "ad_agent_mcp" in str(p.info["cmdline"]) and _uses(p, data)
    ]


def _uses(process: psutil.Process, data: Path) -> bool:
    try:
        return process.environ().get("AD_AGENT_DATA_DIR") == str(data)
    except psutil.Error:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_stops_the_job_and_says_so(number: signal.Signals, tmp_path: Path, photo: Path):
    data = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AD_AGENT_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ad_agent_mcp", "generate", str(photo), "--text", "a", "--size", "2048x2048"],
        env={**environment, "AD_AGENT_DATA_DIR": str(data), "COLUMNS": "200"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

    def is_running() -> bool:
        return any('"status":"running"' in path.read_text() for path in data.glob("jobs/*/job.json"))

    with process:
        try:
            wait_until(is_running, what="the job runs", seconds=60)
            os.killpg(process.pid, number)  # a terminal tells the whole group
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number, printed
    store = JobStore(data)
    (job_id,) = store.job_ids()
    assert f"Job {job_id} was stopped." in printed
    assert store.load(job_id).status is JobState.STOPPED
    assert not store.active_jobs()
    wait_until(lambda: ended(data), what="the server has ended")


def test_a_server_that_cannot_start_is_told_in_a_sentence(tmp_path: Path, photo: Path):
    failed = run("generate", str(photo), "--out", str(tmp_path / "out"), data=tmp_path, AD_AGENT_REQUIRE_GPU="1")
    assert failed.returncode == 1
    assert "AD_AGENT_REQUIRE_GPU" in failed.stderr
    assert "The server ended" in failed.stdout
    assert "Traceback" not in failed.stderr + failed.stdout


@pytest.mark.parametrize("command", [("fonts",), ("jobs", "list"), ("jobs", "show", "{job}"), ("--help",)])
def test_a_reader_that_has_enough_causes_no_traceback(command: tuple[str, ...], tmp_path: Path, photo: Path):
    data = tmp_path / "data"
    made = run("generate", str(photo), *SMALL, "--out", str(tmp_path / "out"), data=data)
    words = [word.format(job=job_of(made.stdout)) for word in command]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ad_agent_mcp", *words],
        env={**own_environment(), "AD_AGENT_DATA_DIR": str(data)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_the_fonts_are_listed_with_their_scripts(tmp_path: Path):
    listed = run("fonts", data=tmp_path).stdout.splitlines()
    assert len(listed) == 10
    assert sum("Hangul" in line for line in listed) == 9
    assert listed[5].startswith("NanumPen/NanumPen.ttf ")


FIXES = [
    Fix(tool="generate", arguments={"resume_job_id": "01a2", "start_step": 2, "text_content": "-50 %\n세일"}),
    Fix(
        tool="generate", arguments={"product_image": "a b.png", "width": 400, "product_lock": False, "wait_seconds": 9}
    ),
    Fix(tool="status", arguments={"job_id": "01a2", "wait_seconds": 5}),
    Fix(tool="list_jobs", arguments={}),
    Fix(tool="fonts", arguments={}),
    Fix(tool="health", arguments={}),
]


@pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.tool)
def test_a_fix_is_told_as_a_command_that_exists_and_means_the_same(fix: Fix):
    command = command_for(fix)
    assert command is not None
    words = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True).stdout.split("\0")
    options = parser().parse_args(words[1:-1])
    if fix.tool == "generate":
        flags = (options.resume, options.start_step, options.text)
        assert flags == tuple(fix.arguments.get(name) for name in ("resume_job_id", "start_step", "text_content"))
        others = {"width", "product_lock"} & set(fix.arguments)
        assert {word.partition("=")[0] for word in options.set} == others
        assert options.photo == (Path("a b.png") if "product_image" in fix.arguments else None)


def test_what_has_no_command_is_told_without_one():
    error = ErrorInfo(
        code=ErrorCode.BUSY, message="Call again.", fix=Fix(tool="approve_step", arguments={"job_id": "x"})
    )
    assert told(error) == "Run the command again."
    resume = "Finished steps are kept: call generate with resume_job_id='01a2' to go on from there."
    assert in_commands(resume) == "Finished steps are kept: `ad-agent-mcp generate --resume 01a2` to go on from there."
