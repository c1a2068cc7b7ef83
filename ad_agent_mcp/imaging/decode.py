"""Pictures from outside: what is accepted, and the upright sRGB picture that the rest works on.

Pillow only, so that the light server process can refuse a bad file at once. Knows nothing about jobs.
"""

import importlib
import importlib.util
import io
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageCms, ImageOps

from ..contract.errors import AdAgentError, invalid

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
MIN_SIDE_PX = 16
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_PLAIN_SRGB = ("sRGB IEC61966", "sRGB built-in", "sRGB2014")
"""Profiles that change nothing; other names that hold "sRGB" may be linear."""
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged files."""


@dataclass(frozen=True)
class PictureLimits:
    """The largest picture that is accepted: file size in bytes, pixels, and longest side in pixels."""

    max_bytes: int
    max_pixels: int
    max_side: int


class PictureInfo(NamedTuple):
    """An accepted picture: its upright size in pixels."""

    width: int
    height: int


def check_picture(data: bytes, limits: PictureLimits, *, field: str) -> PictureInfo:
    """Refuse what cannot be used, before and after decoding it fully.

    Args:
        data: the whole file.
        limits: what is too large; sides and pixels are checked before anything is decoded.
        field: the request's field that named the picture.

    Raises:
        AdAgentError: `invalid_request`; the message names the limit and what to do.
    """
    if len(data) > limits.max_bytes:
        raise invalid(
            f"The picture has {len(data):,} bytes; the limit is {limits.max_bytes:,}. "
            "Save it as JPEG or WebP, or make it smaller.",
            field=field,
        )
    image = _open(data, field=field, limits=limits)
    width, height = image.size
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise _too_large(f"{width} x {height} pixels", limits, field=field)
    if min(width, height) < MIN_SIDE_PX:
        raise invalid(
            f"The picture is {width} x {height} pixels; each side must be at least {MIN_SIDE_PX}. Send a larger one.",
            field=field,
        )
    # Phones store a gain map or a second eye as further MPO frames; those are photos, not animations.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise invalid("The picture is animated. Send a single frame as PNG, JPEG, WebP or AVIF.", field=field)
    try:
        image.load()
        is_sideways = image.getexif().get(_ORIENTATION_TAG) in _SIDEWAYS
    except _DECODE_ERRORS as error:
        raise _damaged(error, field=field) from error
    return PictureInfo(height, width) if is_sideways else PictureInfo(width, height)


def decode_picture(data: bytes, *, field: str | None = None) -> Image.Image:
    """The picture upright, in sRGB.

    Returns:
        RGB, or RGBA (straight alpha) when at least one pixel is transparent; 8 bits per channel.

    Raises:
        AdAgentError: `invalid_request`; the file is damaged or no accepted format.
    """
    image = _open(data, field=field)
    try:
        image.load()
        profile = image.info.get("icc_profile")
        upright = _upright(image)
        has_alpha = upright.has_transparency_data
        alpha = upright.convert("RGBA").getchannel("A") if has_alpha else None
        rgb = _to_srgb(_to_8_bit(upright), profile)
        if alpha is None or alpha.getextrema() == (255, 255):
            return rgb
        rgb.putalpha(alpha)
    except _DECODE_ERRORS as error:
        raise _damaged(error, field=field) from error
    return rgb


def _open(data: bytes, *, field: str | None, limits: PictureLimits | None = None) -> Image.Image:
    formats: list[str] = list(FORMATS)
    if _is_heic(data):
        if importlib.util.find_spec("pillow_heif") is None:
            raise invalid(
                "HEIC pictures need an optional plug-in. Convert the picture to JPEG or PNG, "
                "or install ad-agent-mcp[heic] on the server.",
                field=field,
            )
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("far too many pixels", limits, field=field) from error
    except Image.UnidentifiedImageError as error:
        raise invalid(
            "The file is not a picture in an accepted format (PNG, JPEG, WebP, AVIF). Convert it to one of these.",
            field=field,
        ) from error
    except _DECODE_ERRORS as error:
        raise _damaged(error, field=field) from error


def _is_heic(data: bytes) -> bool:
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return any(brand in brands for brand in _HEIC_BRANDS) and b"avif" not in brands


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DECODE_ERRORS:
        return image  # a broken EXIF block says nothing about the pixels


def _to_8_bit(image: Image.Image) -> Image.Image:
    """`image` in a mode that colour management understands: L, RGB or CMYK."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        # convert() clips 16-bit grey at 255 instead of scaling it.
        wide = image if image.mode in ("I;16", "I") else image.convert("I")
        return wide.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    if image.mode == "LA":
        return image.getchannel("L")
    if image.has_transparency_data:
        return image.convert("RGBA").convert("RGB")
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    if isinstance(profile, bytes) and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if not ImageCms.getProfileDescription(source).startswith(_PLAIN_SRGB):
                target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, *_DECODE_ERRORS):
            pass  # a bad profile is worth no more than none
    converted = image.convert("RGB")
    return converted.copy() if converted is image else converted


def _too_large(what: str, limits: PictureLimits | None, *, field: str | None) -> AdAgentError:
    named = (
        f"; the limits are {limits.max_side:,} pixels a side and {limits.max_pixels:,} pixels in all" if limits else ""
    )
    return invalid(f"The picture has {what}{named}. Make it smaller.", field=field)


def _damaged(error: BaseException, *, field: str | None) -> AdAgentError:
    return invalid(f"The picture cannot be decoded ({error}); it may be cut off. Send it again.", field=field)
