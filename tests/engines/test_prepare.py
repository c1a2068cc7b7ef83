"""Prepared models hold what `from_pretrained` would have loaded, as a whole or not at all."""

import dataclasses
import json
import pickle
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.engines.cutout.birefnet import BiRefNet, BiRefNetConfig
from ad_agent_mcp.engines.diffusion.flat import FlatFile
from ad_agent_mcp.engines.diffusion.fp8 import multiply_emulated, quantise_rows, replace_linears
from ad_agent_mcp.engines.diffusion.networks import empty_network, weights_of
from ad_agent_mcp.engines.diffusion.prepare import prepare
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.models.library import ModelLibrary, State
from ad_agent_mcp.models.preset import Component, Preset

EXACT, FAST = PRESETS["exact"], PRESETS["fast"]
BIREFNET = BiRefNetConfig(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4, decoder_dim=8, aspp_dim=12)


@pytest.fixture(scope="module")
def sources(tiny_flux: Path, tiny_sdxl: Path, tiny_controlnet: Path, tmp_path_factory: pytest.TempPathFactory):
    """A folder of each role."""
    birefnet = tmp_path_factory.mktemp("birefnet")
    state = {name: torch.randn(t.shape) for name, t in BiRefNet(BIREFNET).state_dict().items()}
    official = json.loads((Path(__file__).parent.parent / "data" / "birefnet_state.json").read_text("utf-8"))
    state |= {name: torch.zeros(shape) for name, shape in official["training_only"].items()}
    state |= {name: torch.zeros(shape, dtype=torch.int64) for name, shape in official["ignorable"].items()}
    save_file(state, birefnet / "model.safetensors")
    (birefnet / "config.json").write_text(json.dumps({"auto_map": {}, **dataclasses.asdict(BIREFNET)}))
    return {"flux": tiny_flux, "sdxl": tiny_sdxl, "controlnet": tiny_controlnet, "segmentation": birefnet}


@pytest.fixture(scope="module")
def library(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelLibrary:
    return make_library(tmp_path_factory.mktemp("models"), sources)


def make_library(folder: Path, sources: dict[str, Path]) -> ModelLibrary:
    models = {f"{role}_model": str(path) for role, path in sources.items()}
    return ModelLibrary(Settings(models_dir=folder, offline=True, **models))


def component(name: str) -> Component:
    return next(one for preset in PRESETS.values() for one in preset.components if one.name == name)


def prepared(library: ModelLibrary, name: str, preset: Preset = EXACT) -> Path:
    return prepare(library, preset, component(name), progress=lambda done, total: None)


def content(folder: Path) -> dict[str, Tensor]:
    """All tensors of a prepared component."""
    tensors: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        file = FlatFile.open(path)
        buffer = torch.empty(file.nbytes, dtype=torch.uint8)
        file.read_into(buffer)
        assert not tensors.keys() & file.tensors.keys()
        tensors |= file.views(buffer)
    return tensors


def loaded(name: str, sources: dict[str, Path]) -> nn.Module:
    """What the library of the class makes of the same source."""
    wanted = component(name)
    kind = getattr(diffusers, wanted.network, None) or getattr(transformers, wanted.network)
    return kind.from_pretrained(sources[wanted.role] / wanted.subfolder, dtype=getattr(torch, wanted.dtype))


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [
        name for name in one if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    ]
    assert different == []


@pytest.mark.parametrize(
    "name", ["t5", "clip_l", "flux_vae", "unet", "sdxl_vae", "sdxl_clip_l", "sdxl_clip_g", "controlnet"]
)
def test_a_prepared_network_is_what_from_pretrained_loads(name: str, library: ModelLibrary, sources: dict[str, Path]):
    folder = prepared(library, name)
    network = empty_network(component(name), json.loads((folder / "config.json").read_text()))
    network.load_state_dict(content(folder), assign=True, strict=name != "t5")  # whose table has a second name
    if name == "t5":
        network.encoder.embed_tokens = network.shared
    assert_same(dict(network.state_dict()), dict(loaded(name, sources).state_dict()))
    assert [n for n, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta] == []


def test_the_transformer_is_split_into_what_stays_what_moves_and_its_modulation(
    library: ModelLibrary, sources: dict[str, Path]
):
    whole = prepared(library, "transformer-bf16")
    modulation = content(prepared(library, "modulation"))
    assert_same(content(whole) | modulation, dict(loaded("transformer-bf16", sources).state_dict()))
    linears = {name.rpartition(".")[0] for name in modulation}
    assert {name.rpartition(".")[2] for name in linears} == {"linear"}
    assert len(linears) == 2 * 2 + 4 + 1  # two of each double block, one of each single block, the last norm's
    moving = FlatFile.open(whole / "b.safetensors").tensors
    assert {name.split(".")[1] for name in moving} == {"1", "2", "3"}  # 24 of 38 blocks, rounded
    assert {name.split(".")[0] for name in moving} == {"single_transformer_blocks"}


def test_the_8_bit_transformer_fits_the_shells_that_it_is_made_for(library: ModelLibrary, sources: dict[str, Path]):
    folder = prepared(library, "transformer-fp8", FAST)
    tensors = content(folder)
    network = empty_network(component("transformer-fp8"), json.loads((folder / "config.json").read_text()))
    names = replace_linears(network, lambda name: "blocks." in name and ".norm" not in name, multiply_emulated)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(".linear.weight")}
    wanted = {name: tensor for name, tensor in wanted.items() if not name.endswith(".linear.bias")}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {name: t.shape for name, t in wanted.items()}
    plain = loaded("transformer-bf16", sources).state_dict()
    weight, scale = quantise_rows(plain[f"{names[0]}.weight"])
    assert tensors[f"{names[0]}.weight"].dtype == torch.float8_e4m3fn
    assert torch.equal(tensors[f"{names[0]}.weight"].float(), weight.float())
    assert torch.equal(tensors[f"{names[0]}.weight_scale"], scale)


