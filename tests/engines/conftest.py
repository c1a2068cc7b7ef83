"""Model folders, built at most once a session and only when a test asks."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 with guidance embeddings."""
    from .tiny_models import build_flux

    return build_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="session")
def tiny_flux_schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 without guidance embeddings."""
    from .tiny_models import build_flux

    return build_flux(tmp_path_factory.mktemp("schnell"), guidance_embeds=False)


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL base."""
    from .tiny_models import build_sdxl

    return build_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def tiny_controlnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet for `tiny_sdxl`."""
    from .tiny_models import build_controlnet

    return build_controlnet(tmp_path_factory.mktemp("controlnet"))
