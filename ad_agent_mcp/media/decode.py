"""Pictures from outside: what is accepted, and the upright sRGB picture that the rest works on.

Pillow only, so that the light server process can refuse a bad file at once. Knows nothing about jobs.
"""

import importlib
import importlib.util
import io
import struct
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageChops, ImageCms, ImageOps

from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.texts import TextError, say
from .headers import is_heic, stated_size, told_colour_codes
from .jpeg import MAX_SCANS, JpegStream, TooManyScansError
from .png import SIGNATURE, Png, read_png
from .profiles import coded_profile

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
MIN_SIDE_PX = 16
_BYTES_PER_PIXEL = 16
"""What decoding takes at most: WebP holds two frames, a copy of one, and the picture."""
_AT_ONCE = threading.BoundedSemaphore(2)
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


@contextmanager
def decoding(width: int, height: int) -> Generator[None]:
    """Hold one of the few turns to have a picture of so many pixels in memory. Blocks until there is one.

    Raises:
        AdAgentError: `out_of_memory`.
    """
    with _AT_ONCE:
        try:
            # Decoders tell a lack of memory as damage; what is reserved here is never touched and goes at once.
            bytes(_BYTES_PER_PIXEL * width * height)
            yield
        except MemoryError as error:
            raise AdAgentError(
                ErrorCode.OUT_OF_MEMORY,
                say(
                    "media.too_little_memory",
                    width=width,
                    height=height,
                    megabytes=_BYTES_PER_PIXEL * width * height >> 20,
                ),
            ) from error


def check_picture(data: bytes, limits: PictureLimits, *, field: str) -> PictureInfo:
    """Refuse what cannot be used, before and after decoding it fully.

    Args:
        data: the whole file.
        limits: what is too large; sides and pixels are checked before anything is decoded.
        field: the request's field that named the picture.

    Raises:
        AdAgentError: `invalid_request`; the message names the limit and what to do. `out_of_memory`.
    """
    if len(data) > limits.max_bytes:
        raise invalid(say("media.too_many_bytes", count=len(data), most=limits.max_bytes), field=field)
    width, height = stated_size(data) or (0, 0)
    _require_size(width, height, limits, field=field)
    with decoding(width, height):
        opened = _open(data, field=field)
        image = opened.image
        width, height = image.size
        _require_size(width, height, limits, field=field)
        if min(width, height) < MIN_SIDE_PX:
            raise invalid(say("media.too_few_pixels", width=width, height=height, least=MIN_SIDE_PX), field=field)
        if image.format != "HEIF" and getattr(image, "n_frames", 1) > 1:  # a HEIC's further pictures are no frames
            raise invalid(say("media.animated"), field=field)
        opened.load(field=field, is_check=True)
        is_sideways = _turn_of(image) in _SIDEWAYS
    return PictureInfo(height, width) if is_sideways else PictureInfo(width, height)


def decode_picture(data: bytes, *, field: str | None = None) -> Image.Image:
    """The picture upright, in sRGB.

    Returns:
        RGB, or RGBA (straight alpha) when at least one pixel is transparent; 8 bits per channel.

    Raises:
        AdAgentError: `invalid_request`; the file is damaged or no accepted format.
    """
    opened = _open(data, field=field)
    opened.load(field=field)
    image = opened.image
    try:
        if opened.png is not None and opened.png.key is not None:
            upright = _upright(image)
            alpha = _upright(_alpha_by_key(image, opened.png, opened.png.key))
        else:
            upright = _upright(image)
            alpha = upright.convert("RGBA").getchannel("A") if upright.has_transparency_data else None
        rgb = _to_srgb(_to_8_bit(upright), opened.profile)
        if alpha is None or alpha.getextrema() == (255, 255):
            return rgb
        rgb.putalpha(alpha)
    except _DECODE_ERRORS as error:
        raise _damaged(error, field=field) from error
    return rgb


