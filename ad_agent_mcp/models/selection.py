"""Which engine a machine gets, and why. Imports no model library; whoever asks says what memory is free."""

import os
import shutil
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..config import EngineChoice, Settings
from ..contract.stages import EngineName
from ..contract.texts import Text, say
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
    reason: Text
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
        return Choice(EngineName.DRAFT, say("models.chosen_draft"))
    preset = preset_named(settings.preset)
    library = ModelLibrary(settings)
    if absent := [name for name in LIBRARIES if find_spec(name) is None]:
        obstacle = say("models.not_installed", names=absent, install=INSTALL)
    elif free_vram_bytes is None and settings.engine is EngineChoice.AUTO:
        obstacle = say("models.no_gpu")
    elif lacking := {name: state for name, state in library.states(preset).items() if state is not State.PREPARED}:
        do = remedy(preset, lacking.values())
        obstacle = say("models.models_not_prepared", count=len(lacking), preset=preset.name, remedy=do)
    else:
        plan = plan_for(settings, preset, library, free_vram_bytes=free_vram_bytes, free_ram_bytes=free_ram_bytes)
        obstacle = say("models.does_not_fit", why=plan.why) if plan.verdict == "does_not_fit" else None
    if obstacle is None:
        return Choice(
            EngineName.DIFFUSION,
            say(
                "models.chosen_diffusion_on_cpu" if free_vram_bytes is None else "models.chosen_diffusion",
                preset=preset.name,
            ),
        )
    if settings.engine is EngineChoice.AUTO:
        return Choice(EngineName.DRAFT, say("models.draft_because", obstacle=obstacle))
    return Choice(EngineName.DIFFUSION, say("models.diffusion_but", obstacle=obstacle), is_ready=False)


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


def lacks_to_compile() -> Text | None:
    """What compiling a model for a GPU would not find on this machine, where triton looks for it."""
    compilers = [cc] if (cc := os.environ.get("CC")) else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return say("models.no_compiler", compilers=compilers)
    headers = Path(sysconfig.get_path("include"))
    return None if (headers / "Python.h").is_file() else say("models.no_headers", folder=headers)
