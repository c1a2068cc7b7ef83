"""Products and photos drawn for the tests."""

import io

import numpy as np
from PIL import Image, ImageDraw


def bottle(height: int = 600) -> Image.Image:
    """RGBA: a green bottle with a pale label, its edge antialiased."""
    width = height * 2 // 5
    sheet = Image.new("RGBA", (width * 2, height * 2), (40, 110, 80, 0))
    draw = ImageDraw.Draw(sheet)
    unit = height * 2 / 100
    draw.rounded_rectangle((2 * unit, 30 * unit, 38 * unit, 98 * unit), 6 * unit, fill=(40, 110, 80, 255))
    draw.rectangle((14 * unit, 8 * unit, 26 * unit, 34 * unit), fill=(40, 110, 80, 255))
    draw.rounded_rectangle((13 * unit, 1 * unit, 27 * unit, 12 * unit), 2 * unit, fill=(30, 28, 33, 255))
    draw.rectangle((4 * unit, 50 * unit, 36 * unit, 80 * unit), fill=(240, 230, 205, 255))
    draw.ellipse((15 * unit, 55 * unit, 25 * unit, 65 * unit), fill=(200, 60, 50, 255))
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def photo(product: Image.Image, backdrop: str = "white", size: tuple[int, int] = (700, 800)) -> Image.Image:
    """RGB: `product` in the middle of a `white`, `gradient` or `stripes` backdrop, with sensor noise."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    if backdrop == "white":
        values = np.full((height, width, 3), 252.0)
    elif backdrop == "gradient":
        values = 210 - 50 * (y / height)[..., None] * np.array([1.0, 0.95, 0.9])
    else:
        values = 120 + 90 * (((x // 23 + y // 31) % 2)[..., None] - 0.5) * np.array([1.0, 0.6, 0.3])
    values = values + np.random.default_rng(5).normal(0, 1.0, (height, width, 3))
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGBA")
    image.alpha_composite(product, product_corner(product, size))
    return image.convert("RGB")


def product_corner(product: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Where `photo` puts the product's top left corner."""
    return (size[0] - product.width) // 2, (size[1] - product.height) // 2


def file_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """`image` as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jar(width: int = 500) -> Image.Image:
    """RGBA: a wide pale jar with a dark lid."""
    height = width * 3 // 4
    sheet = Image.new("RGBA", (width * 2, height * 2), (233, 205, 190, 0))
    draw = ImageDraw.Draw(sheet)
    draw.rounded_rectangle((20, height * 0.5, width * 2 - 20, height * 2 - 12), 60, fill=(233, 205, 190, 255))
    draw.rounded_rectangle((60, 10, width * 2 - 60, height * 0.6), 40, fill=(52, 44, 48, 255))
    draw.rectangle((width * 0.4, height * 0.95, width * 1.6, height * 1.6), fill=(250, 246, 240, 255))
    return sheet.resize((width, height), Image.Resampling.LANCZOS)
