"""Which engine a machine gets, and that the reason names what is missing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.errors import AdAgentError
from ad_agent_mcp.contract.stages import EngineName
from ad_agent_mcp.hardware import Gpu, Machine
from ad_agent_mcp.models import selection as choice
from ad_agent_mcp.models.catalog import PRESETS
from ad_agent_mcp.models.library import ModelLibrary
from ad_agent_mcp.models.preset import GIB
from ad_agent_mcp.models.selection import Choice, choose_engine, engine_here


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All models of preset `fast`, by their manifests; sizes are the published ones."""
    monkeypatch.setattr(
        ModelLibrary, "sizes", lambda _, preset: {c.name: gib(c.nominal_gib) for c in preset.components}
    )
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    library = ModelLibrary(Settings(models_dir=tmp_path))
    for component in PRESETS["fast"].components:
        location = library.locate(PRESETS["fast"], component.role)
        folder = location.prepared / component.name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        library.record(location, component.name, {"format": 1, "files": {"config.json": 2}, "sources": {}})
    return tmp_path


def gib(sizes: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(size * GIB) for size in sizes)


def chosen(models_dir: Path, *, vram_gib: float | None = 22.25, **settings: Any) -> Choice:
    given = Settings(**{"preset": "fast", "models_dir": models_dir, **settings})
    return choose_engine(given, machine(vram_gib))


def machine(vram_gib: float | None = None) -> Machine:
    return Machine(None if vram_gib is None else Gpu("Fake L4", int(vram_gib * GIB)), 30 * GIB)


def test_auto_takes_diffusion_where_everything_is_there(models: Path):
    taken = chosen(models)
    assert (taken.engine, taken.is_ready) == (EngineName.DIFFUSION, True)


@pytest.mark.parametrize(
    ("vram_gib", "settings", "reason"),
    [
        (None, {}, "no NVIDIA GPU"),
        (22.25, {"preset": "exact"}, "models prepare --preset exact"),
        (8, {}, "GiB may be used"),
        (22.25, {"vram_budget_gb": 6}, "6.0 GiB may be used"),
        (22.25, {"engine": "draft"}, "AD_AGENT_ENGINE=draft"),
    ],
)
def test_otherwise_it_takes_draft_and_says_why(
    vram_gib: float | None, settings: dict[str, Any], reason: str, models: Path
):
    taken = chosen(models, vram_gib=vram_gib, **settings)
    assert (taken.engine, taken.is_ready) == (EngineName.DRAFT, True)
    assert reason in taken.reason.en


def test_a_missing_library_is_named(models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name == "diffusers" else name)
    taken = chosen(models)
    assert taken.engine is EngineName.DRAFT
    assert "diffusers not installed" in taken.reason.en
    assert not chosen(models, engine="diffusion").is_ready


def test_diffusion_asked_for_runs_on_the_cpu_with_a_warning(models: Path):
    taken = chosen(models, engine="diffusion", vram_gib=None)
    assert (taken.engine, taken.is_ready) == (EngineName.DIFFUSION, True)
    assert "CPU" in taken.reason.en
    settings = Settings(preset="fast", models_dir=models)
    plan = choice.plan_for(settings, PRESETS["fast"], ModelLibrary(settings), machine())
    assert plan.host_bytes == 0


def test_diffusion_asked_for_stays_diffusion_when_models_are_missing(models: Path):
    taken = chosen(models, engine="diffusion", preset="exact")
    assert (taken.engine, taken.is_ready) == (EngineName.DIFFUSION, False)
    assert "models prepare" in taken.reason.en


def test_an_unknown_preset_is_refused_with_the_known_ones(models: Path):
    with pytest.raises(AdAgentError, match="exact, fast, schnell"):
        chosen(models, preset="exakt")
    for engine, name in (("auto", EngineName.DRAFT), ("diffusion", EngineName.DIFFUSION)):
        mistaken = engine_here(Settings(preset="exakt", engine=engine, models_dir=models), machine(22.25))
        assert (mistaken.engine, mistaken.is_ready) == (name, engine == "auto")
        assert "exact, fast, schnell" in str(mistaken.reason)


@pytest.mark.parametrize(
    ("compilers", "variable", "lack"),
    [
        (["gcc"], None, ""),
        (["clang"], None, ""),
        ([], None, "gcc or clang is not found"),
        (["gcc"], "mycc", "mycc is not found"),
        (["mycc"], "mycc", ""),
    ],
)
def test_a_compiler_is_looked_for_where_models_will_find_it(
    compilers: list[str], variable: str | None, lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in compilers:
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if variable:
        monkeypatch.setenv("CC", variable)
    monkeypatch.setattr(choice.sysconfig, "get_path", lambda name: str(tmp_path))
    assert str(choice.lacks_to_compile() or "") == lack
    (tmp_path / "Python.h").unlink()
    assert str(choice.lacks_to_compile()) == (lack or f"{tmp_path} has no Python.h")


def test_choosing_imports_no_model_library():
    code = (
        "import sys, ad_agent_mcp.commands.doctor, ad_agent_mcp.commands.models, ad_agent_mcp.models.selection;"
        "print({'torch', 'diffusers', 'transformers', 'safetensors', 'huggingface_hub'} & set(sys.modules))"
    )
    import subprocess

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
