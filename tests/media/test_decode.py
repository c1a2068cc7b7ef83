import importlib.util
import io
import itertools
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode
from ad_agent_mcp.media import decode
from ad_agent_mcp.media.decode import PictureLimits, check_picture, decode_picture, decoding
from ad_agent_mcp.media.headers import segments

from ..imaging.products import file_bytes

LIMITS = PictureLimits(max_bytes=2_000_000, max_pixels=4_000_000, max_side=3_000)


def refusal(data: bytes, limits: PictureLimits = LIMITS):
    with pytest.raises(AdAgentError) as caught:
        check_picture(data, limits, field="product_image")
    assert caught.value.info.code is ErrorCode.INVALID_REQUEST
    assert caught.value.info.field == "product_image"
    return caught.value.info.message


def plain(mode: str = "RGB", size: tuple[int, int] = (40, 30), colour: object = (200, 40, 30)):
    return Image.new(mode, size, colour)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, rows: bytes = b"", *chunks: bytes, depth: int = 8, colours: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(rows) if rows else b""),
            chunk(b"IEND", b""),
        )
    )


def png_of_samples(values, depth: int, colours: int, *chunks: bytes) -> Image.Image:
    """16 equal rows of `values`, each one sample, decoded."""
    bits = "".join(format(value, f"0{depth}b") for value in values)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    width = len(values) // (3 if colours == 2 else 1)
    return decode_picture(png(width, 16, row * 16, *chunks, depth=depth, colours=colours))


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
    assert "3,000" in refusal(png(2_999, 100_000))
    assert "4,000,000" in refusal(png(2_900, 2_900))
    refusal(png(60_000, 60_000))


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


def jpeg(**options: object) -> bytes:
    values = np.random.default_rng(3).integers(0, 255, (25, 25, 3), np.uint8)
    smooth = Image.fromarray(values).resize((200, 160), Image.Resampling.BICUBIC)
    return file_bytes(smooth, "JPEG", quality=85, **options)


KINDS_OF_JPEG = {
    "sequential": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 7},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 7},
}


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_a_jpeg_cut_off_under_an_end_mark_is_refused(kind, share):
    data = jpeg(**KINDS_OF_JPEG[kind])
    assert check_picture(data, LIMITS, field="x") == (200, 160)
    assert "cut off" in refusal(data[: int(share * len(data))] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["sequential", "with restarts"])
def test_a_jpeg_that_lost_a_piece_or_holds_zeros_is_refused(kind):
    data = jpeg(**KINDS_OF_JPEG[kind])
    half = len(data) // 2
    assert "damaged" in refusal(data[:half] + data[half + 200 :])
    assert "damaged" in refusal(data[:half] + bytes(700) + data[half + 700 :])
    assert "damaged" in refusal(data[:half] + b"\xff\x37" + data[half + 2 :])


@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_a_jpeg_is_decoded_as_it_is_whatever_lies_behind_its_end(kind):
    data = jpeg(**KINDS_OF_JPEG[kind])
    with Image.open(io.BytesIO(data)) as wanted:
        for odd in (data, data + b"more" * 100, data[:-2] + b"\xff\xff\xff\xd9"):
            assert check_picture(odd, LIMITS, field="x") == (200, 160)
            assert decode_picture(odd).tobytes() == wanted.tobytes()


def test_a_jpeg_of_hundreds_of_scans_is_refused_by_naming_the_limit():
    data = jpeg(progressive=True)
    found = list(segments(data))
    (_, start, _), (_, end, _) = [pair for pair in itertools.pairwise(found) if pair[0][0] == 0xDA][-1]
    assert "64" in refusal(data[:start] + data[start:end] * 300 + data[end:])


def test_a_png_with_a_wrong_checksum_is_refused():
    data = bytearray(file_bytes(plain()))
    data[data.index(b"IDAT") + 12] ^= 1
    assert "damaged" in refusal(bytes(data))


@pytest.mark.parametrize(
    "large",
    [
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(2 << 20))),
        chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(40 << 20))),
        b"".join(chunk(b"tEXt", b"Comment\0" + b"x" * 9_000) for _ in range(100)),
        chunk(b"tEXt", b"Comment\0x")[:-4] + bytes(4),
    ],
)
def test_a_png_is_read_whatever_is_said_beside_the_picture(large):
    data = png(40, 30, (b"\0" + bytes((200, 40, 30)) * 40) * 30, large)
    assert check_picture(data, LIMITS, field="x") == (40, 30)
    assert decode_picture(data).getpixel((5, 5)) == (200, 40, 30)


