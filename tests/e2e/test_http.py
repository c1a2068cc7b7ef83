"""The HTTP server's doors: who is let in, and what its plain routes answer."""

import hashlib
import io
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from ..conftest import draw_product
from .support import SERVER, Place, call, finish, http_server

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"
LIMIT_BYTES = 200_000
UNKNOWN_ID = "01a205b1-6d95-7d9d-b70b-4e69506ec1dd"
ROUTES = (
    ("GET", "/health"),
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("GET", "/sse"),
    ("POST", "/messages/?session_id=00000000000000000000000000000000"),
    ("POST", "/upload"),
    ("GET", f"/files/{UNKNOWN_ID}/final.png"),
    ("GET", "/metrics"),
    ("GET", "/dashboard"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/upload"),
)
BEHIND_THE_TOKEN = tuple(route for route in ROUTES if route[1] != "/health")
QUICK = {"width": 256, "height": 256, "seed": 3}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def open_place(tmp_path_factory: pytest.TempPathFactory, pictures) -> Place:
    return Place(tmp_path_factory.mktemp("open") / "data", pictures, {"AD_AGENT_MAX_IMAGE_BYTES": str(LIMIT_BYTES)})


@pytest.fixture(scope="module")
def open_url(open_place: Place) -> Iterator[str]:
    """A server on loopback as it comes: no token."""
    with http_server(open_place) as url:
        yield url


@pytest.fixture(scope="module")
def guarded_url(tmp_path_factory: pytest.TempPathFactory, pictures) -> Iterator[str]:
    """A server on every interface, with a token, a host name and an origin of its own."""
    settings = {
        "AD_AGENT_TOKEN": TOKEN,
        "AD_AGENT_ALLOWED_HOSTS": "ads.example",
        "AD_AGENT_ALLOWED_ORIGINS": "https://app.example",
    }
    place = Place(tmp_path_factory.mktemp("guarded") / "data", pictures, settings)
    with http_server(place, "--host", "0.0.0.0") as url:
        yield url


@pytest.fixture
def http(open_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=open_url, timeout=10) as client:
        yield client


@pytest.fixture
def guarded(guarded_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded_url, timeout=10) as client:
        yield client


def png(size: int = 64) -> bytes:
    stream = io.BytesIO()
    draw_product(size).save(stream, format="PNG")
    return stream.getvalue()


def answer(client: httpx2.Client, method: str, path: str, **options) -> tuple[int, httpx2.Headers]:
    """Status and headers alone: the body of an event stream has no end."""
    with client.stream(method, path, **options) as response:
        return response.status_code, response.headers


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_foreign_host_is_refused_on_every_route(method: str, path: str, http: httpx2.Client):
    assert answer(http, method, path, headers={"host": "evil.example"})[0] == 421


@pytest.mark.parametrize(
    "host", ["evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "evil", "[::2]"]
)
def test_a_host_that_only_looks_like_ours_is_refused(host: str, http: httpx2.Client):
    assert http.get("/health", headers={"host": host}).status_code == 421


def test_a_request_without_a_host_is_refused(open_url: str):
    with socket.create_connection(("127.0.0.1", urlsplit(open_url).port or 0), timeout=5) as connection:
        connection.sendall(b"GET /files/x/final.png HTTP/1.0\r\n\r\n")
        assert connection.recv(100).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:8000"])
def test_loopback_names_are_answered(host: str, http: httpx2.Client):
    assert http.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_page_of_a_foreign_origin_is_refused_on_every_route(method: str, path: str, http: httpx2.Client):
    status, headers = answer(http, method, path, headers={"origin": "https://evil.example"})
    assert status == 403
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "origin",
    ["null", "http://127.0.0.1.evil.example", "http://localhost@evil.example", "http://evil.example:80", "file://", ""],
)
def test_an_origin_that_only_looks_like_ours_is_refused(origin: str, http: httpx2.Client):
    assert http.get("/health", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize(("method", "path"), BEHIND_THE_TOKEN)
@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", TOKEN, f"Bearer {TOKEN}x"])
def test_every_route_needs_the_token(method: str, path: str, given: str | None, guarded: httpx2.Client):
    status, headers = answer(guarded, method, path, headers={} if given is None else {"authorization": given})
    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), BEHIND_THE_TOKEN)
