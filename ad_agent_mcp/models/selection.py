"""Which engine a machine gets, and why. Imports no model library."""

import os
import shutil
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..config import EngineChoice, Settings
from ..contract.errors import AdAgentError
from ..contract.stages import EngineName
from ..hardware import Machine
from .catalog import preset_named
from .library import INSTALL, ModelLibrary, State, remedy
from .memory_plan import MemoryPlan, host_budget, plan_memory, vram_budget
from .preset import Preset

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


def engine_here(settings: Settings, machine: Machine) -> Choice:
    """`choose_engine`, for settings that make no sense too: they are the reason."""
    try:
        return choose_engine(settings, machine)
    except (AdAgentError, ValueError) as error:
        is_auto = settings.engine is EngineChoice.AUTO
        return Choice(EngineName.DRAFT if is_auto else EngineName.DIFFUSION, f"{error}.", is_ready=is_auto)


def choose_engine(settings: Settings, machine: Machine) -> Choice:
    """The engine for `settings` on `machine`: `auto` falls back to draft where something is missing.

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
    elif machine.gpu is None and settings.engine is EngineChoice.AUTO:
        obstacle = "no NVIDIA GPU is visible; the driver and, in a container, --gpus all are needed."
    elif lacking := {name: state for name, state in library.states(preset).items() if state is not State.PREPARED}:
        obstacle = f"{len(lacking)} models of preset {preset.name} are not prepared. {remedy(preset, lacking.values())}"
    else:
        plan = plan_for(settings, preset, library, machine)
        obstacle = f"{plan.why}. {_SMALLER}" if plan.verdict == "does_not_fit" else ""
    if not obstacle:
        where = "" if machine.gpu else " on the CPU, which takes very long: no NVIDIA GPU is visible"
        return Choice(EngineName.DIFFUSION, f"diffusion{where}, preset {preset.name}.")
    if settings.engine is EngineChoice.AUTO:
        return Choice(EngineName.DRAFT, f"draft, because {obstacle}")
    return Choice(EngineName.DIFFUSION, f"AD_AGENT_ENGINE=diffusion, but {obstacle}", is_ready=False)


_SMALLER = "Free GPU memory, choose AD_AGENT_PRESET=fast, or raise AD_AGENT_VRAM_BUDGET_GB."


def plan_for(settings: Settings, preset: Preset, library: ModelLibrary, machine: Machine) -> MemoryPlan:
    """The memory plan of a whole job of one megapixel; without a GPU, of the host's memory."""
    on_host = host_budget(settings.host_budget_gb, machine.free_host_bytes)
    return plan_memory(
        preset,
        library.sizes(preset),
        vram_budget=vram_budget(settings.vram_budget_gb, machine.gpu.free_bytes) if machine.gpu else on_host,
        host_budget=on_host if machine.gpu else 0,  # on the CPU a copy would gain nothing
        is_jit=settings.residency == "jit",
    )


def lacks_to_compile() -> str:
    """What compiling a model for a GPU would not find on this machine, where triton looks for it; empty: nothing."""
    compilers = [cc] if (cc := os.environ.get("CC")) else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"{' or '.join(compilers)} is not found"
    headers = Path(sysconfig.get_path("include"))
    return "" if (headers / "Python.h").is_file() else f"{headers} has no Python.h"
