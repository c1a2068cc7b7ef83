"""Engines by name. A new engine is its module and one line here."""

from ..contract.stages import EngineName
from .base import Engine


def create_engine(name: EngineName) -> Engine:
    """The engine called `name`; its libraries are imported only now.

    Raises:
        ValueError: no such engine is installed.
    """
    if name is EngineName.DRAFT:
        from .draft import DraftEngine

        return DraftEngine()
    raise ValueError(f"engine {name!r} is not installed")
