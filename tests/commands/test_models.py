"""`models list | fetch | prepare` and what `doctor` says of models, as a person uses them."""

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ad_agent_mcp.commands import doctor
from ad_agent_mcp.config import Settings
from ad_agent_mcp.files import FileLock
from ad_agent_mcp.hardware import Gpu, Machine

from ..engines.hub import COMMIT, serve
from ..test_hardware import FakeNvml
from .test_cli import run, started

OFFLINE = {"AD_AGENT_OFFLINE": "1"}


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    return path


def test_list_shows_licences_states_and_the_next_command(tmp_path: Path):
    listed = run("models", "list", data=tmp_path, AD_AGENT_MODELS_DIR=str(tmp_path / "models"))
    assert listed.returncode == 1
    for word in ("[dev]", "Non-Commercial", "MIT", "33.9 GB", "absent", "models fetch --preset exact"):
        assert word in listed.stdout
    free = run("models", "list", "--preset", "schnell", data=tmp_path, AD_AGENT_MODELS_DIR=str(tmp_path / "models"))
    assert "Apache-2.0, gated" in free.stdout
    assert "Non-Commercial" not in free.stdout


def test_fetch_downloads_and_is_seen_by_list(tmp_path: Path):
    models = tmp_path / "models"
    folder(tmp_path / "hub" / "me" / "net", "config.json", "diffusion_pytorch_model.safetensors")
    with serve(tmp_path / "hub") as hub:
        settings = {
            "AD_AGENT_MODELS_DIR": str(models),
            "AD_AGENT_CONTROLNET_MODEL": "me/net",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        done = run("models", "fetch", "--source", "controlnet", data=tmp_path, **settings)
        assert done.returncode == 0, done.stderr
        assert "fetch controlnet" in done.stdout
        refused = run("models", "fetch", "--source", "segmentation", data=tmp_path, **settings)
    assert refused.returncode == 1
    assert "AD_AGENT_SEGMENTATION_MODEL" in refused.stderr
    assert (models / "hub" / "models--me--net" / "snapshots" / COMMIT / "config.json").is_file()
    listed = run("models", "list", data=tmp_path, **settings, **OFFLINE).stdout
    assert [line for line in listed.splitlines() if "controlnet" in line and "fetched" in line]


def test_a_fetch_that_was_killed_goes_on_where_it_was(tmp_path: Path):
    models, repo = tmp_path / "models", folder(tmp_path / "hub" / "me" / "net", "config.json")
    weights = random.Random(1).randbytes(25 << 20)
    (repo / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    with serve(tmp_path / "hub") as hub:
        settings = {
            "AD_AGENT_MODELS_DIR": str(models),
            "AD_AGENT_CONTROLNET_MODEL": "me/net",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        hub.hang_after["diffusion_pytorch_model.safetensors"] = 22 << 20
        arguments = ("models", "fetch", "--source", "controlnet")
        with started(*arguments, data=tmp_path, **settings) as process:
            assert hub.hangs.wait(60)
            while sum(path.stat().st_size for path in models.rglob("*.incomplete")) < 20 << 20:
                with suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"it ended with {process.wait(0.02)}")
            process.kill()
        listed = run("models", "list", data=tmp_path, **settings, **OFFLINE).stdout
        assert [line for line in listed.splitlines() if "me/net" in line and " 0.0 GB" in line]
        assert [line for line in listed.splitlines() if "controlnet" in line and "absent" in line]
        assert "absent, 0.0 GB on disk" in run("doctor", data=tmp_path, **settings, **OFFLINE).stdout
        refused = run("models", "prepare", "controlnet", data=tmp_path, **settings, **OFFLINE)
        assert "no whole weights" in refused.stderr
        done = run(*arguments, data=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert len(hub.begun_at) == 2
    assert hub.begun_at[1] == 20 << 20  # the library hands over 10 MiB at a time
    snapshot = models / "hub" / "models--me--net" / "snapshots" / COMMIT
    assert (snapshot / "diffusion_pytorch_model.safetensors").read_bytes() == weights


def test_prepare_makes_what_was_asked_for_and_refuses_what_there_is_not(tmp_path: Path):
    settings = {
        "AD_AGENT_MODELS_DIR": str(tmp_path / "models"),
        "AD_AGENT_SDXL_MODEL": str(folder(tmp_path / "sdxl", "tokenizer/vocab.json")),
        **OFFLINE,
    }
    done = run("models", "prepare", "sdxl_tokenizer", data=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    listed = run("models", "list", data=tmp_path, **settings).stdout
    assert [line for line in listed.splitlines() if "sdxl_tokenizer " in line and "prepared" in line]
    assert "unet/config.json is missing" in run("models", "prepare", "unet", data=tmp_path, **settings).stderr
    lock = FileLock(tmp_path / "models" / ".lock")
    assert lock.try_acquire()
    assert "another process" in run("models", "fetch", "--source", "sdxl", data=tmp_path, **settings).stderr
    lock.release()
    unknown = run("models", "list", "--preset", "exakt", data=tmp_path, **settings)
    assert unknown.returncode == 2
    assert "exact, fast, schnell" in unknown.stderr


def test_doctor_tells_models_and_memory_and_fails_when_diffusion_is_asked_for(tmp_path: Path):
    settings = {"AD_AGENT_MODELS_DIR": str(tmp_path / "models"), "AD_AGENT_PRESET": "fast"}
    told = run("doctor", data=tmp_path, AD_AGENT_ENGINE="diffusion", **settings)
    assert told.returncode == 1
    for word in (
        "model flux",
        "[dev]",
        "gated, not for commercial use",
        "models prepare --preset fast",
        "text_paint",
        "CPU",
    ):
        assert word in told.stdout
    auto = run("doctor", data=tmp_path, **settings)
    assert auto.returncode == 0, auto.stdout
    assert "draft, because" in auto.stdout


@pytest.mark.parametrize("gpu", [Gpu("Fake L4", 22 << 30), None])
def test_doctor_says_that_a_preset_will_not_be_compiled(
    gpu: Gpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "this_machine", lambda lock: Machine(gpu, 30 << 30))
    monkeypatch.setenv("CC", "no-such-compiler")
    settings = Settings(data_dir=tmp_path, models_dir=tmp_path)
    told = [str(finding.text) for finding in doctor.examine(settings) if str(finding.what) == "C compiler"]
    assert [text.partition(":")[0] for text in told] == (["no-such-compiler is not found"] if gpu else [])


@pytest.mark.parametrize(
    ("order", "gpus", "is_told"), [("FASTEST_FIRST", 2, True), ("FASTEST_FIRST", 1, False), ("PCI_BUS_ID", 2, False)]
)
def test_doctor_says_that_another_order_of_gpus_is_not_followed(
    order: str, gpus: int, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*[24] * gpus))
    monkeypatch.setattr(doctor, "this_machine", lambda lock: Machine(None, 30 << 30))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    findings = doctor.examine(Settings(data_dir=tmp_path, models_dir=tmp_path))
    assert bool([finding for finding in findings if str(finding.what) == "GPU order"]) is is_told


@pytest.mark.parametrize(("name", "value"), [("AD_AGENT_PRESET", "exakt"), ("AD_AGENT_FLUX_MODEL", "no model")])
def test_doctor_names_a_setting_that_makes_no_sense(name: str, value: str, tmp_path: Path):
    told = run("doctor", data=tmp_path, AD_AGENT_ENGINE="diffusion", **{name: value})
    assert told.returncode == 1
    assert name in told.stdout
