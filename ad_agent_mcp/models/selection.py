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
from ..contract.texts import Text, say
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
    reason: Text
    is_ready: bool = True


def engine_here(settings: Settings, machine: Machine) -> Choice:
    """`choose_engine`, for settings that make no sense too: they are the reason."""
    try:
        return choose_engine(settings, machine)
    except (AdAgentError, ValueError) as error:
        is_auto = settings.engine is EngineChoice.AUTO
        return Choice(
            EngineName.DRAFT if is_auto else EngineName.DIFFUSION, say("models.refused", reason=error), is_ready=is_auto
        )


def choose_engine(settings: Settings, machine: Machine) -> Choice:
    """The engine for `settings` on `machine`: `auto` falls back to draft where something is missing.

    Raises:
        AdAgentError: `invalid_request`; the preset is unknown.
        ValueError: the setting of a model makes no sense.
    """
    if settings.engine is EngineChoice.DRAFT:
        return Choice(EngineName.DRAFT, say("models.chosen_draft"))
    preset = preset_named(settings.preset)
    library = ModelLibrary(settings)
    if absent := [name for name in LIBRARIES if find_spec(name) is None]:
        obstacle = say("models.not_installed", names=absent, install=INSTALL)
    elif machine.gpu is None and settings.engine is EngineChoice.AUTO:
        obstacle = say("models.no_gpu")
    elif lacking := {name: state for name, state in library.states(preset).items() if state is not State.PREPARED}:
        do = remedy(preset, lacking.values())
        obstacle = say("models.models_not_prepared", count=len(lacking), preset=preset.name, remedy=do)
    else:
        plan = plan_for(settings, preset, library, machine)
        obstacle = say("models.does_not_fit", why=plan.why) if plan.verdict == "does_not_fit" else None
    if obstacle is None:
        on_cpu = machine.gpu is None
        reason = say("models.chosen_diffusion_on_cpu" if on_cpu else "models.chosen_diffusion", preset=preset.name)
        return Choice(EngineName.DIFFUSION, reason)
    if settings.engine is EngineChoice.AUTO:
        return Choice(EngineName.DRAFT, say("models.draft_because", obstacle=obstacle))
    return Choice(EngineName.DIFFUSION, say("models.diffusion_but", obstacle=obstacle), is_ready=False)


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


def lacks_to_compile() -> Text | None:
    """What compiling a model for a GPU would not find on this machine, where triton looks for it."""
    compilers = [cc] if (cc := os.environ.get("CC")) else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return say("models.no_compiler", compilers=compilers)
    headers = Path(sysconfig.get_path("include"))
    return None if (headers / "Python.h").is_file() else say("models.no_headers", folder=headers)
