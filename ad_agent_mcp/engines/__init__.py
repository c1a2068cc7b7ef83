"""Engines by name. A new engine is its module and one line here."""

from ..contract.errors import AdAgentError, ErrorCode
from ..contract.stages import EngineName
from .base import Engine


def create_engine(name: EngineName) -> Engine:
    """The engine called `name`; its libraries are imported only now.

    Raises:
        AdAgentError: `model_unavailable`; no such engine is installed.
    """
    if name is EngineName.DRAFT:
        from .draft import DraftEngine

        return DraftEngine()
    raise AdAgentError(
        ErrorCode.MODEL_UNAVAILABLE,
        f"The {name} engine is not installed here. Set AD_AGENT_ENGINE=draft (or pass test_mode true) to make the ad "
        "on the CPU.",
    )