def test_the_token_opens_every_route(method: str, path: str, guarded: httpx2.Client):
    assert answer(guarded, method, path, headers={"authorization": f"Bearer {TOKEN}"})[0] != 401


def test_a_token_that_is_no_ascii_is_refused_and_not_an_error(guarded: httpx2.Client):
    assert answer(guarded, "GET", "/nowhere", headers={"authorization": "Bearer caf\xe9".encode("latin-1")})[0] == 401


@pytest.mark.parametrize("path", [f"/nowhere?token={TOKEN}", f"/nowhere?access_token={TOKEN}"])
def test_the_token_does_not_work_in_the_address(path: str, guarded: httpx2.Client):
    assert guarded.get(path).status_code == 401


def test_health_tells_strangers_two_facts_and_the_owner_all(guarded: httpx2.Client):
    assert set(guarded.get("/health").json()) == {"status", "gpu_available"}
    assert set(guarded.get("/health", headers={"authorization": "Bearer wrong"}).json()) == {"status", "gpu_available"}
    known = guarded.get("/health", headers={"authorization": f"Bearer {TOKEN}"}).json()
    assert {"version", "engine", "worker"} <= set(known)


async def test_mcp_clients_get_in_with_the_token(guarded_url: str):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=10) as http:
        targets = (
            streamable_http_client(f"{guarded_url}/mcp", http_client=http),
            sse_client(f"{guarded_url}/sse", headers=headers),
        )
        for target in targets:
            async with Client(target) as client:
                assert (await call(client, "fonts"))["fonts"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_token_only_loopback_is_bound(host: str, place: Place):
    refused = start(place, "--host", host)
    assert refused.returncode == 2
    assert b"AD_AGENT_TOKEN" in refused.stderr
    assert b"Traceback" not in refused.stderr


def test_a_short_token_is_refused(place: Place):
    place.settings["AD_AGENT_TOKEN"] = "hunter2"
    refused = start(place, "--host", "127.0.0.1")
    assert refused.returncode == 2
    assert b"AD_AGENT_TOKEN" in refused.stderr
    assert b"hunter2" not in refused.stderr


def start(place: Place, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A server that has to refuse to start."""
    return subprocess.run(
        [*SERVER, "serve", "--transport", "http", "--port", "0", *arguments],
        env=place.environment(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=15,
        check=False,
    )


async def test_an_uploaded_picture_can_be_advertised(open_url: str, http: httpx2.Client):
    data = png(200)
    response = http.post("/upload", content=data)
    assert response.status_code == 201
    told = response.json()
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    assert (told["width"], told["height"]) == (200, 200)
    assert http.post("/upload", content=data).json() == told
    async with Client(f"{open_url}/mcp") as client:
        job = await call(client, "generate", product_image=told["uri"], wait_seconds=40, **QUICK)
        assert job["status"] == "completed"
        kept = await client.read_resource(told["uri"])
        assert len(kept.contents) == 1


def in_pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield bytes(1000)


def test_an_upload_that_cannot_be_used_is_refused_and_not_kept(http: httpx2.Client, open_place: Place):
    kept = sorted((open_place.data / "assets").iterdir())
    refusals = {
        "too large": (http.post("/upload", content=bytes(LIMIT_BYTES + 1)), 413),
        "too large in pieces": (http.post("/upload", content=in_pieces(LIMIT_BYTES + 5000)), 413),
        "junk": (http.post("/upload", content=b"this is no picture"), 400),
        "empty": (http.post("/upload", content=b""), 400),
        "cut off": (http.post("/upload", content=png()[:-60]), 400),
        "a form": (http.post("/upload", files={"file": ("a.png", png())}), 400),
    }
    for name, (response, status) in refusals.items():
        assert response.status_code == status, name
        error = response.json()["error"]
        assert (error["code"], bool(error["message"])) == ("invalid_request", True), name
    assert http.get("/upload").status_code == 405
    assert sorted((open_place.data / "assets").iterdir()) == kept


@pytest.fixture(scope="module")
async def finished(open_url: str, open_place: Place) -> str:
    """A finished job's id."""
    async with Client(f"{open_url}/mcp") as client:
        job = await call(client, "generate", product_image=open_place.photo, **QUICK)
        state = await finish(client, job["job_id"])
        assert state["files"]["final"] == f"{open_url}/files/{job['job_id']}/final.png"
        return job["job_id"]


async def test_a_result_is_served_whole_and_in_ranges(finished: str, http: httpx2.Client, open_place: Place):
    data = (open_place.data / "jobs" / finished / "final.png").read_bytes()
    path = f"/files/{finished}/final.png"
    whole = http.get(path)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(whole.content)).size == (256, 256)
    part = http.get(path, headers={"range": "bytes=10-109"})
    assert (part.status_code, part.content) == (206, data[10:110])
    assert part.headers["content-range"] == f"bytes 10-109/{len(data)}"
    assert http.get(path, headers={"range": "bytes=-10"}).content == data[-10:]
    assert http.get(path, headers={"range": f"bytes={len(data)}-"}).status_code == 416
    stale = http.get(path, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert (stale.status_code, stale.content) == (200, data)
    head = http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(data)), b"")


