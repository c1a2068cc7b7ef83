"""The HTTP wire as bytes: bodies that are no messages, clients that vanish, more connections than there is room for."""

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.sse import sse_client
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ad_agent_mcp.config import Settings
from ad_agent_mcp.http_api.listener import MAX_CONNECTIONS, Connection, listen
from ad_agent_mcp.mcp_api.server import open_app

from .support import SERVER, Place, call, http_server, refused, wait_until
from .test_stdio import BAD_LINES, ECHOES, HELLO, MEGABYTE, MODERN, UNANSWERED

pytestmark = pytest.mark.anyio
TOKEN = "correct-horse-battery-staple"
ORIGIN = "https://app.example"
ACCEPTED = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    home = tmp_path_factory.mktemp("wire")
    return Place(home / "data", pictures, {"AD_AGENT_MAX_IMAGE_BYTES": "200000", "AD_AGENT_ALLOWED_ORIGINS": ORIGIN})


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with http_server(place) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=20) as client:
        yield client


def log_of(url: str, place: Place) -> str:
    return (place.data.parent / f"http-{urlsplit(url).port}.log").read_text("utf-8")


async def test_small_answers_are_sent_without_waiting_for_more():
    accepted = asyncio.get_running_loop().create_future()
    listener = listen("127.0.0.1", 0)
    server = await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listener)
    async with server:
        _, ours = await asyncio.open_connection(*listener.getsockname())
        theirs = await accepted
        assert theirs.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for writer in (ours, theirs):
            writer.close()
            await writer.wait_closed()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body of the request."""
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


async def test_a_connection_that_asks_for_nothing_is_closed_and_one_that_is_being_served_is_not(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("ad_agent_mcp.http_api.listener.REQUEST_TIMEOUT_S", 0.02)
    config = uvicorn.Config(echo, http=Connection, log_config=None, lifespan="off", ws="none")
    server, listener = uvicorn.Server(config), listen("127.0.0.1", 0)
    listener.listen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        served, serves = await asyncio.open_connection(*listener.getsockname())
        serves.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n")
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: he"):
            silent, asks = await asyncio.open_connection(*listener.getsockname())
            asks.write(begun)
            with anyio.fail_after(20):
                assert await silent.read() == b""
            asks.close()
        serves.write(b"ok")
        with anyio.fail_after(20):
            assert (await served.read()).endswith(b"ok")  # and is closed when nothing more is asked for
        serves.close()
        server.should_exit = True


def test_bodies_that_an_ending_server_does_not_wait_for_are_no_tracebacks(place: Place):
    other = Place(place.data.parent / "ending" / "data", place.pictures)
    other.data.parent.mkdir()
    with contextlib.ExitStack() as clients, http_server(other) as url:
        for connection in clients.enter_context(connections(url, 3)):
            connection.sendall(b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\nabc")
        assert httpx2.get(f"{url}/health").status_code == 200
    told = log_of(url, other)
    assert told.count("Cancel 3 running task(s)") == 1
    assert "Traceback" not in told


def test_a_stream_that_is_open_when_the_server_ends_is_no_traceback(place: Place):
    other = Place(place.data.parent / "streaming" / "data", place.pictures)
    other.data.parent.mkdir()
    with contextlib.ExitStack() as clients, http_server(other) as url:
        stream = clients.enter_context(httpx2.stream("GET", f"{url}/sse", timeout=20))
        lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
        inbox = url + next(lines)
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
        assert httpx2.post(inbox, json=hello).status_code == 202
        assert '"result"' in next(lines)
    assert "Traceback" not in log_of(url, other)


# what is posted


@pytest.mark.parametrize("headers", [{}, {"mcp-protocol-version": "2026-07-28", "mcp-method": "ping"}])
def test_what_is_no_message_is_a_bad_request_in_json_rpc(headers: dict[str, str], http: httpx2.Client):
    for name, (line, code, request_id) in BAD_LINES.items():
        answer = http.post("/mcp", content=line, headers={**ACCEPTED, **headers})
        if name == "a line beyond the limit":
            assert answer.status_code == 413
            continue
        assert answer.status_code == 400, name
        assert (answer.json()["error"]["code"], answer.json()["id"]) == (code, request_id), name
    for name, line in UNANSWERED.items():
        if "that is none" in name or "another version" in name:
            assert http.post("/mcp", content=line, headers=ACCEPTED).status_code == 400, name


def test_what_is_no_message_is_a_bad_request_over_sse_too(http: httpx2.Client):
    with http.stream("GET", "/sse") as stream:
        path = next(line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
        for name, (line, code, request_id) in BAD_LINES.items():
            if name != "a line beyond the limit":
                answer = httpx2.post(f"{http.base_url}{path}", content=line)
                assert answer.status_code == 400, name
                assert (answer.json()["error"]["code"], answer.json()["id"]) == (code, request_id), name


def test_a_byte_order_mark_is_skipped(http: httpx2.Client):
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    answer = http.post("/mcp", content=b"\xef\xbb\xbf" + json.dumps(hello).encode(), headers=ACCEPTED)
    assert answer.status_code == 200
    assert '"serverInfo"' in answer.text


def test_a_megabyte_is_not_told_back(http: httpx2.Client):
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    session = http.post("/mcp", json=hello, headers=ACCEPTED).headers["mcp-session-id"]
    legacy = {**ACCEPTED, "mcp-session-id": session, "mcp-protocol-version": HELLO["protocolVersion"]}
    modern = {**ACCEPTED, "mcp-protocol-version": "2026-07-28"}
    for method, params in [*ECHOES, (MEGABYTE, {})]:
        for headers, own in ((legacy, {}), ({**modern, "mcp-method": method[:100]}, {"_meta": MODERN})):
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **own}}
            assert len(http.post("/mcp", json=message, headers=headers).content) < 20_000, method[:100]


@pytest.mark.parametrize("path", ["/mcp", "/messages/?session_id=0123456789abcdef0123456789abcdef", "/upload"])
def test_a_client_that_vanishes_in_its_body_is_one_line_of_the_log(path: str, place: Place, url: str):
    name = path.partition("?")[0]
    line = f"POST {name}: the client went away in its body"
    request = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    )
    before = log_of(url, place)
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as connection:
        connection.sendall(request.replace("application/json", "image/png").encode())
    wait_until(lambda: line in log_of(url, place).removeprefix(before), what="the line is logged")
    told = log_of(url, place).removeprefix(before)
    assert told.count("\n") == 1
    assert " INFO " in told


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
        ("application/json", b'{"image": "AAAA"}'),
        ("Application/JSON; charset=utf-8", b""),
        ("image/png", b""),
        (None, b""),
    ],
)
def test_an_upload_in_another_form_is_told_which_to_use(kind: str | None, body: bytes, http: httpx2.Client):
    answer = http.post("/upload", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "curl --data-binary @photo.jpg" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None]
)
def test_an_upload_of_bytes_is_kept_whatever_they_are_called(kind: str | None, place: Place, http: httpx2.Client):
    headers = {"content-type": kind} if kind else {}
    assert http.post("/upload", content=Path(place.photo).read_bytes(), headers=headers).status_code == 201


# where things are


async def test_a_slash_after_an_endpoint_changes_nothing(url: str):
    async with Client(f"{url}/mcp/") as client:
        assert (await call(client, "health"))["status"] == "ok"
    async with Client(sse_client(f"{url}/sse/")) as client:
        assert (await call(client, "health"))["status"] == "ok"
    async with httpx2.AsyncClient(base_url=url) as http:
        for path in ("/health/", "/metrics/"):
            assert (await http.get(path)).status_code == 200
        for path in ("/nowhere/", "/messages"):
            assert (await http.get(path)).status_code in (404, 405)


def test_the_root_says_what_this_is_and_tells_strangers_no_more(place: Place, http: httpx2.Client):
    welcome = http.get("/")
    assert welcome.status_code == 200
    for word in ("ad-agent-mcp", "/mcp", "/sse", "README"):
        assert word in welcome.text
    guarded = Place(place.data, place.pictures, {"AD_AGENT_TOKEN": TOKEN})
    with http_server(guarded) as url:
        assert httpx2.get(url).json() == welcome.json()
        assert httpx2.post(f"{url}/mcp/", json={}).status_code == 401
        assert httpx2.get(f"{url}/metrics/").status_code == 401


# which pages


ROUTES = [("GET", "/"), ("GET", "/health"), ("GET", "/metrics"), ("POST", "/upload"), ("POST", "/mcp"), ("GET", "/sse")]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("POST", "/messages/"), ("GET", "/files/x/final.png")])
def test_what_another_site_embeds_is_refused_on_every_route(method: str, path: str, http: httpx2.Client):
    assert http.request(method, path, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    if path != "/sse":
        for site in ("same-origin", "same-site", "none"):
            assert http.request(method, path, headers={"sec-fetch-site": site}).status_code != 403


def test_a_page_of_an_allowed_origin_is_another_site_and_let_in(http: httpx2.Client):
    page = {"origin": ORIGIN, "sec-fetch-site": "cross-site"}
    assert http.get("/health", headers=page).status_code == 200
    asked = {**page, "access-control-request-method": "POST"}
    assert http.options("/mcp", headers=asked).status_code == 200
    assert http.get("/health", headers={**page, "origin": "https://evil.example"}).status_code == 403


# too much of it


@contextlib.contextmanager
def connections(url: str, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", urlsplit(url).port or 0)
        yield [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(number)]


def test_requests_on_too_many_connections_are_told_so_and_the_log_stays_short(place: Place):
    other = Place(place.data.parent / "crowded" / "data", place.pictures)
    other.data.parent.mkdir()
    with http_server(other) as url:
        with connections(url, MAX_CONNECTIONS) as open_ones:
            for _ in range(20):
                assert httpx2.get(f"{url}/health").status_code == 503
            for connection in open_ones[:50]:
                connection.close()
            wait_until(lambda: httpx2.get(f"{url}/health").status_code == 200, what="there is room again")
        assert log_of(url, other).count("Exceeded concurrency limit") == 1


def test_a_server_without_descriptors_does_not_fill_its_log_and_recovers(place: Place):
    other = Place(place.data.parent / "narrow" / "data", place.pictures)
    other.data.parent.mkdir()
    narrow = ["/bin/sh", "-c", 'ulimit -n 64; exec "$0" "$@"', *SERVER]
    with http_server(other, command=narrow) as url:
        with connections(url, 100):
            wait_until(lambda: "out of system resource" in log_of(url, other), what="no connection can be accepted")
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"{url}/health", timeout=2.5)
        wait_until(lambda: answers(url), what="there is room again")
        assert len(log_of(url, other)) < 20_000


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


async def test_a_lack_of_descriptors_is_told_as_what_it_is(
    settings: Settings, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = os.open

    def open_no_picture(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("bottle.png"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", open_no_picture)
    async with open_app(settings) as app, Client(app.server) as client:
        error = await refused(client, "generate", product_image=str(pictures / "bottle.png"))
    assert error["code"] == "busy"
    assert "file descriptors" in error["message"]
    assert error["retry_after_seconds"]
