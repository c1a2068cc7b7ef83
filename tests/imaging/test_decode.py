import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.imaging.decode import PictureLimits, check_picture, decode_picture

from .products import file_bytes

LIMITS = PictureLimits(max_bytes=2_000_000, max_pixels=4_000_000, max_side=3_000)


def refusal(data: bytes, limits: PictureLimits = LIMITS):
    with pytest.raises(AdAgentError) as caught:
        check_picture(data, limits, field="product_image")
    assert caught.value.info.code is ErrorCode.INVALID_REQUEST
    assert caught.value.info.field == "product_image"
    return caught.value.info.message


def plain(mode: str = "RGB", size: tuple[int, int] = (40, 30), colour: object = (200, 40, 30)):
    return Image.new(mode, size, colour)


def png_header_only(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_every_accepted_format_is_read_and_told_with_its_size(kind):
    data = file_bytes(plain(), kind)
    assert check_picture(data, LIMITS, field="x") == (40, 30)
    assert decode_picture(data).size == (40, 30)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_are_refused(kind):
    assert "PNG" in refusal(file_bytes(plain(), kind))


def test_a_file_over_the_byte_limit_is_refused_by_naming_it():
    assert "1,000" in refusal(b"x" * 1001, PictureLimits(1000, 10_000, 1000))


def test_a_decompression_bomb_is_refused_without_being_decoded():
    assert "3,000" in refusal(png_header_only(2_999, 100_000))
    assert "4,000,000" in refusal(png_header_only(2_900, 2_900))
    refusal(png_header_only(60_000, 60_000))


def test_a_tiny_picture_is_refused():
    assert "16" in refusal(file_bytes(plain(size=(15, 300))))


def test_an_animation_is_refused():
    frames = [plain(colour=(index * 90, 0, 0)) for index in range(3)]
    for kind in ("WEBP", "PNG"):
        assert "animated" in refusal(file_bytes(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_a_cut_off_file_is_refused(kind):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8))
    data = file_bytes(noise, kind)
    refusal(data[: len(data) * 2 // 3])
    with pytest.raises(AdAgentError):
        decode_picture(data[: len(data) * 2 // 3])


def test_a_phone_photo_with_a_second_frame_is_a_photo():
    data = file_bytes(plain(), "MPO", save_all=True, append_images=[plain(colour=(1, 2, 3))])
    assert check_picture(data, LIMITS, field="x") == (40, 30)
    assert decode_picture(data).getpixel((5, 5))[0] > 150


def test_garbage_is_refused():
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\xff\xd8\xff\xe0" + b"\1" * 80):
        refusal(data)


def test_heic_without_its_plug_in_is_refused_with_the_way_out():
    assert "heic" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)


def test_a_sideways_photo_is_told_and_decoded_upright():
    image = plain(size=(40, 30))
    image.paste((0, 0, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_bytes(image, "PNG", exif=exif)
    info = check_picture(data, LIMITS, field="x")
    decoded = decode_picture(data)
    assert info == decoded.size == (30, 40)
    assert decoded.getpixel((28, 2)) == (0, 0, 255)


def test_a_colour_profile_is_applied_and_a_broken_one_ignored():
    red = plain(colour=(255, 0, 0))
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_picture(file_bytes(red, "PNG", icc_profile=xyz)).getpixel((5, 5)) == (255, 0, 0)
    assert decode_picture(file_bytes(red, "PNG", icc_profile=b"not a profile")).getpixel((5, 5)) == (255, 0, 0)
    swapped = xyz.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "odd1".encode("utf-16-be"))
    red_by_profile = decode_picture(file_bytes(plain(colour=(0, 255, 0)), "PNG", icc_profile=swapped)).getpixel((5, 5))
    assert red_by_profile[0] > 200 > red_by_profile[1]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert decode_picture(file_bytes(red, "PNG", icc_profile=lab)).mode == "RGB"


def test_cmyk_comes_out_in_its_colour():
    red = decode_picture(file_bytes(plain("CMYK", colour=(0, 255, 255, 0)), "JPEG")).getpixel((5, 5))
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    decoded = np.asarray(decode_picture(file_bytes(Image.fromarray(values))))
    assert np.abs(decoded[..., 0].astype(int) - np.round(values / 257).astype(int)).max() <= 1


def test_one_bit_and_grey_with_alpha_come_out_right():
    assert decode_picture(file_bytes(plain("1", colour=1))).getpixel((3, 3)) == (255, 255, 255)
    decoded = decode_picture(file_bytes(plain("LA", colour=(90, 120))))
    assert decoded.mode == "RGBA"
    assert decoded.getpixel((3, 3)) == (90, 90, 90, 120)


def test_a_palette_keeps_its_transparency():
    image = plain("P", colour=1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(0, (0, 0, 10, 10))
    data = file_bytes(image, "PNG", transparency=0)
    decoded = decode_picture(data)
    assert decoded.mode == "RGBA"
    assert decoded.getpixel((2, 2))[3] == 0
    assert decoded.getpixel((20, 20)) == (0, 255, 0, 255)


def test_fully_opaque_alpha_is_dropped():
    data = file_bytes(plain("RGBA", colour=(10, 20, 30, 255)))
    assert decode_picture(data).mode == "RGB"


def test_decoding_and_fonts_load_no_array_library():
    code = (
        "import sys, ad_agent_mcp.imaging.decode, ad_agent_mcp.imaging.fonts; print({'numpy','cv2'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