async def test_a_result_that_a_client_has_is_not_sent_again(finished: str, http: httpx2.Client):
    path = f"/files/{finished}/final.png"
    etag = http.get(path).headers["etag"]
    known = http.get(path, headers={"if-none-match": etag})
    assert (known.status_code, known.content) == (304, b"")
    assert http.get(path, headers={"if-none-match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/files/{job}/job.png",
        "/files/{job}/layout.png",
        "/files/{job}/step2.png",
        "/files/{job}/final.jpg",
        "/files/{job}/job.json",
        "/files/{job}/inputs/product_image",
        "/files/{job}/..%2fproduct.png",
        f"/files/{UNKNOWN_ID}/final.png",
        "/files/latest/final.png",
        "/files/..%2f..%2fetc/passwd.png",
        "/files/%2e%2e/final.png",
    ],
)
async def test_a_file_that_is_no_result_is_not_found(path: str, finished: str, http: httpx2.Client):
    assert http.get(path.format(job=finished)).status_code == 404


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/state", f"/dashboard/pictures/{UNKNOWN_ID}/final.webp"])
def test_there_is_no_dashboard_unless_it_is_asked_for(path: str, http: httpx2.Client):
    assert http.get(path).status_code == 404


def preflight(client: httpx2.Client, origin: str, **headers: str) -> httpx2.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return client.options("/mcp", headers={"origin": origin, **asked, **headers})


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://127.0.0.1:6274", "https://localhost", "http://[::1]:3"]
)
def test_a_page_of_this_machine_may_ask(origin: str, http: httpx2.Client):
    allowed = preflight(http, origin)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == origin
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    answered = http.get("/health", headers={"origin": origin})
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, origin)
    assert "mcp-session-id" in answered.headers["access-control-expose-headers"].lower()


def test_a_foreign_page_may_not_even_ask(http: httpx2.Client, guarded: httpx2.Client):
    for client in (http, guarded):
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            refused = preflight(client, origin)
            assert refused.status_code in (400, 403)
            assert "access-control-allow-origin" not in refused.headers


def test_the_settings_let_a_host_and_an_origin_in(guarded: httpx2.Client, http: httpx2.Client):
    ours = {"host": "ads.example", "origin": "https://app.example"}
    assert preflight(guarded, "https://app.example").status_code == 200
    health = guarded.get("/health", headers=ours)
    assert (health.status_code, health.headers["access-control-allow-origin"]) == (200, "https://app.example")
    closed = guarded.get("/nowhere", headers=ours)
    assert (closed.status_code, closed.headers["access-control-allow-origin"]) == (401, "https://app.example")
    assert guarded.get("/health", headers={"host": "other.example"}).status_code == 421
    assert guarded.get("/health", headers={"origin": "https://app.example.evil.example"}).status_code == 403
    assert http.get("/health", headers={"origin": "https://app.example"}).status_code == 403


def test_a_body_beyond_every_limit_is_refused_unread(http: httpx2.Client):
    huge = http.post("/mcp", content=bytes(4 * LIMIT_BYTES + (1 << 20)), headers={"content-type": "application/json"})
    assert huge.status_code == 413
