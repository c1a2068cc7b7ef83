"""Families of models that paint, a module each, by the names that they have as data in `models/families`."""

from ....contract.stages import Stage
from ..models import Models
from ..painter import Painter
from .flux1 import Flux1
from .sdxl import Sdxl

_PAINTERS = {"flux1": Flux1, "sdxl": Sdxl}


def open_painters(models: Models) -> dict[Stage, Painter]:
    """What paints each stage with the preset's models; loads no weights."""
    painters: dict[Stage, Painter] = {}
    for family in models.preset.families:
        if family.name in _PAINTERS:
            painters |= dict.fromkeys(family.infos, _PAINTERS[family.name](models))
    return painters
