"""Engines by name. A new engine is its package and a line in each function here."""

import importlib
from typing import TYPE_CHECKING

from ..config import Settings
from ..contract.stages import EngineInfo, EngineName
from ..models.catalog import preset_named
from ..models.library import ModelLibrary
from .diffusion.info import describe
from .draft.info import INFO

if TYPE_CHECKING:
    from .base import Engine


def describe_engine(name: EngineName, settings: Settings) -> EngineInfo:
    """What the engine called `name` says of itself; loads no arrays.

    Raises:
        AdAgentError: `model_unavailable`; a model is not there.
    """
    if name is EngineName.DRAFT:
        return INFO
    preset = preset_named(settings.preset)
    return describe(preset, ModelLibrary(settings).config(preset, preset.transformer))


def create_engine(name: EngineName, settings: Settings) -> "Engine":
    """The engine called `name`; its libraries are imported only now.

    Raises:
        AdAgentError: `model_unavailable`; a model is not there.
    """
    if name is EngineName.DRAFT:
        from .draft.engine import DraftEngine

        return DraftEngine()
    from .diffusion.engine import open_engine

    return open_engine(settings)


def import_engine(name: EngineName) -> None:
    """Import the libraries of the engine called `name`, which may take seconds. Touches no device.

    Raises:
        ImportError: one is not installed, or does not work here.
    """
    importlib.import_module(f".{name}.engine", __package__)
