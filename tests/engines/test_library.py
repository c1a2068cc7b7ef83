"""Where models are found, what is downloaded, and what is said when they cannot be had."""

import shutil
import socket
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.models.download import fetch
from ad_agent_mcp.models.library import ModelLibrary, State, wanted_files

from .hub import COMMIT, Hub, serve

EXACT = PRESETS["exact"]
CONTROLNET = "diffusers/controlnet-canny-sdxl-1.0"
FP16 = "diffusion_pytorch_model.fp16.safetensors"
WEIGHTS = bytes(range(256)) * 12_000


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a ControlNet in both precisions, and with what nobody needs."""
    add(
        tmp_path / "hub" / CONTROLNET,
        "config.json",
        "README.md",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
    )
    (tmp_path / "hub" / CONTROLNET / "diffusion_pytorch_model.fp16.safetensors").write_bytes(WEIGHTS)
    with serve(tmp_path / "hub") as hub:
        point_at(hub.url, monkeypatch)
        yield hub


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the variable HF_ENDPOINT does before the library is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def add(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    return folder


def flux_files() -> set[str]:
    """What is needed of a FLUX repository, where the transformer is in two files."""
    folders = {"transformer", "text_encoder", "text_encoder_2", "vae"}
    files = {f"{folder}/config.json" for folder in folders} | {"vae/diffusion_pytorch_model.safetensors"}
    files |= {f"{folder}/model.safetensors" for folder in ("text_encoder", "text_encoder_2")}
    files |= {f"transformer/diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)}
    return files | {"tokenizer/vocab.json", "tokenizer_2/spiece.model", "scheduler/scheduler_config.json"}


def library(tmp_path: Path, *, offline: bool = False, **overrides: str) -> ModelLibrary:
    (tmp_path / "models").mkdir(exist_ok=True)
    models = {f"{role}_model": name for role, name in overrides.items()}
    return ModelLibrary(Settings(models_dir=tmp_path / "models", offline=offline, **models))


def fetched(models: ModelLibrary, role: str = "controlnet", preset: str = "exact") -> Path:
    return fetch(models, PRESETS[preset], role, progress=lambda done, total: None)


def failure(models: ModelLibrary, role: str = "controlnet") -> tuple[ErrorCode, str]:
    with pytest.raises(AdAgentError) as caught:
        fetched(models, role)
    return caught.value.info.code, caught.value.info.message


def test_only_the_files_that_are_needed_come_and_progress_ends_at_all_of_them(hub: Hub, tmp_path: Path):
    told: list[tuple[int, int]] = []
    models = library(tmp_path)
    folder = fetch(models, EXACT, "controlnet", progress=lambda done, total: told.append((done, total)))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    assert (folder / "diffusion_pytorch_model.fp16.safetensors").read_bytes() == WEIGHTS
    assert told[-1] == (len(WEIGHTS) + 2, len(WEIGHTS) + 2)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert models.states(EXACT)["controlnet"] is State.FETCHED


def test_of_flux_neither_the_single_file_nor_other_formats_come(hub: Hub, tmp_path: Path):
    wanted = flux_files()
    others = {
        "flux1-dev.safetensors",
        "ae.safetensors",
        "vae/model.onnx",
        "model_index.json",
        "text_encoder/pytorch_model.bin",
    }
    add(hub.folder / "black-forest-labs" / "FLUX.1-dev", *wanted, *others)
    folder = fetched(library(tmp_path), "flux")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == wanted


def test_a_branch_is_kept_at_the_commit_it_had_at_first(hub: Hub, tmp_path: Path):
    assert fetched(library(tmp_path)).name == COMMIT
    hub.commit = "f" * 40
    hub.asked.clear()
    models = library(tmp_path)
    assert fetched(models).name == COMMIT
    assert hub.asked == []
    assert models.locate(EXACT, "controlnet").prepared.name == f"diffusers--controlnet-canny-sdxl-1.0@{COMMIT[:12]}"
    assert fetched(library(tmp_path, controlnet=f"{CONTROLNET}@{hub.commit}")).name == hub.commit


def test_a_download_that_broke_off_goes_on_where_it_was(hub: Hub, tmp_path: Path, small_chunks: None):
    hub.cut_after[FP16] = 1_000_000
    assert (fetched(library(tmp_path)) / FP16).read_bytes() == WEIGHTS
    assert hub.begun_at == [0, 1_000_000]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)


def interrupted(models: ModelLibrary, *, at: int) -> None:
    """A download that is ended from outside once `at` bytes have come."""

    def stop(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(models, EXACT, "controlnet", progress=stop)


def test_another_attempt_brings_only_what_the_first_had_not(hub: Hub, tmp_path: Path, small_chunks: None):
    models = library(tmp_path)
    interrupted(models, at=1_000_000)
    assert models.states(EXACT)["controlnet"] is State.ABSENT
    assert models.standing(EXACT, "controlnet").size_bytes < 1_000
    (begun,) = models.models_dir.rglob("*.incomplete")
    size = begun.stat().st_size
    told: list[tuple[int, int]] = []
    folder = fetch(models, EXACT, "controlnet", progress=lambda done, total: told.append((done, total)))
    assert (folder / FP16).read_bytes() == WEIGHTS
    assert hub.begun_at == [0, size]
    assert size > 800_000
    assert told[0][0] > size
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert models.standing(EXACT, "controlnet").size_bytes == len(WEIGHTS) + 2
    assert not [*models.models_dir.rglob("*.incomplete")]


@pytest.mark.parametrize("spoilt", ["in the middle", "too long"])
def test_a_part_that_is_not_of_the_file_starts_anew(spoilt: str, hub: Hub, tmp_path: Path, small_chunks: None):
    models = library(tmp_path)
    interrupted(models, at=1_000_000)
    (begun,) = models.models_dir.rglob("*.incomplete")
    begun.write_bytes(bytes(begun.stat().st_size if spoilt == "in the middle" else len(WEIGHTS) + 1))
    told: list[int] = []
    folder = fetch(models, EXACT, "controlnet", progress=lambda done, total: told.append(done))
    assert (folder / FP16).read_bytes() == WEIGHTS
    assert hub.begun_at[-1] == 0
    assert told == sorted(told)


def test_a_hub_that_always_begins_at_the_first_byte_is_no_trouble(hub: Hub, tmp_path: Path, small_chunks: None):
    models = library(tmp_path)
    interrupted(models, at=1_000_000)
    hub.has_ranges = False
    told: list[int] = []
    folder = fetch(models, EXACT, "controlnet", progress=lambda done, total: told.append(done))
    assert (folder / FP16).read_bytes() == WEIGHTS
    assert told == sorted(told)


def test_what_the_hubs_own_library_left_of_a_file_is_removed_and_counts_for_nothing(hub: Hub, tmp_path: Path):
    models = library(tmp_path)
    blobs = models.models_dir / "hub" / "models--diffusers--controlnet-canny-sdxl-1.0" / "blobs"
    blobs.mkdir(parents=True)
    for name in ("0a1b.incomplete", "0a1b.12345678.incomplete"):
        (blobs / name).write_bytes(WEIGHTS)
    assert models.standing(EXACT, "controlnet").size_bytes == 0
    assert models.states(EXACT)["controlnet"] is State.ABSENT
    told: list[int] = []
    fetch(models, EXACT, "controlnet", progress=lambda done, total: told.append(done))
    assert told[0] <= len(WEIGHTS)
    assert [*blobs.iterdir()] == []


def test_a_file_whose_content_was_deleted_comes_again(hub: Hub, tmp_path: Path):
    models = library(tmp_path)
    weights = fetched(models) / FP16
    weights.unlink()
    weights.symlink_to(tmp_path / "nowhere")
    assert (fetched(models) / FP16).read_bytes() == WEIGHTS


def test_files_come_one_after_the_other(hub: Hub, tmp_path: Path):
    add(hub.folder / "black-forest-labs" / "FLUX.1-dev", *flux_files())
    fetched(library(tmp_path), "flux")
    got = [path for path in hub.asked if path.startswith("GET") and "/resolve/" in path]
    assert len(got) == len(flux_files())
    assert got == sorted(got)


def test_offline_touches_no_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetched(library(tmp_path))
    hub.asked.clear()
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was touched"))
    models = library(tmp_path, offline=True)
    assert fetched(models).name == COMMIT
    assert models.states(EXACT)["controlnet"] is State.FETCHED
    assert "AD_AGENT_OFFLINE" in failure(models, "segmentation")[1]
    assert hub.asked == []  # an open connection would need no new one


@pytest.mark.parametrize(
    ("role", "override", "remedy"),
    [
        ("flux", None, "accept them"),
        ("segmentation", None, "AD_AGENT_SEGMENTATION_MODEL"),
        ("controlnet", f"{CONTROLNET}@nowhere", "AD_AGENT_CONTROLNET_MODEL"),
        ("sdxl", CONTROLNET, "unet/config.json is missing"),
    ],
)
def test_what_the_hub_refuses_is_told_with_its_remedy(
    role: str, override: str | None, remedy: str, hub: Hub, tmp_path: Path
):
    add(hub.folder / "black-forest-labs" / "FLUX.1-dev", *flux_files())
    hub.gated.add("black-forest-labs/FLUX.1-dev")
    code, message = failure(library(tmp_path, **({role: override} if override else {})), role)
    assert code is ErrorCode.MODEL_UNAVAILABLE
    assert remedy in message


def test_no_preset_is_named_as_the_way_round_a_gate_that_has_one_too(hub: Hub, tmp_path: Path):
    add(hub.folder / "black-forest-labs" / "FLUX.1-schnell", *flux_files())
    hub.gated.add("black-forest-labs/FLUX.1-schnell")
    with pytest.raises(AdAgentError) as caught:
        fetched(library(tmp_path), "flux", "schnell")
    assert "FLUX.1-schnell is given only to those who accept its terms" in caught.value.info.message
    assert "AD_AGENT_PRESET" not in caught.value.info.message


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        code, message = failure(library(tmp_path))
    assert code is ErrorCode.MODEL_UNAVAILABLE
    assert "cannot be reached" in message


def test_a_disk_without_room_is_told_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1000))
    assert failure(library(tmp_path))[0] is ErrorCode.STORAGE_FULL
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_pickled_weights_are_refused(tmp_path: Path):
    models = library(tmp_path, controlnet=str(add(tmp_path / "mine", "config.json", "diffusion_pytorch_model.bin")))
    assert models.states(EXACT)["controlnet"] is State.ABSENT
    assert "pickles" in failure(models)[1]


def test_a_setting_that_is_no_model_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="AD_AGENT_FLUX_MODEL"):
        library(tmp_path, flux="no model").states(EXACT)


def test_shards_count_only_when_all_are_there():
    transformer = next(component for component in PRESETS["exact"].components if component.name == "transformer-bf16")
    names = ["transformer/config.json", "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"]
    with pytest.raises(FileNotFoundError):
        wanted_files(names, transformer)
    other = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
    assert wanted_files([other, *names], transformer) == [*names, other]


def test_presets_differ_from_each_other_in_the_transformer_alone():
    def prepared(name: str) -> set[str]:
        return {component.name for component in PRESETS[name].components}

    assert prepared("exact") ^ prepared("fast") == {"transformer-bf16", "transformer-fp8"}
    assert prepared("schnell") == prepared("exact")
    assert PRESETS["schnell"].source("flux").is_commercial
    assert PRESETS["schnell"].source("flux").terms == "Apache-2.0, gated"
    assert not PRESETS["fast"].source("flux").is_commercial
