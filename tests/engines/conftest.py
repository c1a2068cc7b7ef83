"""Model folders, built at most once a session and only when a test asks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ad_agent_mcp.config import Settings
from ad_agent_mcp.models.catalog import preset_named
from ad_agent_mcp.models.library import ModelLibrary


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


@pytest.fixture(scope="session")
def tiny_segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BiRefNet."""
    from .tiny_models import build_segmentation

    return build_segmentation(tmp_path_factory.mktemp("segmentation"))


@pytest.fixture(scope="session")
def tiny_settings(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_flux: Path,
    tiny_flux_schnell: Path,
    tiny_sdxl: Path,
    tiny_controlnet: Path,
    tiny_segmentation: Path,
) -> Callable[[str], Settings]:
    """Settings of the diffusion engine by preset; the models of a preset are prepared when it is asked for."""
    from ad_agent_mcp.engines.diffusion.prepare import prepare

    root = tmp_path_factory.mktemp("prepared")

    def settings(name: str) -> Settings:
        chosen = Settings(
            data_dir=root / "data" / name,
            engine="diffusion",
            preset=name,
            flux_model=str(tiny_flux_schnell if name == "schnell" else tiny_flux),
            sdxl_model=str(tiny_sdxl),
            controlnet_model=str(tiny_controlnet),
            segmentation_model=str(tiny_segmentation),
            models_dir=root / "models",
            offline=True,
        )
        preset = preset_named(name)
        for component in preset.components:
            prepare(ModelLibrary(chosen), preset, component, progress=lambda done, total: None)
        return chosen

    return settings