def test_of_birefnet_what_only_training_uses_is_left_out(library: ModelLibrary, sources: dict[str, Path]):
    folder = prepared(library, "birefnet")
    network = empty_network(component("birefnet"), json.loads((folder / "config.json").read_text()))
    network.load_state_dict(content(folder), assign=True)
    source = load_file(sources["segmentation"] / "model.safetensors")
    assert_same(dict(network.state_dict()), {name: source[name].half() for name in weights_of(network)})


@pytest.mark.parametrize("name", ["flux_tokenizer", "flux_tokenizer_2", "flux_scheduler"])
def test_small_folders_are_copied(name: str, library: ModelLibrary, sources: dict[str, Path]):
    folder = prepared(library, name)
    for path in folder.iterdir():
        assert path.read_bytes() == (sources["flux"] / component(name).subfolder / path.name).read_bytes()
    assert list(folder.glob("*.json"))


def test_older_names_and_single_precision_are_understood(tmp_path: Path, sources: dict[str, Path]):
    """A VAE from before the attention layers were renamed, and T5 with its table under the encoder's name."""
    flux = tmp_path / "flux"
    shutil.copytree(sources["flux"], flux)
    vae, t5 = flux / "vae" / "diffusion_pytorch_model.safetensors", flux / "text_encoder_2"
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    renamed: dict[str, Tensor] = {}
    for name, tensor in load_file(vae).items():
        for new, legacy in old.items():
            name = name.replace(new, legacy)
        renamed[name] = tensor.float()
    assert any("query" in name for name in renamed)
    save_file(renamed, vae, metadata={"format": "pt"})
    tensors = {name: tensor for path in t5.glob("*.safetensors") for name, tensor in load_file(path).items()}
    for path in t5.glob("model*"):
        path.unlink()
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, t5 / "model.safetensors", metadata={"format": "pt"})
    library = make_library(tmp_path / "models", {**sources, "flux": flux})
    assert_same(content(prepared(library, "flux_vae")), dict(loaded("flux_vae", {"flux": flux}).state_dict()))
    tensors["shared.weight"] = tensors.pop("encoder.embed_tokens.weight")
    assert_same(content(prepared(library, "t5")), tensors)


