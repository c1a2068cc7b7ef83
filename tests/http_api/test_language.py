"""The HTTP server answers in the language that its client prefers, else in that of its setting."""

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from ad_agent_mcp.config import Settings
from ad_agent_mcp.http_api.security import FrontDoor, Guard
from ad_agent_mcp.http_api.server import build_http_app
from ad_agent_mcp.supervisor.process import WORKER_COMMAND

from ..in_process import app_with

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("accepted", "setting", "language"),
    [
        ("ko-KR,ko;q=0.9,en;q=0.8", "en", "ko"),
        ("ko", "en", "ko"),
        ("EN-us", "ko", "en"),
        ("", "ko", "ko"),
        ("*", "ko", "ko"),
        ("fr-FR,fr", "en", "en"),
    ],
)
async def test_a_client_gets_what_it_prefers_else_what_is_set(accepted: str, setting: str, language: str):
    met: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        met.append(scope["language"])

    door = FrontDoor(inner, (), language="ko" if setting == "ko" else "en")
    headers = [(b"host", b"localhost"), (b"accept-language", accepted.encode())]
    await door({"type": "http", "headers": headers}, _nothing, _nothing)
    assert met == [language]


async def _nothing(*_: object) -> dict[str, str]:
    return {}


async def test_who_is_not_let_in_is_told_why_in_their_language():
    guard = Guard(_no_app, origins=(), token="t" * 16, open_paths=frozenset())
    transport = httpx2.ASGITransport(FrontDoor(guard, ("here",)))
    async with httpx2.AsyncClient(transport=transport, headers={"accept-language": "ko"}) as client:
        for url, headers, told in (
            ("http://here/", {}, "토큰이 필요합니다"),
            ("http://here/", {"origin": "https://evil.example"}, "페이지는 이 서버를 쓸 수 없습니다"),
            ("http://there/", {}, "응답하지 않습니다"),
        ):
            assert told in (await client.get(url, headers=headers)).json()["error"]


async def _no_app(*_: object) -> None:
    raise AssertionError("nobody is let in")


async def test_routes_and_the_page_speak_the_language_that_is_asked_for(settings: Settings):
    async with app_with(settings, WORKER_COMMAND, dev=True, lang="ko") as app:
        transport = httpx2.ASGITransport(build_http_app(app, token=None, bound_host="here"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            english = {"accept-language": "en"}
            assert (await client.get("/")).json()["what"].startswith("광고 이미지를")
            assert (await client.get("/files/x/final.png")).json()["error"]["message"] == "그런 그림은 없습니다."
            assert (await client.get("/files/x/final.png", headers=english)).json()["error"]["message"] == (
                "There is no such picture."
            )
            sent = await client.post("/upload", content=b"")
            assert sent.json()["error"]["message"].startswith("본문이 비어 있습니다. ")
            assert '<html lang="ko">' in (await client.get("/dashboard")).text
            assert "설정" not in (await client.get("/health", headers=english)).text