def test_a_png_in_countless_pieces_is_refused():
    assert "pieces" in refusal(png(40, 30, b"", chunk(b"tEXt", b"") * 110_000))


@pytest.mark.parametrize("where", ["iTXt", "zTXt"])
def test_a_png_turned_by_its_metadata_is_turned(where):
    image = plain(size=(40, 30))
    xmp = b'<x tiff:Orientation="6"/>'
    profile = b"\nexif\n      20\n" + b"4d4d002a00000008000101120003000000010006000000000000"
    body = (
        b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        if where == "iTXt"
        else b"Raw profile type exif\0\0" + zlib.compress(profile)
    )
    data = file_bytes(image)
    at = data.index(b"IDAT") - 4
    data = data[:at] + chunk(where.encode(), body) + data[at:]
    assert check_picture(data, LIMITS, field="x") == decode_picture(data).size == (30, 40)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ([chunk(b"cICP", bytes((12, 13, 0, 1)))], (255, 0, 0)),
        ([chunk(b"cICP", bytes((1, 13, 0, 1)))], (234, 51, 35)),
        ([chunk(b"cICP", bytes((2, 2, 0, 1)))], (234, 51, 35)),
        ([chunk(b"gAMA", struct.pack(">I", 100_000))], (245, 124, 103)),
        ([chunk(b"gAMA", struct.pack(">I", 45_455))], (234, 51, 35)),
        ([chunk(b"gAMA", bytes(4)), chunk(b"cHRM", bytes(32))], (234, 51, 35)),
        (
            [
                chunk(b"gAMA", struct.pack(">I", 45_455)),
                chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)),
            ],
            (255, 0, 0),
        ),
        (
            [
                chunk(b"sRGB", b"\0"),
                chunk(b"cHRM", struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)),
            ],
            (234, 51, 35),
        ),
    ],
)
def test_colours_told_by_code_or_numbers_are_converted(told, wanted):
    data = png(40, 30, (b"\0" + bytes((234, 51, 35)) * 40) * 30, *told)
    assert np.abs(np.subtract(decode_picture(data).getpixel((5, 5)), wanted)).max() <= 2


def test_white_stays_white_in_every_coded_colour_and_grey_stays_grey():
    for codes in itertools.product((1, 4, 5, 6, 9, 11, 12), (1, 4, 5, 8, 13, 16, 18)):
        data = png(
            40, 30, (b"\0" + bytes((255, 255, 255, 90, 90, 90)) * 20) * 30, chunk(b"cICP", bytes((*codes, 0, 1)))
        )
        decoded = decode_picture(data)
        assert decoded.getpixel((4, 4)) == (255, 255, 255)
        assert np.ptp(decoded.getpixel((5, 4))) <= 2


def test_an_avif_that_tells_its_colours_by_code_is_converted():
    data = file_bytes(plain(colour=(234, 51, 35)), "AVIF", quality=95, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    decoded = decode_picture(data[:at] + struct.pack(">H", 12) + data[at + 2 :]).getpixel((5, 5))
    assert np.abs(np.subtract(decoded, (255, 0, 0))).max() <= 6


def test_a_picture_far_too_large_is_told_so_in_every_format():
    avif = file_bytes(plain(size=(64, 64)), "AVIF")
    at = avif.index(b"ispe") + 8
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (16_999).to_bytes(3, "little") * 2
    photo = file_bytes(plain(), "JPEG")
    frame = photo.index(b"\xff\xc0") + 5
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x1cmeta\0\0\0\x14ispe\0\0\0\0"
    for data in (
        avif[:at] + struct.pack(">II", 17_000, 17_000) + avif[at + 8 :],
        webp,
        photo[:frame] + struct.pack(">HH", 17_000, 17_000) + photo[frame + 4 :],
        png(17_000, 17_000),
        heic + struct.pack(">II", 17_000, 17_000),
    ):
        message = refusal(data)
        assert "17000 x 17000" in message
        assert "3,000" in message


def test_few_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch):
    inside, most, lock, entered = 0, 0, threading.Lock(), threading.Semaphore(0)
    leave = threading.Event()

    def load(opened, **_):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        entered.release()
        assert leave.wait(20)
        with lock:
            inside -= 1

    monkeypatch.setattr(decode._Opened, "load", load)
    data = file_bytes(plain())
    threads = [threading.Thread(target=check_picture, args=(data, LIMITS), kwargs={"field": "x"}) for _ in range(12)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=20)
    assert entered.acquire(timeout=20)
    leave.set()
    for thread in threads:
        thread.join(20)
    assert most == 2