def test_a_preparation_that_breaks_off_leaves_nothing_and_the_next_one_goes_on(
    tmp_path: Path, sources: dict[str, Path]
):
    library = make_library(tmp_path, sources)
    prepared(library, "clip_l")

    def break_off(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(library, EXACT, component("flux_vae"), progress=break_off)
    states = library.states(EXACT)
    assert (states["clip_l"], states["flux_vae"]) == (State.PREPARED, State.FETCHED)
    folder = library.prepared(EXACT, "clip_l").parent
    assert sorted(path.name for path in folder.iterdir()) == ["clip_l", "manifest.json"]
    told: list[int] = []
    prepare(library, EXACT, component("clip_l"), progress=lambda done, total: told.append(done))
    assert told == []
    prepare(library, EXACT, component("flux_vae"), progress=lambda done, total: told.append(total - done))
    assert told[-1] == 0
    assert library.states(EXACT)["flux_vae"] is State.PREPARED


def test_a_changed_source_makes_what_was_prepared_stale_and_a_lost_one_does_not(
    tmp_path: Path, sources: dict[str, Path]
):
    mine = tmp_path / "controlnet"
    shutil.copytree(sources["controlnet"], mine)
    library = make_library(tmp_path / "models", {**sources, "controlnet": mine})
    folder = prepared(library, "controlnet")
    before = content(folder)
    weights = mine / "diffusion_pytorch_model.fp16.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights)
    assert library.states(EXACT)["controlnet"] is State.STALE
    with pytest.raises(AdAgentError) as caught:
        library.prepared(EXACT, "controlnet")
    assert caught.value.info.code is ErrorCode.MODEL_UNAVAILABLE
    after = content(prepared(library, "controlnet"))
    assert all(not torch.equal(after[name], before[name]) for name in before)
    weights.unlink()
    (mine / "diffusion_pytorch_model.safetensors").unlink()
    assert library.prepared(EXACT, "controlnet") == folder
    (folder / "a.safetensors").write_bytes(b"cut")
    assert library.states(EXACT)["controlnet"] is State.STALE


def test_weights_of_another_network_are_refused_and_leave_nothing(tmp_path: Path, sources: dict[str, Path]):
    wrong = tmp_path / "wrong"
    shutil.copytree(sources["sdxl"] / "vae", wrong)
    shutil.copy(sources["controlnet"] / "config.json", wrong)
    library = make_library(tmp_path / "models", {**sources, "controlnet": wrong})
    with pytest.raises(AdAgentError, match="no weights") as caught:
        prepared(library, "controlnet")
    assert caught.value.info.code is ErrorCode.MODEL_UNAVAILABLE
    assert [path for path in (tmp_path / "models").rglob("*") if path.is_file()] == []


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("data", [b"", pickle.dumps(Trap())], ids=["empty", "pickle"])
def test_a_file_that_only_has_the_name_of_a_safetensors_file_is_refused_unopened(
    data: bytes, tmp_path: Path, sources: dict[str, Path]
):
    wrong = tmp_path / "birefnet"
    wrong.mkdir()
    (wrong / "model.safetensors").write_bytes(data)
    with pytest.raises(AdAgentError, match="cannot be used as birefnet") as caught:
        prepared(make_library(tmp_path / "models", {**sources, "segmentation": wrong}), "birefnet")
    assert caught.value.info.code is ErrorCode.MODEL_UNAVAILABLE


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1000))
    with pytest.raises(AdAgentError) as caught:
        prepared(make_library(tmp_path, sources), "unet")
    assert caught.value.info.code is ErrorCode.STORAGE_FULL


def test_the_plan_counts_the_bytes_that_were_prepared(library: ModelLibrary):
    folder = prepared(library, "transformer-bf16")
    sizes = library.sizes(EXACT)
    assert sizes["transformer-bf16"] == tuple(FlatFile.open(folder / f"{name}.safetensors").nbytes for name in "ab")
