"""Photos to measure with: a bottle, with the texture that makes a photo slow to decode."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageFilter

from tests.imaging.products import bottle, photo

KINDS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92}, "PNG": {}, "WebP": {"quality": 90}}
SIZES = {"1 MP": (1000, 1000), "8 MP": (3264, 2448)}


def photographs(folder: Path) -> dict[str, str]:
    """The paths of the photos in `folder` by what they are, as in `8 MP JPEG`; drawn unless they are there."""
    found: dict[str, str] = {}
    for name, size in SIZES.items():
        paths = {kind: folder / f"{name}.{kind.lower()}" for kind in KINDS}
        if not all(path.exists() for path in paths.values()):
            picture = _photograph(size)
            for kind, path in paths.items():
                picture.save(path, kind, **KINDS[kind])
        found |= {f"{name} {kind}": str(path) for kind, path in paths.items()}
    return found


def _photograph(size: tuple[int, int]) -> Image.Image:
    grain = Image.effect_noise(size, 20).filter(ImageFilter.GaussianBlur(0.8))
    texture = Image.merge("RGB", [grain] * 3)
    return ImageChops.add(photo(bottle(size[1] * 3 // 4), "gradient", size), texture, offset=-128)
