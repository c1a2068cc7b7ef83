"""What docs/security.md promises, tried from outside: each test is an attack, or a mistake that would open a door."""

import contextlib
import hashlib
import io
import shutil
import socket
import sys
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from ad_agent_mcp.config import Settings
from ad_agent_mcp.http_api import request_body as bodies
from ad_agent_mcp.http_api import server as http_module
from ad_agent_mcp.mcp_api.server import open_app

from ..conftest import draw_product
from .support import Place, call, finish, http_server, processes_of, refused, wait_until
from .test_bad_input import png_of

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
LIMIT_BYTES = 200_000
ORIGIN = "https://app.example"
UNKNOWN_ID = "01a205b1-6d95-7d9d-b70b-4e69506ec1dd"
SCRIPT = b"<script>alert('polyglot')</script>"
SEALED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    home = tmp_path_factory.mktemp("security")
    (home / "token").write_text(f"{TOKEN}\n")
    settings = {
        "AD_AGENT_TOKEN_FILE": str(home / "token"),
        "AD_AGENT_ALLOWED_HOSTS": "Ads.example",
        "AD_AGENT_ALLOWED_ORIGINS": ORIGIN,
        "AD_AGENT_MAX_IMAGE_BYTES": str(LIMIT_BYTES),
    }
    return Place(home / "data", pictures, settings)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with http_server(place) as url:
        yield url


