"""Stored layers as pictures that fit into a message. Pillow only; blocks, so call it in a thread."""

import io
import threading
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from ..contract.errors import AdAgentError, ErrorCode
from ..contract.texts import say
from .decode import decoding
from .encode import PictureFormat, encode_picture

PREVIEW_SIDE_PX = 512
_QUALITIES = (92, 85, 75, 60, 45)
_DAMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What Pillow raises for a file that is cut off, or no picture."""
_PREVIEWING = threading.Lock()


def encode_fitting(path: Path, *, max_side: int | None, picture_format: PictureFormat, max_bytes: int) -> bytes:
    """One layer, made small enough: first by quality, then by size.

    Args:
        path: a PNG of ours, or a photo that was accepted.
        max_side: longest side in pixels, None for as it is.
        picture_format: JPEG lays transparent layers on white; PNG and WebP keep alpha.
        max_bytes: the most that may come back.

    Returns:
        The encoded picture.

    Raises:
        AdAgentError: the layer cannot be read; `out_of_memory`.
    """
    try:
        with Image.open(path) as stored, decoding(*stored.size):
            if max_side is not None:
                stored.draft(None, (2 * max_side, 2 * max_side))
            image = ImageOps.exif_transpose(stored)
            if max_side is not None:
                image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
            return _fitting(image, picture_format, max_bytes)
    except _DAMAGE as error:
        raise AdAgentError(ErrorCode.NOT_FOUND, say("media.layer_damaged", name=path.stem)) from error


def _fitting(image: Image.Image, picture_format: PictureFormat, max_bytes: int) -> bytes:
    while True:
        for quality in _QUALITIES if picture_format != "png" else (0,):
            data = encode_picture(image, picture_format, quality)
            if len(data) <= max_bytes:
                return data
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.LANCZOS)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded picture."""
    return Image.open(io.BytesIO(data)).size


def encode_preview(path: Path) -> bytes:
    """A JPEG of at most `PREVIEW_SIDE_PX`, small enough to go along with every answer."""
    with _PREVIEWING:  # everyone who follows a job asks when it ends: one decodes for all
        return _preview(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=16)
def _preview(path: Path, _changed_ns: int) -> bytes:
    return encode_fitting(path, max_side=PREVIEW_SIDE_PX, picture_format="jpeg", max_bytes=200_000)
