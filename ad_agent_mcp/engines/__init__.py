"""Engines by name. A new engine is its module and one line here."""

import importlib

from ..config import Settings
from ..contract.stages import EngineName
from .base import Engine


def create_engine(name: EngineName, settings: Settings) -> Engine:
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
