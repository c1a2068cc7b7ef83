"""What callers get wrong: each mistake is refused with a code and a next step, and leaves nothing behind."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, BlobResourceContents
from PIL import Image, ImageChops, ImageStat

from ..conftest import draw_product
from .support import SERVER, Place, call, connected, finish, refused

pytestmark = pytest.mark.anyio

QUICK = {"width": 256, "height": 256, "seed": 3}
LIMIT_BYTES = 200_000
PATIENCE_S = 5
UNKNOWN_ID = "01a205b1-6d95-7d9d-b70b-4e69506ec1dd"
PASSWORDS = "/etc/passwd"
_NEXT_STEP = re.compile(
    r"\b(Give|Send|send|Save|Make|Convert|Copy|Leave|Add|Set|Use|use|Call|call|Resize|remove|upload|must be|should be|"
    r"should have|did you mean|known|Nearest|needs|required|Allowed folders|lies outside|Pictures are|list_jobs|Tools|"
    r"Free|limit)\b"
)

Arguments = dict[str, Any]
ArgumentsOf = Callable[[Place], Arguments]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("bad-input")
    folder = home / "pictures"
    folder.mkdir()
    outside = home / "outside"
    outside.mkdir()
    draw_product().save(folder / "bottle.png")
    draw_product().save(outside / "secret.png")
    write_bad_files(folder)
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with contextlib.suppress(PermissionError):
        os.mknod(folder / "device.png", 0o020644, os.makedev(1, 5))
    settings = {"AD_AGENT_MAX_IMAGE_BYTES": str(LIMIT_BYTES), "AD_AGENT_QUEUE_SIZE": "20"}
    return Place(home / "data", folder, settings)


@pytest.fixture(scope="module")
async def client(place: Place) -> AsyncIterator[Client]:
    async with connected("stdio", place) as client:
        yield client


def png_of(size: tuple[int, int], pixels: bytes) -> bytes:
    """A PNG of 1-bit grey pixels with these compressed bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_bad_files(folder: Path) -> None:
    noise = Image.effect_noise((200, 200), 90)
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    for name, options in (("png", {}), ("gif", {}), ("webp", {"lossless": True})):
        frames[0].save(folder / f"animated.{name}", save_all=True, append_images=frames[1:], duration=100, **options)
    for name in ("png", "jpeg", "webp", "avif"):
        stream = io.BytesIO()
        noise.convert("RGB").save(stream, format=name)
        (folder / f"cut.{name}").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    (folder / "bomb.png").write_bytes(png_of((30_000, 30_000), zlib.compress(bytes(30_000 * 3_751), 9)))
    (folder / "pixels.png").write_bytes(png_of((8_000, 8_000), zlib.compress(bytes(8_000 * 1_001), 9)))
    (folder / "long.png").write_bytes(png_of((12_001, 64), zlib.compress(bytes(64 * 1_502), 9)))
    (folder / "text.png").write_text("this is no picture\n" * 20)
    (folder / "empty.png").touch()
    (folder / "tiny.png").write_bytes(png_of((8, 8), zlib.compress(bytes(16))))
    (folder / "phone.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(400))
    (folder / "fat.png").write_bytes(bytes(LIMIT_BYTES + 1))
    (folder / "folder.png").mkdir()


def stored(place: Place) -> set[str]:
    """Whatever belongs to a job or an upload."""
    return {str(path) for name in ("jobs", "active", "assets") for path in (place.data / name).iterdir()}


@contextlib.asynccontextmanager
async def nothing_happens(client: Client, place: Place) -> AsyncIterator[None]:
    """The block starts nothing, stores nothing, and does not hang."""
    before, total = stored(place), (await call(client, "list_jobs"))["total"]
    with anyio.fail_after(PATIENCE_S):
        yield
    assert stored(place) - before == set()
    assert (await call(client, "list_jobs"))["total"] == total


async def refuse(client: Client, place: Place, tool: str, arguments: Arguments, code: str) -> dict[str, Any]:
    """Make a call that has to be refused without a trace, saying what to do instead."""
    async with nothing_happens(client, place):
        result = await client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        error = (result.structured_content or {})["error"]
        text = "\n".join(getattr(block, "text", "") for block in result.content)
    assert error["code"] == code, error
    assert error["message"] in text
    assert error["fix"] or _NEXT_STEP.search(error["message"]), error["message"]
    assert len(error["message"]) <= 2000
    return error


def picture(name: str) -> ArgumentsOf:
    return lambda place: {"product_image": str(place.pictures / name)}


def given(**arguments: Any) -> ArgumentsOf:
    return lambda place: {"product_image": place.photo, **arguments}


def only(**arguments: Any) -> ArgumentsOf:
    return lambda place: arguments


BAD_PICTURES = {
    "base64 that is not base64": only(product_image="iVBORw0KGgo*" * 400),
    "a word": only(product_image="bottle"),
    "base64 with half a character": only(product_image="A"),
    "base64 of no picture": only(product_image=base64.b64encode(b"hello, this is no picture" * 9).decode()),
    "a data URI that is not base64": only(product_image="data:image/png,%89PNG"),
    "a data URI with damaged base64": only(product_image="data:image/png;base64,@@@@"),
    "a data URI without data": only(product_image="data:image/png;base64,"),
    "empty": only(product_image=""),
    "blank": only(product_image="   "),
    "a number": only(product_image=5),
    "a list": only(product_image=["bottle.png"]),
    "a text file": picture("text.png"),
    "an empty file": picture("empty.png"),
    "a file over the limit": picture("fat.png"),
    "a decompression bomb": picture("bomb.png"),
    "too many pixels": picture("pixels.png"),
    "too long a side": picture("long.png"),
    "too small": picture("tiny.png"),
    "HEIC without the plug-in": picture("phone.heic"),
    "a truncated PNG": picture("cut.png"),
    "a truncated JPEG": picture("cut.jpeg"),
    "a truncated WebP": picture("cut.webp"),
    "a truncated AVIF": picture("cut.avif"),
    "an animated GIF": picture("animated.gif"),
    "an animated PNG": picture("animated.png"),
    "an animated WebP": picture("animated.webp"),
    "a missing file": picture("nowhere.png"),
    "a directory": picture("folder.png"),
    "the root itself": picture("."),
    "a path through a file": picture("bottle.png/inner.png"),
    "a path outside": only(product_image=PASSWORDS),
    "a file URI outside": only(product_image=f"file://{PASSWORDS}"),
    "a file URI with an encoded way out": lambda place: {
        "product_image": f"file://{place.pictures}/%2e%2e/outside/secret.png"
    },
    "a file URI with a null byte": lambda place: {"product_image": f"file://{place.pictures}/a%00.png"},
    "a file URI that is none": only(product_image="file://[bad/a.png"),
    "a file URI of another machine": only(product_image="file://server/share/a.png"),
    "a path with a null byte": lambda place: {"product_image": f"{place.photo}\0.jpg"},
    "a way up": lambda place: {"product_image": f"{place.pictures}/../outside/secret.png"},
    "a relative way up": only(product_image="../outside/secret.png"),
    "a symlink out": picture("link.png"),
    "a folder symlink out": picture("linked/secret.png"),
    "a symlink loop": picture("loop.png"),
    "a symlink to a device": picture("zero.png"),
    "a FIFO": picture("pipe.png"),
    "a device": picture("device.png"),
    "the device outside": only(product_image="/dev/zero"),
    "the server's own stdin": only(product_image="/proc/self/fd/0"),
    "a name longer than names may be": only(product_image="x" * 300 + ".png"),
    "a path longer than paths may be": only(product_image="y/" * 4000 + ".png"),
    "the home of nobody": only(product_image="~nobody-of-this-name/a.png"),
    "an http address": only(product_image="http://example.com/a.png"),
    "an https address": only(product_image="HTTPS://example.com/a.png"),
    "another scheme": only(product_image="ftp://example.com/a.png"),
}

MISSING_PICTURES = {
    "no picture for step 1": (only(), "product_image"),
    "null for step 1": (only(product_image=None), "product_image"),
    "no picture for step 2": (only(start_step=2, text_content="Hi"), "step1_image"),
    "no picture for step 3": (only(start_step=3, text_content="Hi"), "step1_image"),
    "no lettering for step 3": (
        lambda place: {"start_step": 3, "text_content": "Hi", "step1_image": place.photo},
        "step2_image",
    ),
}

UNKNOWN_PICTURES = {
    "of an unknown job": f"ad://jobs/{UNKNOWN_ID}/step1.png",
    "with a way up": "ad://jobs/../../step1.png",
    "with a long way up": f"ad://jobs/{UNKNOWN_ID}/../../../../etc/passwd",
    "of no asset": "ad://assets/" + "0" * 32,
    "of an asset with a way up": "ad://assets/../jobs/x",
    "of nothing": "ad://",
    "of another kind": "ad://fonts/a.ttf",
}

BAD_VALUES = {
    "width as a word": (given(width="abc"), "width"),
    "width too small": (given(width=255), "width"),
    "width too large": (given(width=2049), "width"),
    "width with a fraction": (given(width=512.5), "width"),
    "width as a list": (given(width=[512]), "width"),
    "height negative": (given(height=-1), "height"),
    "seed negative": (given(seed=-1), "seed"),
    "seed too large": (given(seed=2**32), "seed"),
    "seed of 400 digits": (given(seed=10**400), "seed"),
    "strength over one": (given(strength=1.01), "strength"),
    "guidance_scale as the word nan": (given(guidance_scale="nan"), "guidance_scale"),
    "guidance_scale as the word inf": (given(guidance_scale="Infinity"), "guidance_scale"),
    "no iterations": (given(num_inference_steps=0), "num_inference_steps"),
    "composition_steps too many": (given(composition_steps=101), "composition_steps"),
    "start_step 4": (given(start_step=4), "start_step"),
    "pause_after_step 3": (given(pause_after_step=3), "pause_after_step"),
    "waiting for minutes": (given(wait_seconds=51), "wait_seconds"),
    "an unknown mode": (given(composition_mode="under"), "composition_mode"),
    "an unknown position": (given(text_position="left"), "text_position"),
    "product_lock as a word": (given(product_lock="maybe"), "product_lock"),
    "product_box of three": (given(product_box=[1, 2, 3]), "product_box"),
    "product_box without area": (given(product_box=[0, 0, 0, 9]), "product_box"),
    "product_box negative": (given(product_box=[-1, 0, 9, 9]), "product_box"),
    "product_box outside the photo": (given(product_box=[400, 0, 9, 9]), "product_box"),
    "product_box as half a JSON text": (given(product_box="[1, 2"), "product_box"),
    "product_box as JSON text of NaN": (given(product_box="[NaN, 1, 2, 3]"), "product_box"),
    "product_box as bottomless JSON text": (given(product_box="[" * 50_000), "product_box"),
    "an unknown font": (given(text_content="Hi", font_name="NanumSquare/NanumSquareX.ttf"), "font_name"),
    "a font by its path": (given(text_content="Hi", font_name="../../etc/passwd"), "font_name"),
    "a character of no font": (given(text_content="Hi \U0001f951"), "text_content"),
    "201 characters": (given(text_content="a" * 201), "text_content"),
    "a bell": (given(text_content="ding\x07"), "text_content"),
    "a null character": (given(text_content="a\0b"), "text_content"),
    "an escape sequence": (given(text_content="\x1b[31mred"), "text_content"),
    "a direction override": (given(text_content="abc\u202edef"), "text_content"),
    "a private character": (given(text_content="\ue000"), "text_content"),
    "words as an object": (given(text_content={"line": "Hi"}), "text_content"),
    "a prompt of 2001 characters": (given(bg_prompt="a" * 2001), "bg_prompt"),
    "a lettering prompt of 2001 characters": (given(text_model_prompt="a" * 2001), "text_model_prompt"),
}

BAD_IDS = {
    "unknown": (UNKNOWN_ID, "not_found"),
    "a way up": ("../../etc/passwd", "invalid_request"),
    "upper case": (UNKNOWN_ID.upper(), "not_found"),
    "braces": ("{" + UNKNOWN_ID + "}", "not_found"),
    "no hyphens": (UNKNOWN_ID.replace("-", ""), "not_found"),
    "a beginning": (UNKNOWN_ID[:13], "not_found"),
    "a null character": (UNKNOWN_ID[:-1] + "\0", "invalid_request"),
    "a line end": (UNKNOWN_ID + "\n", "not_found"),
    "a word": ("the blue one", "invalid_request"),
}

OTHER_BAD_CALLS = {
    "get_image of a layer that is none": ("get_image", {"job_id": UNKNOWN_ID, "name": "../job"}, "name"),
    "get_image too small": ("get_image", {"job_id": UNKNOWN_ID, "max_side": 15}, "max_side"),
    "get_image in another format": ("get_image", {"job_id": UNKNOWN_ID, "format": "gif"}, "format"),
    "list_jobs with no limit": ("list_jobs", {"limit": 0}, "limit"),
    "list_jobs in no state": ("list_jobs", {"status": "done"}, "status"),
    "status of a number": ("status", {"job_id": 7}, "job_id"),
    "approve_step with another action": ("approve_step", {"job_id": UNKNOWN_ID, "action": "yes"}, "action"),
    "approve_step with changes that are none": ("approve_step", {"job_id": UNKNOWN_ID, "changes": "x"}, "changes"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
async def test_a_picture_that_cannot_be_used_is_refused(name: str, client: Client, place: Place):
    if name == "a device" and not (place.pictures / "device.png").is_char_device():
        pytest.skip("only root can make a device file")
    error = await refuse(client, place, "generate", BAD_PICTURES[name](place), "invalid_request")
    assert error["field"] == "product_image"


@pytest.mark.parametrize("name", MISSING_PICTURES)
async def test_a_missing_picture_is_named(name: str, client: Client, place: Place):
    arguments, field = MISSING_PICTURES[name]
    error = await refuse(client, place, "generate", arguments(place), "invalid_request")
    assert error["field"] == field


@pytest.mark.parametrize("name", UNKNOWN_PICTURES)
async def test_a_reference_to_nothing_of_ours_is_not_found(name: str, client: Client, place: Place):
    error = await refuse(client, place, "generate", {"product_image": UNKNOWN_PICTURES[name]}, "not_found")
    assert error["field"] == "product_image"


async def test_a_malformed_job_in_a_reference_is_told_as_the_picture_it_is(client: Client, place: Place):
    error = await refused(client, "generate", product_image="ad://jobs/latest/final.png")
    assert error["code"] in ("invalid_request", "not_found")
    assert error["field"] == "product_image"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_base64_over_the_limit_is_refused_before_it_is_decoded(prefix: str, client: Client, place: Place):
    too_long = "*" * (LIMIT_BYTES * 4 // 3 + 8)  # decoding would call it damaged instead
    error = await refuse(client, place, "generate", {"product_image": prefix + too_long}, "invalid_request")
    assert f"{LIMIT_BYTES:,}" in error["message"]


async def test_a_picture_with_too_many_pixels_is_told_the_limits(client: Client, place: Place):
    for name in ("bomb.png", "pixels.png", "long.png"):
        error = await refuse(client, place, "generate", picture(name)(place), "invalid_request")
        assert "12,000" in error["message"], name
        assert "40,000,000" in error["message"], name


async def test_outside_the_roots_nobody_learns_what_exists(client: Client, place: Place):
    told = []
    for path in (PASSWORDS, "/etc/no-such-file-here"):
        error = await refused(client, "generate", product_image=path)
        told.append(error["message"].replace(path, "PATH"))
    assert told[0] == told[1]


@pytest.mark.parametrize("name", BAD_VALUES)
async def test_a_value_out_of_bounds_is_refused_by_its_name(name: str, client: Client, place: Place):
    arguments, field = BAD_VALUES[name]
    error = await refuse(client, place, "generate", arguments(place), "invalid_request")
    assert error["field"] == field
    assert field in error["message"] or error["fix"] or field == "font_name"


async def test_a_web_address_is_told_how_to_bring_the_picture(client: Client, place: Place):
    error = await refused(client, "generate", product_image="https://example.com/bottle.jpg")
    assert str(place.pictures) in error["message"]
    assert "ad://assets/" in error["message"]


async def test_an_unknown_font_is_told_the_nearest(client: Client, place: Place):
    error = await refused(
        client, "generate", product_image=place.photo, text_content="Hi", font_name="NanumSquare/NanumSquareX.ttf"
    )
    assert "NanumSquare/NanumSquareB.ttf" in error["message"]


async def test_a_character_of_no_font_is_named(client: Client, place: Place):
    error = await refused(client, "generate", product_image=place.photo, text_content="Avocado \U0001f951!")
    assert "\U0001f951" in error["message"]
    assert "U+1F951" in error["message"]


@pytest.mark.parametrize("name", BAD_IDS)
@pytest.mark.parametrize("tool", ["status", "stop", "get_image", "approve_step", "generate"])
async def test_a_wrong_job_id_is_refused(tool: str, name: str, client: Client, place: Place):
    job_id, code = BAD_IDS[name]
    field = "resume_job_id" if tool == "generate" else "job_id"
    error = await refuse(client, place, tool, {field: job_id}, code)
    assert error["field"] == field
    assert error["fix"]["tool"] == "list_jobs"


@pytest.mark.parametrize("name", OTHER_BAD_CALLS)
async def test_the_other_tools_check_their_arguments_too(name: str, client: Client, place: Place):
    tool, arguments, field = OTHER_BAD_CALLS[name]
    error = await refuse(client, place, tool, arguments, "invalid_request")
    assert error["field"] == field


async def test_a_tool_without_arguments_takes_what_a_client_makes_up_for_it(client: Client, place: Place):
    for tool in ("fonts", "health", "resources"):
        assert await call(client, tool, random_string="x", language=None)


async def test_without_an_id_the_call_is_about_the_job_that_fits_it(client: Client, place: Place):
    done = await call(client, "generate", product_image=place.photo, wait_seconds=40, **QUICK)
    words = {"text_content": ["봄", 50], "pause_after_step": 1, "bg_prompt": "", "resume_job_id": None}
    held = await call(client, "generate", product_image=place.photo, wait_seconds=40, **words, **QUICK)
    assert held["parameters"]["text_content"] == "봄\n50"
    assert (await call(client, "status"))["job_id"] == held["job_id"]
    assert (await call(client, "status", job_id=f"ad://jobs/{held['job_id'].upper()}"))["job_id"] == held["job_id"]
    assert (await call(client, "get_image", max_side=64))["job_id"] == done["job_id"]
    again = await call(client, "approve_step", action="redo")
    assert again["parameters"]["seed"] != QUICK["seed"]
    assert (await finish(client, held["job_id"]))["waiting_for"] == "approval"
    assert (await call(client, "stop"))["job_id"] == held["job_id"]
    error = await refuse(client, place, "approve_step", {"action": "approve"}, "not_found")
    assert error["fix"]["tool"] == "list_jobs"


async def test_an_unknown_tool_is_told_the_known_ones(client: Client, place: Place):
    error = await refuse(client, place, "make_ad", {}, "not_found")
    assert "generate" in error["message"]


async def test_an_unknown_argument_is_told_its_nearest_name_and_the_fix_works(client: Client, place: Place):
    arguments = {"product_image": place.photo, "widht": 256, "height": 256, "seed": 1, "wait_seconds": 40}
    error = await refuse(client, place, "generate", arguments, "invalid_request")
    assert (error["field"], "'width'" in error["message"]) == ("widht", True)
    state = await call(client, error["fix"]["tool"], **error["fix"]["arguments"])
    assert state["status"] == "completed"
    assert state["parameters"]["width"] == 256
    far = await refuse(client, place, "generate", {"product_image": place.photo, "zzzz": 1}, "invalid_request")
    assert far["fix"] is None
    assert "bg_prompt" in far["message"]


@pytest.mark.parametrize(
    "uri",
    [
        "ad://jobs/../../etc/passwd",
        f"ad://jobs/{UNKNOWN_ID}",
        f"ad://jobs/{UNKNOWN_ID}/final.png",
        f"ad://jobs/{UNKNOWN_ID.upper()}/final.png",
        f"ad://jobs/{UNKNOWN_ID}/..%2F..%2Fetc%2Fpasswd.png",
        "ad://jobs/..%2F..%2Fetc/final.png",
        "ad://jobs/..%2F..%2Fetc%2Fpasswd",
        "ad://jobs/%2Fetc%2Fpasswd",
        f"ad://jobs/{UNKNOWN_ID}/layout.json",
        "ad://jobs/../layout.json",
        "ad://assets/..%2Fjobs",
        "ad://assets/%2Fetc%2Fpasswd",
        "ad://assets/" + "0" * 32,
        f"file://{PASSWORDS}",
        "ad://nothing",
    ],
)
async def test_a_resource_that_is_not_there_is_an_error_without_content(uri: str, client: Client, place: Place):
    async with nothing_happens(client, place):
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert "root:" not in str(caught.value)
    assert str(place.data) not in str(caught.value)


async def test_a_resource_of_a_real_job_leads_nowhere_else(client: Client, place: Place):
    job = await call(client, "generate", product_image=place.photo, wait_seconds=40, **QUICK)
    for rest in ("job.json", "inputs/product_image", "..%2F..%2Fstage_times.json", "%2e%2e/%2e%2e/x.png", "job.png"):
        with pytest.raises(MCPError):
            await client.read_resource(f"ad://jobs/{job['job_id']}/{rest}")
    for query in ("offset=-1", "length=0", "offset=abc", "length=-5", "offset=" + "9" * 40, "length=" + "9" * 5000):
        with pytest.raises(MCPError) as caught:
            await client.read_resource(f"ad://jobs/{job['job_id']}/final.png?{query}")
        assert caught.value.error.code == INVALID_PARAMS, query
    beyond = (await client.read_resource(f"ad://jobs/{job['job_id']}/final.png?offset=99999999")).contents[0]
    assert isinstance(beyond, BlobResourceContents)
    assert beyond.blob == ""


def test_numbers_that_are_none_are_refused_in_raw_json(place: Place):
    with raw_server(place) as ask:
        for word in ("NaN", "Infinity", "-Infinity", "1e999", "1e308"):
            for name in ("guidance_scale", "width", "product_box"):
                error = ask("generate", f'{{"product_image": {json.dumps(place.photo)}, "{name}": {word}}}')["error"]
                assert (error["code"], error["field"]) == ("invalid_request", name), word
        assert ask("list_jobs", "{}")["total"] == len(list((place.data / "jobs").iterdir()))


@contextlib.contextmanager
def raw_server(place: Place) -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """A server that is sent JSON text no client library would write."""
    process = subprocess.Popen(
        SERVER,
        env=place.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = threading.Timer(30, process.kill)
    deadline.start()

    def send(text: str) -> None:
        process.stdin.write(text + "\n")
        process.stdin.flush()

    def answer() -> dict[str, Any]:
        while True:
            message = json.loads(process.stdout.readline())
            if message.get("id") == 1:
                return message["result"]

    def ask(tool: str, arguments: str) -> dict[str, Any]:
        send(
            f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": '
            f'{{"name": "{tool}", "arguments": {arguments}}}}}'
        )
        return answer()["structuredContent"]

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    try:
        send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}))
        answer()
        send('{"jsonrpc": "2.0", "method": "notifications/initialized"}')
        yield ask
    finally:
        deadline.cancel()
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def decoded(client: Client, place: Place, reference: str, **arguments: Any) -> Image.Image:
    """The photo as the job understood it, after the job ended well."""
    state = await call(client, "generate", product_image=reference, wait_seconds=40, **QUICK, **arguments)
    assert state["status"] == "completed", state["error"]
    return product_of(place, state["job_id"])


def product_of(place: Place, job_id: str) -> Image.Image:
    with Image.open(place.data / "jobs" / job_id / "product.png") as product:
        product.load()
    return product


def saved(place: Place, name: str, image: Image.Image, **options: Any) -> str:
    path = place.pictures / name
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)
    return str(path)


def distance(first: Image.Image, second: Image.Image) -> float:
    """The mean difference of two pictures of one size, 0-255."""
    assert first.size == second.size
    difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
    return sum(ImageStat.Stat(difference).mean) / 3


async def test_a_cmyk_jpeg_keeps_its_colours(client: Client, place: Place):
    photo = saved(place, "cmyk.jpg", draw_product().convert("CMYK"), quality=95)
    assert distance(await decoded(client, place, photo), draw_product()) < 3


async def test_a_16_bit_grey_png_is_rescaled_and_not_clipped(client: Client, place: Place):
    grey = draw_product().convert("L")
    wide = Image.frombytes("I;16", grey.size, b"".join(struct.pack("<H", value * 257) for value in grey.tobytes()))
    product = await decoded(client, place, saved(place, "grey16.png", wide))
    mean = ImageStat.Stat(product.convert("L")).mean[0]
    assert abs(mean - ImageStat.Stat(grey).mean[0]) < 1
    assert distance(product, grey) < 1


async def test_a_palette_png_keeps_its_transparency(client: Client, place: Place):
    cut = draw_product().quantize(32)
    index = cut.getpixel((2, 2))
    product = await decoded(client, place, saved(place, "palette.png", cut, transparency=index))
    assert product.mode == "RGBA"
    assert product.getpixel((2, 2))[3] == 0
    assert product.getpixel((200, 250))[3] == 255


async def test_a_photo_turned_by_its_exif_stands_upright(client: Client, place: Place):
    upright = draw_product().crop((60, 0, 340, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    photo = saved(place, "turned.jpg", turned, exif=exif, quality=95)
    assert distance(await decoded(client, place, photo), upright) < 3


@pytest.mark.parametrize("name", ["modern.avif", "modern.webp", "여름 병 사진.png"])
async def test_the_formats_and_names_of_today_work(name: str, client: Client, place: Place):
    photo = saved(place, f"사진 폴더/{name}", draw_product())
    assert distance(await decoded(client, place, photo), draw_product()) < 4


async def test_every_way_to_give_one_picture_gives_the_same_picture(client: Client, place: Place):
    saved(place, "사진 폴더/one bottle.png", draw_product())
    stream = io.BytesIO()
    draw_product().save(stream, format="PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    lines = "\r\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    path = place.pictures / "사진 폴더" / "one bottle.png"
    references = {
        "bare base64": encoded,
        "base64 without padding": encoded.rstrip("="),
        "base64 in lines": lines,
        "a data URI": f"data:image/png;base64,{encoded}",
        "a data URI that names the wrong type": f"data:image/jpeg;charset=utf-8;base64,{encoded}",
        "a file URI": f"file://{urllib.parse.quote(str(path))}",
        "a file URI of this machine": f"file://localhost{urllib.parse.quote(str(path))}",
        "a path inside the root": "사진 폴더/one bottle.png",
        "a path with a detour": f"{place.pictures}/사진 폴더/../bottle.png",
    }
    jobs = {
        name: (await call(client, "generate", product_image=reference, **QUICK))["job_id"]
        for name, reference in references.items()
    }
    for name, job_id in jobs.items():
        assert (await finish(client, job_id))["status"] == "completed", name
        assert distance(product_of(place, job_id), draw_product()) == 0, name


async def test_a_jpeg_as_bare_base64_is_not_taken_for_a_path(client: Client, place: Place):
    stream = io.BytesIO()
    draw_product(64).save(stream, format="JPEG", quality=50)
    encoded = base64.b64encode(stream.getvalue()).decode()
    assert encoded.startswith("/9j/")
    assert (await decoded(client, place, encoded)).size == (64, 64)


async def test_a_product_box_may_come_as_json_text(client: Client, place: Place):
    state = await call(
        client, "generate", product_image=place.photo, product_box="[10,10,200,300]", wait_seconds=40, **QUICK
    )
    assert state["status"] == "completed"
    assert state["parameters"]["product_box"] == [10, 10, 200, 300]


@pytest.mark.parametrize("words", ["[50]", "nullable", "true", '{"a": 1}', "50", '"', "NaN"])
async def test_words_that_look_like_json_stay_words(words: str, client: Client, place: Place):
    state = await call(
        client, "generate", product_image=place.photo, text_content=words, pause_after_step=1, wait_seconds=40, **QUICK
    )
    assert state["parameters"]["text_content"] == words
    assert state["waiting_for"] == "approval"
    await call(client, "approve_step", job_id=state["job_id"], action="stop")


async def test_200_hangul_syllables_may_come_decomposed_as_macos_writes_them(client: Client, place: Place):
    state = await call(
        client,
        "generate",
        product_image=place.photo,
        text_content="\u1112\u1161\u11ab" * 200,
        pause_after_step=1,
        wait_seconds=40,
        **QUICK,
    )
    assert state["parameters"]["text_content"] == "한" * 200
    await call(client, "approve_step", job_id=state["job_id"], action="stop")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 8 MiB."""
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("small disks are made with Linux's mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of room; the file that takes it."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    return filler


@pytest.fixture
def crowded(small_disk: Path, place: Place) -> Place:
    return Place(small_disk / "data", place.pictures)


async def test_a_full_disk_refuses_a_job_and_keeps_no_half_of_it(crowded: Place):
    async with connected("stdio", crowded) as client:
        before = stored(crowded)
        filler = fill(crowded.data.parent)
        arguments = {"product_image": crowded.photo, **QUICK}
        for _ in range(2):
            await refuse(client, crowded, "generate", arguments, "storage_full")
        assert stored(crowded) == before
        filler.unlink()
        job = await call(client, "generate", **arguments)
        assert (await finish(client, job["job_id"]))["status"] == "completed"


async def test_a_disk_without_room_for_the_layers_fails_the_job_and_not_the_server(crowded: Place):
    async with connected("stdio", crowded) as client:
        filler = fill(crowded.data.parent)
        with filler.open("r+b") as file:
            file.truncate(filler.stat().st_size - 96 * 1024)  # room for the photo and the job, not for its layers
        arguments = {"product_image": crowded.photo, **QUICK, "width": 512, "height": 512}
        job = await call(client, "generate", **arguments)
        state = await finish(client, job["job_id"])
        assert (state["status"], state["error"]["code"]) == ("failed", "storage_full")
        assert state["step1_result"] is None
        assert [path.name for path in (crowded.data / "jobs").rglob(".*")] == []
        filler.unlink()
        again = await call(client, "generate", resume_job_id=job["job_id"], wait_seconds=50)
        assert again["status"] == "completed"


async def test_a_disk_that_fills_while_a_job_runs_fails_the_job_and_not_the_server(crowded: Place):
    async with connected("stdio", crowded) as client:
        arguments = {"product_image": crowded.photo, **QUICK, "width": 512, "height": 512}
        job = await call(client, "generate", **arguments)
        filler = fill(crowded.data.parent)
        state = await finish(client, job["job_id"], seconds=60)
        assert (state["status"], state["error"]["code"]) == ("failed", "storage_full")
        listed = (await call(client, "list_jobs"))["jobs"]
        assert [row["status"] for row in listed] == ["failed"]
        filler.unlink()
        again = await call(client, "generate", resume_job_id=job["job_id"], wait_seconds=50)
        assert again["status"] == "completed"


async def test_a_server_starts_on_a_full_disk_and_says_so(crowded: Place):
    async with connected("stdio", crowded) as client:
        await call(client, "health")
    filler = fill(crowded.data.parent)
    async with connected("stdio", crowded) as client:
        assert (await call(client, "list_jobs"))["total"] == 0
        await refuse(client, crowded, "generate", {"product_image": crowded.photo, **QUICK}, "storage_full")
        filler.unlink()
        job = await call(client, "generate", product_image=crowded.photo, **QUICK)
        assert (await finish(client, job["job_id"]))["status"] == "completed"