def test_too_little_memory_is_told_as_that(monkeypatch: pytest.MonkeyPatch):
    def load(opened, **_):
        raise MemoryError

    monkeypatch.setattr(decode._Opened, "load", load)
    for _ in range(3):  # a turn that failed is given back
        with pytest.raises(AdAgentError) as caught:
            check_picture(file_bytes(plain()), LIMITS, field="x")
        assert caught.value.info.code is ErrorCode.OUT_OF_MEMORY
        assert "40 x 30" in caught.value.info.message


def test_memory_is_asked_for_before_a_picture_is_decoded():
    with pytest.raises(AdAgentError) as caught, decoding(1 << 27, 1 << 27):
        pytest.fail("there is no such memory")
    assert caught.value.info.code is ErrorCode.OUT_OF_MEMORY


def test_garbage_is_refused():
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\xff\xd8\xff\xe0" + b"\1" * 80):
        refusal(data)


def test_heic_without_its_plug_in_is_refused_with_the_way_out():
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1miaf", b"hevc\0\0\0\0msf1hevc"):
        assert "pip install 'ad-agent-mcp[heic]'" in refusal(b"\0\0\0\x18ftyp" + brands + b"\0" * 64)


def test_heic_is_read_by_its_plug_in_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    class PlugIn:
        @staticmethod
        def register_heif_opener():
            def opened(file, _name):
                image = Image.new("RGB", (40, 30), (1, 2, 3))
                image.format = "HEIF"
                image.n_frames = 3
                return image

            Image.register_open("HEIF", opened, lambda prefix: prefix[4:8] == b"ftyp")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", PlugIn)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: PlugIn)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
    assert check_picture(data, LIMITS, field="x") == (40, 30)
    assert decode_picture(data).getpixel((5, 5)) == (1, 2, 3)


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


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_clear_grey_of_a_png_is_clear_at_every_depth(depth):
    values = [0, 1] * 8 if depth == 1 else [0, 1, 2, 3] * 4
    if depth == 16:
        values = [0x1201, 0x1200, 0x1301, 0xFFFF] * 4
    decoded = png_of_samples(values, depth, 0, chunk(b"tRNS", struct.pack(">H", values[1])))
    assert [decoded.getpixel((x, 3))[3] == 0 for x in range(16)] == [value == values[1] for value in values]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_clear_colour_of_a_png_is_clear_at_every_depth(depth):
    high = 0 if depth == 8 else 0x1200
    colours = [(high + 1, 2, 3), (high + 1, 2, 4), (high + 1, 2, 3), (high + 2, 2, 3)] * 4
    decoded = png_of_samples(
        [sample for colour in colours for sample in colour], depth, 2, chunk(b"tRNS", struct.pack(">HHH", *colours[0]))
    )
    assert [decoded.getpixel((x, 3))[3] == 0 for x in range(16)] == [colour == colours[0] for colour in colours]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_small_palette_keeps_its_transparency(depth):
    palette = chunk(b"PLTE", bytes(range(3 << depth)))
    alphas = [255, 90] if depth == 1 else [255, 90, 0]
    decoded = png_of_samples([0, 1] * 8, depth, 3, palette, chunk(b"tRNS", bytes(alphas)))
    assert [decoded.getpixel((x, 3))[3] for x in (0, 1)] == [255, 90]


def test_fully_opaque_alpha_is_dropped():
    data = file_bytes(plain("RGBA", colour=(10, 20, 30, 255)))
    assert decode_picture(data).mode == "RGB"


def test_decoding_and_fonts_load_no_array_library():
    code = "import sys, ad_agent_mcp.media.decode, ad_agent_mcp.media.fonts; print({'numpy','cv2'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