@pytest.fixture
def stranger(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def owner(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=10, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client


@contextlib.asynccontextmanager
async def agent(url: str) -> AsyncIterator[Client]:
    """An MCP client with the token."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


def polyglot() -> bytes:
    """A picture that is a web page too."""
    stream = io.BytesIO()
    draw_product(200).save(stream, format="PNG")
    return stream.getvalue() + SCRIPT


@pytest.fixture(scope="module")
def job_id(url: str) -> str:
    """A finished job, made from an upload that claims to be a page."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "text/html"}
    sent = httpx2.post(f"{url}/upload", content=polyglot(), headers=headers)
    assert sent.status_code == 201

    async def make() -> str:
        async with agent(url) as client:
            job = await call(client, "generate", product_image=sent.json()["uri"], width=256, height=256, seed=3)
            assert (await finish(client, job["job_id"]))["status"] == "completed"
            return job["job_id"]

    return anyio.run(make)


def raw(url: str, *lines: str, body: bytes = b"") -> int:
    """The status of a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        return int(connection.makefile("rb").readline().split()[1])


# who is let in


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/upload", "/metrics", "/nowhere"])
def test_a_preflight_to_a_host_that_is_not_ours_is_refused(path: str, stranger: httpx2.Client):
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    assert stranger.options(path, headers=asked).status_code == 200
    rebound = stranger.options(path, headers={**asked, "host": "evil.example"})
    assert rebound.status_code == 421
    assert "access-control-allow-origin" not in rebound.headers


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "[::1]:8000", "[::1]", "LOCALHOST", "ads.example", "ADS.example:8443", "localhost"]
)
def test_our_names_are_ours_with_any_port_and_in_any_case(host: str, url: str):
    assert raw(url, "GET /health HTTP/1.1", f"Host: {host}") == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:80@evil.example",
        "user@127.0.0.1",
        "user:secret@localhost",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:123456",
        "[::1]evil.example",
        "[::1].evil.example",
        "[::1",
        "localhost/evil",
        "localhost, evil.example",
        "evil.example:127.0.0.1",
        "2130706433",
        "0.0.0.0",
        "",
    ],
)
def test_a_host_with_anything_round_our_name_is_not_ours(host: str, url: str):
    assert raw(url, "GET /health HTTP/1.1", f"Host: {host}") == 421


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1")])
def test_no_host_and_two_hosts_are_refused(hosts: tuple[str, ...], url: str):
    assert raw(url, "GET /health HTTP/1.1", *(f"Host: {host}" for host in hosts)) == 400


def test_a_page_of_an_allowed_origin_can_read_why_it_was_refused(stranger: httpx2.Client, owner: httpx2.Client):
    for client, method, path, status in (
        (stranger, "GET", "/metrics", 401),
        (owner, "GET", "/nowhere", 404),
        (owner, "DELETE", "/upload", 405),
        (owner, "POST", "/upload", 400),
    ):
        refusal = client.request(method, path, headers={"origin": ORIGIN})
        assert (refusal.status_code, refusal.headers.get("access-control-allow-origin")) == (status, ORIGIN)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/files/{job}/final.png", 405),
        ("PUT", "/files/{job}/final.png", 405),
        ("DELETE", "/health", 405),
        ("POST", "/metrics", 405),
        ("PUT", "/upload", 405),
        ("TRACE", "/health", 405),
        ("CONNECT", "/health", 405),
        ("PROPFIND", "/files/", 404),
    ],
)
def test_other_methods_do_nothing(method: str, path: str, status: int, job_id: str, url: str, place: Place):
    target = path.format(job=job_id)
    assert raw(url, f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}") == status
    assert (place.data / "jobs" / job_id / "final.png").is_file()


def test_a_header_beyond_every_measure_is_refused_and_the_server_lives(url: str, owner: httpx2.Client):
    assert raw(url, "GET /health HTTP/1.1", "Host: localhost", f"X-Fill: {'a' * 200_000}") in (400, 431)
    assert owner.get("/metrics").status_code == 200


# what an answer carries


def test_every_answer_is_sealed_errors_too(owner: httpx2.Client, stranger: httpx2.Client, job_id: str, place: Place):
    picture = f"/files/{job_id}/final.png"
    etag = owner.get(picture).headers["etag"]
    place.data.rename(place.data.with_name("away"))
    try:
        fault = owner.post("/upload", content=polyglot())
    finally:
        place.data.with_name("away").rename(place.data)
    answers = {
        "open": (stranger.get("/health"), 200),
        "metrics": (owner.get("/metrics"), 200),
        "picture": (owner.get(picture), 200),
        "range": (owner.get(picture, headers={"range": "bytes=0-9"}), 206),
        "known": (owner.get(picture, headers={"if-none-match": etag}), 304),
        "bad range": (owner.get(picture, headers={"range": "bytes=9-1"}), 400),
        "beyond": (owner.get(picture, headers={"range": "bytes=99999999-"}), 416),
        "upload": (owner.post("/upload", content=polyglot()), 201),
        "bad upload": (owner.post("/upload", content=b"junk"), 400),
        "large upload": (owner.post("/upload", content=bytes(LIMIT_BYTES + 1)), 413),
        "no token": (stranger.get(picture), 401),
        "foreign page": (owner.get("/health", headers={"origin": "https://evil.example"}), 403),
        "foreign host": (owner.get("/health", headers={"host": "evil.example"}), 421),
        "no route": (owner.get("/nowhere"), 404),
        "no method": (owner.delete("/upload"), 405),
        "mcp": (owner.post("/mcp", content=b"junk"), 400),
        "preflight": (
            stranger.options("/mcp", headers={"origin": ORIGIN, "access-control-request-method": "POST"}),
            200,
        ),
        "fault": (fault, 500),
    }
    for name, (answer, status) in answers.items():
        assert answer.status_code == status, name
        assert {header: answer.headers.get(header) for header in SEALED} == SEALED, name
        assert answer.headers["cache-control"] in ("no-store", "private, no-cache"), name
        assert "server" not in answer.headers, name
    assert "Traceback" not in fault.text


# the token


def test_the_worker_never_gets_the_token_and_no_command_line_shows_it(url: str, place: Place):
    wait_until(lambda: processes_of(place)["worker"], what="the worker starts")
    found = processes_of(place)
    environment = found["worker"][0].environ()
    assert environment["AD_AGENT_DATA_DIR"] == str(place.data)
    assert not [name for name, value in environment.items() if "TOKEN" in name or TOKEN in value]
    assert not [process for process in (*found["server"], *found["worker"]) if TOKEN in " ".join(process.cmdline())]


def test_the_data_folder_is_closed_to_other_users(url: str, place: Place):
    assert place.data.stat().st_mode & 0o077 == 0


# pictures that attack


@pytest.mark.parametrize("name", ["product", "cutout", "step1", "final"])
def test_what_was_hidden_behind_a_picture_is_never_served(name: str, job_id: str, owner: httpx2.Client):
    served = owner.get(f"/files/{job_id}/{name}.png", headers={"accept": "text/html"})
    assert served.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(served.content)).format == "PNG"
    assert SCRIPT not in served.content


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
        b"GIF89a" + bytes(200),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
        b"\x89PNG\r\n\x1a\n" + SCRIPT,
    ],
    ids=["svg", "xml", "gif", "postscript", "png by its first bytes"],
)
def test_a_file_is_known_by_its_content_and_not_by_its_type(content: bytes, owner: httpx2.Client):
    assert owner.post("/upload", content=content, headers={"content-type": "image/png"}).status_code == 400


def test_a_picture_that_unpacks_to_far_more_than_it_shows_costs_no_memory(owner: httpx2.Client, place: Place):
    (server,) = processes_of(place)["server"]
    owner.post("/upload", content=polyglot())  # the decoder is loaded
    before = server.memory_info().rss
    body = zlib.compress(bytes(100 << 20), 9)
    pixels, words = png_of((64, 64), body), png_of((64, 64), zlib.compress(bytes(64 * 9)))
    chunk = b"zTXtComment\0\0" + body
    bomb = words[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + words[33:]
    assert len(bomb) < LIMIT_BYTES
    assert owner.post("/upload", content=bomb).status_code == 201  # words in a picture are not read
    assert owner.post("/upload", content=pixels).status_code in (201, 400)
    assert server.memory_info().rss - before < 50 << 20


@pytest.mark.parametrize(("then", "status"), [("nothing", 408), ("http.disconnect", 400)])
async def test_an_upload_that_never_ends_or_is_torn_is_given_up(
    then: str, status: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.05)
    sent: list[dict] = []

    async def receive() -> dict:
        if sent or asked:
            if then == "nothing":
                await anyio.sleep_forever()
            return {"type": then}
        asked.append(True)
        return {"type": "http.request", "body": b"\x89PNG", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    asked: list[bool] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/upload",
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
        "http_version": "1.1",
    }
    async with open_app(settings, is_remote=True) as app:
        served = http_module.build_http_app(app, token=None, bound_host="127.0.0.1")
        with anyio.fail_after(20):
            await served(scope, receive, send)
    assert sent[0]["status"] == status


# files


@pytest.mark.parametrize(
    "target",
    [
        "/files/../../../../etc/passwd.png",
        "/files/%2e%2e/%2e%2e/etc/passwd.png",
        "/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd.png",
        "/files/{job}/%2e%2e%2f{job}%2ffinal.png",
        "/files/{job}/../{job}/final.png",
        "/files/{job}/final%00.png",
        "/files/{job}%00/final.png",
        "/files/{job}/final.png%00",
        "/files//{job}/final.png",
        "/files/{job}/FINAL.png",
        "/files/{job}/inputs%2fproduct_image.png",
        "/files/{job}/%ff%fe.png",
        "//files/{job}/final.png",
    ],
)
def test_no_spelling_of_a_path_leads_out_of_a_jobs_layers(target: str, job_id: str, url: str):
    line = f"GET {target.format(job=job_id)} HTTP/1.1"
    assert raw(url, line, "Host: localhost", f"Authorization: Bearer {TOKEN}") == 404


async def test_links_in_the_data_folder_lead_nowhere(job_id: str, url: str, owner: httpx2.Client, place: Place):
    secret = place.data.parent / "outside"
    secret.mkdir()
    draw_product(64).save(secret / "final.png")
    linked_file, linked_folder, asset = str(uuid.uuid4()), str(uuid.uuid4()), "0" * 32
    shutil.copytree(place.data / "jobs" / job_id, place.data / "jobs" / linked_file)
    record = place.data / "jobs" / linked_file / "job.json"
    record.write_text(record.read_text().replace(job_id, linked_file))
    (place.data / "jobs" / linked_file / "final.png").unlink()
    (place.data / "jobs" / linked_file / "final.png").symlink_to(secret / "final.png")
    (place.data / "jobs" / linked_folder).symlink_to(secret)
    (place.data / "assets" / asset).symlink_to(secret / "final.png")
    assert owner.get(f"/files/{linked_file}/step1.png").status_code == 200
    async with agent(url) as client:
        for job in (linked_file, linked_folder):
            assert owner.get(f"/files/{job}/final.png").status_code == 404
            with pytest.raises(MCPError):
                await client.read_resource(f"ad://jobs/{job}/final.png")
            assert (await refused(client, "get_image", job_id=job))["code"] == "not_found"
        with pytest.raises(MCPError):
            await client.read_resource(f"ad://assets/{asset}")
        for uri in (f"ad://jobs/{linked_file}/final.png", f"ad://assets/{asset}"):
            assert (await refused(client, "generate", product_image=uri))["code"] == "not_found"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=abc", 400),
        ("bytes=5-2", 400),
        ("lines=0-1", 400),
        ("bytes=", 400),
        ("bytes=0-0,-1", 206),
        ("bytes=99999999-", 416),
        ("bytes=0-99999999", 206),
        ("bytes=" + ",".join(["0-"] * 2000), 200),
        ("bytes=" + ",".join(f"{start}-{start}" for start in range(0, 4000, 2)), 200),
    ],
    ids=["words", "backwards", "unit", "nothing", "two", "beyond", "over the end", "same 2000 times", "2000 pieces"],
)
def test_strange_ranges_cost_no_more_than_the_picture(asked: str, status: int, job_id: str, owner: httpx2.Client):
    path = f"/files/{job_id}/final.png"
    size = len(owner.get(path).content)
    answer = owner.get(path, headers={"range": asked})
    assert answer.status_code == status
    assert len(answer.content) <= size + 500


# an agent that was talked into something


async def test_a_web_address_is_not_even_connected_to(url: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with agent(url) as client:
            for reference in (
                f"http://{address}/a.png",
                f"//{address}/a.png",
                f"file://{address}/a.png",
                f"ftp://{address}/a",
            ):
                assert (await refused(client, "generate", product_image=reference))["code"] == "invalid_request"
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_no_tool_deletes_and_a_job_that_is_over_stays_as_it_is(job_id: str, url: str, place: Place):
    folder = place.data / "jobs" / job_id

    def hashes() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}

    before = hashes()
    async with agent(url) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert not [
            name for name in tools if any(word in name for word in ("delete", "remove", "write", "run", "fetch"))
        ]
        assert (await call(client, "stop", job_id=job_id, force=True))["status"] == "completed"
        assert (await refused(client, "approve_step", job_id=job_id, action="stop"))["code"] == "invalid_request"
        await refused(client, "approve_step", job_id=job_id, action="redo", changes={"bg_prompt": "nothing"})
    assert hashes() == before


# the pipe and stdout


async def test_whatever_prints_in_server_or_worker_corrupts_no_message(tmp_path: Path, pictures: Path):
    code = """
import os, sys, anyio
from functools import partial
from ad_agent_mcp.config import Settings
from ad_agent_mcp.mcp_api.stdio import serve_stdio
from ad_agent_mcp.mcp_api.context import AppContext
health = AppContext.health
async def noisy(context, *arguments):
    print("a library says hello", flush=True)
    os.write(1, b"and so does C")
    return await health(context, *arguments)
AppContext.health = noisy
anyio.run(partial(serve_stdio, Settings(), command=(sys.executable, "-m", "tests.workers.noisy")))
"""
    place = Place(tmp_path / "data", pictures)
    parameters = StdioServerParameters(command=sys.executable, args=["-c", code], env=place.environment())
    async with Client(parameters) as client:
        assert (await call(client, "health"))["status"] == "ok"
        job = await call(client, "generate", product_image=place.photo, text_content="Hi", width=256, height=256)
        assert (await finish(client, job["job_id"]))["status"] == "completed"
        assert (await call(client, "health"))["worker_restarts"] == 0
