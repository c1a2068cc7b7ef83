"""Pictures for clients as files: the one encoder of Pillow's images. Layers are arrays, which `imaging` encodes."""

import io
from typing import Literal

from PIL import Image

PictureFormat = Literal["jpeg", "png", "webp"]


def encode_picture(image: Image.Image, picture_format: PictureFormat, quality: int = 0) -> bytes:
    """`image` as a file.

    Args:
        image: any mode that the format has; JPEG lays RGBA on white.
        picture_format: PNG and WebP keep alpha.
        quality: 0-100; PNG has none.
    """
    buffer = io.BytesIO()
    match picture_format:
        case "png":
            image.save(buffer, "PNG")
        case "webp":
            image.save(buffer, "WEBP", quality=quality, method=2)
        case "jpeg":
            on_white(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def on_white(image: Image.Image) -> Image.Image:
    """`image` in RGB; where it is transparent, white shows through."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.getchannel("A"))
    return paper
