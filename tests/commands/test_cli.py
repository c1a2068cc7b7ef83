"""The command line as a person uses it: real processes, exit codes, words on the screen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.jobs.job import Job, new_job_id
from ad_agent_mcp.jobs.store import JobStore


def run(*arguments: str, data: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    with started(*arguments, data=data, **settings) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AD_AGENT_")}


def started(*arguments: str, data: Path, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ad_agent_mcp", *arguments],
        env={**own_environment(), "AD_AGENT_DATA_DIR": str(data), "COLUMNS": "200", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def test_generate_makes_an_ad_from_flags_and_resumes_it(tmp_path: Path, pictures: Path):
    data, out = tmp_path / "data", tmp_path / "out"
    done = run(
        "generate", str(pictures / "bottle.png"), "--text", "여름", "--size", "320x300", "--out", str(out), data=data
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(out / "final.png") as final:
        assert final.size == (320, 300)
    listed = run("jobs", data=data)
    job_id = listed.stdout.split()[0]
    assert "여름" in listed.stdout
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"text_position": "bottom"}))
    again = run("generate", "--resume", job_id, "--request", str(request), "--out", str(tmp_path / "two"), data=data)
    assert again.returncode == 0, again.stdout
    assert (tmp_path / "two" / "final.png").read_bytes() != (out / "final.png").read_bytes()
    assert (tmp_path / "two" / "step1.png").read_bytes() == (out / "step1.png").read_bytes()
    assert json.loads(run("jobs", "show", job_id, data=data).stdout)["status"] == "completed"
    assert run("jobs", "rm", job_id, data=data).returncode == 0
    assert job_id not in run("jobs", "list", data=data).stdout
    assert run("jobs", "gc", data=data, AD_AGENT_KEEP_JOBS="1").stdout == "0 jobs removed\n"


def test_generate_says_what_is_wrong(tmp_path: Path, pictures: Path):
    data = tmp_path / "data"
    failed = run("generate", str(pictures / "bottle.png"), "--set", "widht=300", "--out", str(tmp_path), data=data)
    assert failed.returncode == 1
    assert "did you mean 'width'" in failed.stdout
    assert run("generate", "--set", "width", data=data).returncode == 2
    (tmp_path / "list.json").write_text("[]")
    listed = run("generate", "--request", str(tmp_path / "list.json"), data=data)
    assert (listed.returncode, "JSON object" in listed.stderr) == (2, True)


def test_a_job_of_another_version_hides_no_other(tmp_path: Path):
    store = JobStore(tmp_path)
    ids = sorted(new_job_id() for _ in range(3))
    for job_id in ids:
        job = Job(id=job_id, request=GenerateRequest(), engine=EngineName.DRAFT, steps=(1,), created_at=1.0)
        store.create(job, {}, {})
    (store.jobs / ids[1] / "job.json").write_text('{"from": "the future"}')
    listed = run("jobs", data=tmp_path)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ids[::-1]
    assert "another version" in listed.stdout


def test_doctor_tells_what_a_job_would_do_and_what_is_missing(tmp_path: Path):
    well = run("doctor", data=tmp_path / "data")
    assert well.returncode == 0, well.stdout
    for word in ("draft", "fonts", "data folder", "GPU"):
        assert word in well.stdout
    ill = run("doctor", data=tmp_path / "data", AD_AGENT_REQUIRE_GPU="1")
    assert ill.returncode == 1
    assert "missing" in ill.stdout
    (tmp_path / "file").touch()
    assert run("doctor", data=tmp_path / "file").returncode == 1


@pytest.mark.parametrize("command", [(), ("serve", "--transport", "http", "--port", "0")])
def test_a_server_that_needs_a_gpu_does_not_start_without_one(command: tuple[str, ...], tmp_path: Path):
    refused = run(*command, data=tmp_path, AD_AGENT_REQUIRE_GPU="1", CUDA_VISIBLE_DEVICES="")
    assert refused.returncode == 1
    assert "AD_AGENT_REQUIRE_GPU" in refused.stderr
    assert "GPU is visible" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"AD_AGENT_QUEUE_SIZE": "many"}, "AD_AGENT_QUEUE_SIZE"),
        ({"AD_AGENT_TOKEN": "short"}, "too short"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, str], message: str, tmp_path: Path):
    failed = run("doctor", data=tmp_path, **settings)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert "Value error" not in failed.stderr


def test_a_data_folder_that_cannot_be_locked_is_told_in_a_sentence(tmp_path: Path):
    (tmp_path / "locks").symlink_to(tmp_path / "a disk that is not there")
    failed = run("serve", data=tmp_path)
    assert failed.returncode == 2
    assert "data folder" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_misspelt_setting_is_pointed_out(tmp_path: Path):
    assert "AD_AGENT_DATADIR is no setting" in run("doctor", data=tmp_path, AD_AGENT_DATADIR="x").stderr


def test_the_demo_refuses_a_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    failed = run("demo", "--out", str(tmp_path / "file"), data=tmp_path / "data")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
