"""Which engine a machine gets, and why. Imports no model library; whoever asks says what memory is free."""

import os
import shutil
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..config import EngineChoice, Settings
from ..contract.stages import EngineName
from .catalog import Preset, preset_named
from .library import INSTALL, ModelLibrary, State, remedy
from .memory_plan import MemoryPlan, host_budget, plan_memory, vram_budget

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")


@dataclass(frozen=True)
class Choice:
    """An engine and the reason for it.

    Attributes:
        reason: one sentence; with what to do where something is missing.
        is_ready: whether jobs can run on it as things are.
    """

    engine: EngineName
    reason: str
    is_ready: bool = True


def choose_engine(settings: Settings, *, free_vram_bytes: int | None, free_ram_bytes: int) -> Choice:
    """The engine for `settings` on this machine.

    Args:
        settings: `auto` falls back to draft where something is missing; `diffusion` does not.
        free_vram_bytes: of the GPU to use; None where none is visible.
        free_ram_bytes: of the host.

    Raises:
        AdAgentError: `invalid_request`; the preset is unknown.
        ValueError: the setting of a model makes no sense.
    """
    if settings.engine is EngineChoice.DRAFT:
        return Choice(EngineName.DRAFT, "AD_AGENT_ENGINE=draft: a job makes its ad on the CPU, in a few seconds.")
    preset = preset_named(settings.preset)
    library = ModelLibrary(settings)
    if absent := [name for name in LIBRARIES if find_spec(name) is None]:
        obstacle = f"{', '.join(absent)} not installed: {INSTALL}."
    elif free_vram_bytes is None and settings.engine is EngineChoice.AUTO:
        obstacle = "no NVIDIA GPU is visible; the driver and, in a container, --gpus all are needed."
    elif lacking := {name: state for name, state in library.states(preset).items() if state is not State.PREPARED}:
        obstacle = f"{len(lacking)} models of preset {preset.name} are not prepared. {remedy(preset, lacking.values())}"
    else:
        plan = plan_for(settings, preset, library, free_vram_bytes=free_vram_bytes, free_ram_bytes=free_ram_bytes)
        obstacle = f"{plan.why}. {_SMALLER}" if plan.verdict == "does_not_fit" else ""
    if not obstacle:
        where = "" if free_vram_bytes is not None else " on the CPU, which takes very long: no NVIDIA GPU is visible"
        return Choice(EngineName.DIFFUSION, f"diffusion{where}, preset {preset.name}.")
    if settings.engine is EngineChoice.AUTO:
        return Choice(EngineName.DRAFT, f"draft, because {obstacle}")
    return Choice(EngineName.DIFFUSION, f"AD_AGENT_ENGINE=diffusion, but {obstacle}", is_ready=False)


_SMALLER = "Free GPU memory, choose AD_AGENT_PRESET=fast, or raise AD_AGENT_VRAM_BUDGET_GB."


def plan_for(
    settings: Settings, preset: Preset, library: ModelLibrary, *, free_vram_bytes: int | None, free_ram_bytes: int
) -> MemoryPlan:
    """The memory plan of a whole job of one megapixel; without a GPU, of the host's memory."""
    on_host = host_budget(settings.host_budget_gb, free_ram_bytes)
    return plan_memory(
        preset,
        library.sizes(preset),
        vram_budget=on_host if free_vram_bytes is None else vram_budget(settings.vram_budget_gb, free_vram_bytes),
        host_budget=0 if free_vram_bytes is None else on_host,  # on the CPU a copy would gain nothing
        is_jit=settings.residency == "jit",
    )


def lacks_to_compile() -> str:
    """What compiling a model for a GPU would not find on this machine, where triton looks for it; empty: nothing."""
    compilers = [cc] if (cc := os.environ.get("CC")) else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"{' or '.join(compilers)} is not found"
    headers = Path(sysconfig.get_path("include"))
    return "" if (headers / "Python.h").is_file() else f"{headers} has no Python.h"
