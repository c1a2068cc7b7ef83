"""Finished ads rendered again from what their folders hold."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ad_agent_mcp.contract.document import Document, read_document
from ad_agent_mcp.imaging.picture import encode_png
from ad_agent_mcp.pipeline.render import render, stack

JOBS_OF_VERSION_1 = Path(__file__).parents[1] / "data" / "jobs-0.1.zip"


def document_of(folder: Path) -> Document:
    return read_document((folder / "layout.json").read_bytes())


def rendered_again(folder: Path) -> bytes:
    """The ad in `folder` from its document and its layers alone, as the one encoder writes it."""
    document = document_of(folder)
    layers = {}
    for layer in stack(document):
        with Image.open(folder / layer.file) as image:
            layers[layer.file] = np.array(image)
    return encode_png(render(document, layers))


def jobs_of_version_1(data_dir: Path) -> dict[str, Path]:
    """The jobs that 0.1 stored, in `data_dir`: their folders by id."""
    with zipfile.ZipFile(JOBS_OF_VERSION_1) as stored:
        stored.extractall(data_dir)
    return {folder.name: folder for folder in (data_dir / "jobs").iterdir()}