class _Opened(NamedTuple):
    """A picture whose header was read, and what Pillow does not say about it."""

    image: Image.Image
    source: io.BytesIO
    profile: object
    png: Png | None

    def load(self, *, field: str | None, is_check: bool = False) -> None:
        """Decode it; only to see whether it can be, and all of it is there, where `is_check`. Raises AdAgentError."""
        source = self.source
        try:
            if not isinstance(source, JpegStream):
                self.image.load()
                return
            if is_check and source.other is None:
                self.image.draft(None, (1, 1))  # all of the file is read, an eighth of each side is made
            self.image.load()
            source.require_read_up()
            if is_check and source.other is not None:
                with Image.open(io.BytesIO(source.other), formats=("JPEG",)) as other:
                    if ImageChops.difference(self.image, other).getbbox(alpha_only=False) is not None:
                        raise TextError(say("media.jpeg_parts_missing"))
        except _DECODE_ERRORS as error:
            raise _damaged(error, field=field) from error


def _open(data: bytes, *, field: str | None) -> _Opened:
    formats: list[str] = list(FORMATS)
    if is_heic(data):
        if importlib.util.find_spec("pillow_heif") is None:
            raise invalid(say("media.heic"), field=field)
        importlib.import_module("pillow_heif").register_heif_opener()
        formats.append("HEIF")
    png = None
    try:
        if data.startswith(SIGNATURE):
            png = read_png(data)
            source = io.BytesIO(png.data)
        else:
            source = JpegStream(data) if data.startswith(b"\xff\xd8") else io.BytesIO(data)
        image = Image.open(source, formats=formats)
    except TooManyScansError as error:
        raise invalid(say("media.jpeg_scans", most=MAX_SCANS), field=field) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise invalid(say("media.far_too_many_pixels"), field=field) from error
    except Image.UnidentifiedImageError as error:
        raise invalid(say("media.unknown_format"), field=field) from error
    except _DECODE_ERRORS as error:
        raise _damaged(error, field=field) from error
    codes = told_colour_codes(data)
    profile = png.profile if png else image.info.get("icc_profile") or (codes and coded_profile(*codes))
    return _Opened(image, source, profile, png)


def _alpha_by_key(image: Image.Image, png: Png, key: tuple[int, ...]) -> Image.Image:
    """Clear (0) where a PNG's samples are those of its clear colour."""
    if png.depth < 16:
        scale = 255 // ((1 << png.depth) - 1)
        bands = [(band, value * scale) for band, value in zip(_bands(image), key, strict=True)]
    else:
        if image.mode == "RGB":
            low = Image.open(io.BytesIO(png.data), formats=("PNG",))
            # Read as if the other byte came first, each sample's low byte is what is kept of it.
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            halves = (image, low)
        else:
            samples = image.tobytes()
            halves = tuple(Image.frombytes("L", image.size, samples[at::2]) for at in (1, 0))
        wanted = ([value >> 8 for value in key], [value & 255 for value in key])
        bands = [
            pair for half, values in zip(halves, wanted, strict=True) for pair in zip(_bands(half), values, strict=True)
        ]
    alpha = Image.new("L", image.size, 0)
    for band, value in bands:
        alpha = ImageChops.lighter(alpha, band.point([0 if level == value else 255 for level in range(256)]))
    alpha.info.update(image.info)
    return alpha


def _bands(image: Image.Image) -> tuple[Image.Image, ...]:
    return (image.convert("L"),) if image.mode == "1" else image.split()


def _turn_of(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except _DECODE_ERRORS:
        return None  # a broken EXIF block says nothing about the pixels


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
            if image.mode == "L" and profile[16:20] == b"RGB ":
                image = image.convert("RGB")
            if not ImageCms.getProfileDescription(source).startswith(_PLAIN_SRGB):
                target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
                converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, *_DECODE_ERRORS):
            pass  # a bad profile is worth no more than none
    converted = image.convert("RGB")
    return converted.copy() if converted is image else converted


def _require_size(width: int, height: int, limits: PictureLimits, *, field: str) -> None:
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise invalid(
            say("media.too_many_pixels", width=width, height=height, side=limits.max_side, pixels=limits.max_pixels),
            field=field,
        )


def _damaged(error: BaseException, *, field: str | None) -> AdAgentError:
    return invalid(say("media.damaged", reason=error), field=field)
