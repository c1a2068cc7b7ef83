"""The dashboard in a real browser: live progress, buttons, two languages, a phone, a token, and hostile words."""

import filecmp
import io
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from axe_playwright_python.async_playwright import Axe
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

from ad_agent_mcp.jobs.store import JobStore

from .support import SMALL, Place, call, finish, http_server, processes_of, wait_until

TOKEN = "correct-horse-battery-staple"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = {"width": 2048, "height": 2048, "seed": 3, "bg_prompt": "wooden table"}
"""Arguments of a job that takes seconds."""
HOSTILE = """<img src=x onerror="document.title='run'"></script><script>document.title='run'</script>"""
HOSTILE_WORDS = """<svg onload="document.title='run'"></svg></script><script>document.title='run'</script>"""
"""Markup that is not taken for damage of the words, as tags of text are."""
PATIENCE_MS = 20_000

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    return Place(tmp_path_factory.mktemp("dashboard") / "data", pictures, {"AD_AGENT_DEV": "1"})


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with http_server(place) as url:
        yield url


@pytest.fixture(scope="module")
def guarded_place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    settings = {"AD_AGENT_DEV": "1", "AD_AGENT_TOKEN": TOKEN}
    return Place(tmp_path_factory.mktemp("guarded-dashboard") / "data", pictures, settings)


@pytest.fixture(scope="module")
def guarded_url(guarded_place: Place) -> Iterator[str]:
    with http_server(guarded_place) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(f"{url}/mcp") as client:
        yield client


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Desktop:
    """Opens pages, and remembers what their consoles complained of."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.complaints: list[str] = []

    async def open(self, url: str, *, language: str = "en-US", width: int = 1280, **options: Any) -> Page:
        context = await self._browser.new_context(locale=language, viewport={"width": width, "height": 844}, **options)
        page = await context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(f"{url}/dashboard")
        return page


@pytest.fixture
async def desktop(browser: Browser) -> AsyncIterator[Desktop]:
    """Fails the test whose page broke its content security policy, or met any other error."""
    desktop = Desktop(browser)
    yield desktop
    for context in browser.contexts:
        await context.close()
    assert desktop.complaints == []


async def generate(client: Client, place: Place, **arguments: Any) -> str:
    return (await call(client, "generate", product_image=place.photo, **arguments))["job_id"]


async def waiting(client: Client, place: Place, **arguments: Any) -> str:
    """A job that waits for approval."""
    job_id = await generate(client, place, pause_after_step=1, **{**SMALL, **arguments})
    assert (await finish(client, job_id))["waiting_for"] == "approval"
    return job_id


def card(page: Page, words: str):
    return page.get_by_role("listitem").filter(has_text=words)


async def test_a_job_moves_on_and_its_picture_appears_without_a_reload(
    desktop: Desktop, url: str, client: Client, place: Place
):
    page = await desktop.open(url)
    await expect(page.get_by_role("heading", name="No ads yet")).to_be_visible()
    await generate(client, place, text_content="LIVE", **{**LONG, "width": 1536, "height": 1536})
    bar = page.get_by_role("progressbar", name="LIVE")
    await expect(bar).to_be_visible()
    first = await bar.get_attribute("aria-valuenow") or ""
    await expect(bar).to_have_attribute("aria-valuenow", re.compile(rf"^(?!{first}$)\d+$"))
    await expect(page.locator("[data-part=percent]")).to_have_text(re.compile(r"^\d+ %$"))
    await expect(card(page, "LIVE").get_by_text("Finished")).to_be_visible()
    picture = card(page, "LIVE").locator("img[data-layer=final].there")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("image => image.naturalWidth") == 320
    await expect(page.locator("[aria-live]")).to_have_text("LIVE, Finished")
    await expect(page.get_by_text("Nothing is running")).to_be_visible()


async def test_the_stop_button_stops_the_running_job(desktop: Desktop, url: str, client: Client, place: Place):
    job_id = await generate(client, place, text_content="HALT", **LONG)
    page = await desktop.open(url)
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(card(page, "HALT").get_by_text("Stopped")).to_be_visible()
    assert (await call(client, "status", job_id=job_id))["status"] == "stopped"


async def test_a_waiting_job_is_redone_with_another_scene_and_then_approved(
    desktop: Desktop, url: str, client: Client, place: Place
):
    job_id = await waiting(client, place, text_content="DECIDE")
    page = await desktop.open(url)
    choice = page.get_by_role("article").filter(has_text="DECIDE")
    await expect(choice.get_by_text("The scene is finished.")).to_be_visible()
    await choice.get_by_role("button", name="Redo…").click()
    await choice.get_by_label("Scene, in English").fill("white marble")
    async with page.expect_response(re.compile("/approve$")) as redone:
        await choice.get_by_role("button", name="Redo this step").click()
    assert (await redone.value).ok
    state = await finish(client, job_id)
    assert (state["waiting_for"], state["parameters"]["bg_prompt"]) == ("approval", "white marble")
    assert state["parameters"]["seed"] != SMALL["seed"]
    await choice.get_by_role("button", name="Approve and go on").click()
    await expect(card(page, "DECIDE").get_by_text("Finished")).to_be_visible()
    decisions = [(decision.action, decision.by) for decision in JobStore(place.data).load(job_id).decisions]
    assert decisions == [("redo", "person"), ("approve", "person")]


async def test_a_refusal_is_shown_and_the_choice_stays(desktop: Desktop, url: str, client: Client, place: Place):
    job_id = await waiting(client, place, text_content="REFUSED")
    page = await desktop.open(url)
    choice = page.get_by_role("article").filter(has_text="REFUSED")
    await choice.get_by_role("button", name="Redo…").click()
    await choice.get_by_label("Scene, in English").fill("x" * 2001)
    await choice.get_by_role("button", name="Redo this step").click()
    await expect(choice.get_by_role("alert")).to_contain_text("bg_prompt")
    await choice.get_by_role("button", name="Back").click()
    await choice.get_by_role("button", name="Stop", exact=True).click()
    await expect(card(page, "REFUSED").get_by_text("Stopped")).to_be_visible()
    assert [decision.action for decision in JobStore(place.data).load(job_id).decisions] == ["stop"]
    desktop.complaints = [text for text in desktop.complaints if "400 (Bad Request)" not in text]


async def test_markup_in_a_jobs_words_stays_text(desktop: Desktop, url: str, client: Client, place: Place):
    await finish(
        client, await generate(client, place, **{**SMALL, "bg_prompt": HOSTILE, "text_content": HOSTILE_WORDS})
    )
    await waiting(client, place, text_content=HOSTILE_WORDS)
    page = await desktop.open(url)
    await expect(page.get_by_role("article").filter(has_text=HOSTILE_WORDS)).to_be_visible()
    await card(page, HOSTILE_WORDS).get_by_role("button").click()
    await expect(page.get_by_role("dialog").get_by_role("heading", name=HOSTILE_WORDS)).to_be_visible()
    await expect(page.locator("img[src=x]")).to_have_count(0)
    assert "run" not in await page.title()
    await page.get_by_role("button", name="Close").click()
    await (
        page.get_by_role("article")
        .filter(has_text=HOSTILE_WORDS)
        .get_by_role("button", name="Stop", exact=True)
        .click()
    )
    await expect(page.get_by_role("article").filter(has_text=HOSTILE_WORDS)).to_have_count(0)


async def test_a_failed_job_says_why_and_what_to_do(desktop: Desktop, url: str, client: Client, place: Place):
    job_id = await generate(client, place, text_content="CRASH", **LONG)
    page = await desktop.open(url)
    await expect(page.get_by_role("progressbar", name="CRASH")).to_be_visible()
    processes_of(place)["worker"][0].kill()
    await card(page, "CRASH").get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("The worker process died", exact=True)).to_be_visible()
    await expect(dialog.get_by_text(f'generate {{"resume_job_id":"{job_id}"}}')).to_be_visible()
    await expect(page.get_by_text("Draft engine", exact=True)).to_be_visible()  # there is a worker again


async def test_a_job_is_told_in_the_language_of_the_page(desktop: Desktop, url: str, client: Client, place: Place):
    await finish(
        client, await generate(client, place, **{**SMALL, "bg_prompt": "LANGUAGE", "composition_mode": "blend"})
    )
    page = await desktop.open(url, language="ko-KR")
    for told in ("문구가 없어 composition_mode를 쓰지 않았습니다.", "composition_mode was not used"):
        await card(page, "LANGUAGE").get_by_role("button").click()
        await expect(page.get_by_role("dialog").get_by_text(told)).to_be_visible()
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="English").click()


async def test_the_keyboard_opens_a_job_with_its_layers_and_comes_back(
    desktop: Desktop, url: str, client: Client, place: Place
):
    job_id = await generate(client, place, text_content="LAYERS", **SMALL)
    await finish(client, job_id)
    page = await desktop.open(url)
    button = card(page, "LAYERS").get_by_role("button")
    await button.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="LAYERS")
    await expect(dialog.locator("img.there")).to_have_count(7)
    await expect(dialog.get_by_text("Product unchanged")).to_be_visible()
    links = [await link.get_attribute("href") for link in await dialog.get_by_role("link").all()]
    assert links[0] == f"/files/{job_id}/final.png"
    assert len(links) == 6
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()


async def test_the_language_follows_the_browser_and_can_be_switched(desktop: Desktop, url: str):
    page = await desktop.open(url, language="ko-KR")
    await expect(page.get_by_role("heading", name="작업", exact=True)).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "ko")
    assert "undefined" not in await page.inner_text("body")
    await page.get_by_role("button", name="English").click()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    await expect(page.get_by_role("button", name="English")).to_have_attribute("aria-pressed", "true")


def test_both_languages_say_the_same_things():
    page = (Path(__file__).parents[2] / "ad_agent_mcp" / "http_api" / "page.html").read_text("utf-8")
    english, korean = re.search(r"const WORDS = \{\n  en: (.*?)\n  ko: (.*?)\n\};", page, re.DOTALL).groups()
    keys = [re.findall(r"(?:^|, |\n)\s*(\w+): [\"(`]", part) for part in (english, korean)]
    assert keys[0] == keys[1]
    assert set(re.findall(r"data-say=\"(\w+)\"", page)) <= set(keys[0])


@pytest.mark.parametrize(("language", "scheme"), [("en-US", "dark"), ("ko-KR", "light")])
async def test_axe_finds_no_fault(language: str, scheme: Any, desktop: Desktop, url: str, client: Client, place: Place):
    """Contrast, names, roles, headings: of the page with an open form, and of a job's dialog."""
    job_id = await waiting(client, place, text_content=f"AXE {scheme}")
    page = await desktop.open(url, language=language, color_scheme=scheme, reduced_motion="reduce")
    await page.get_by_role("article").locator("[aria-expanded]").click()
    assert (await Axe().run(page)).response["violations"] == []
    await call(client, "approve_step", job_id=job_id, action="approve")
    await card(page, f"AXE {scheme}").get_by_role("button").click()
    await expect(page.get_by_role("dialog").locator("img.there")).to_have_count(7)
    assert (await Axe().run(page)).response["violations"] == []


@pytest.mark.parametrize("language", ["en-US", "ko-KR"])
async def test_a_phone_needs_no_scrolling_sideways(
    language: str, desktop: Desktop, url: str, client: Client, place: Place
):
    job_id = await waiting(client, place, text_content="VERYLONGWORDWITHOUTANYSPACE" * 3)
    page = await desktop.open(url, language=language, width=390)
    await expect(page.get_by_role("article")).to_be_visible()
    width = "document.documentElement.scrollWidth"
    assert await page.evaluate(width) == 390
    await page.get_by_role("article").get_by_role("button").first.click()
    await expect(page.get_by_role("dialog").locator("img.there").first).to_be_visible()
    assert await page.evaluate(width) == 390
    assert await page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
    await call(client, "stop", job_id=job_id)


async def test_the_meters_show_every_gpu(desktop: Desktop, url: str):
    page = await desktop.open(url)
    meters = page.get_by_role("region", name="This machine")
    await expect(meters.get_by_text(re.compile(r"of \d+\.\d GiB"))).to_be_visible()
    await expect(meters.get_by_text("No NVIDIA GPU is visible")).to_be_visible()
    gpu = {
        "index": 0,
        "name": "L4",
        "vram_used_mb": 6144,
        "vram_total_mb": 23034,
        "vram_percent": 26.7,
        "utilization": 83,
    }

    async def with_gpu(route: Any) -> None:
        answer = await route.fetch()
        state = await answer.json()
        await route.fulfill(json={**state, "samples": [{**sample, "gpu_info": [gpu]} for sample in state["samples"]]})

    await page.route("**/dashboard/state*", with_gpu)
    await expect(meters.get_by_text("83 %")).to_be_visible()
    await expect(meters.get_by_text("6.0 of 22.5 GiB")).to_be_visible()


async def test_more_jobs_are_offered_only_as_long_as_they_come(
    desktop: Desktop, url: str, client: Client, place: Place
):
    await finish(client, await generate(client, place, **SMALL))

    async def with_many(route: Any) -> None:
        answer = await route.fetch()
        await route.fulfill(json={**await answer.json(), "total": 999})

    page = await desktop.open(url)
    await page.route("**/dashboard/state*", with_many)
    more = page.get_by_role("button", name="Show more")
    for limit in (*range(48, 200, 24), 200):
        async with page.expect_response(re.compile(f"limit={limit}&")):
            await more.click()
    await expect(more).to_be_hidden()


async def test_with_a_token_the_page_asks_for_it(browser: Browser, guarded_url: str, guarded_place: Place):
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as http,
        Client(streamable_http_client(f"{guarded_url}/mcp", http_client=http)) as client,
    ):
        job_id = await generate(client, guarded_place, text_content="SECRET", **SMALL)
        await finish(client, job_id)
    page = await Desktop(browser).open(guarded_url)
    await expect(page.get_by_role("heading", name="This server asks for its token")).to_be_visible()
    assert "SECRET" not in await page.content()
    for wrong in ("not-the-right-token", "비밀번호"):
        await page.get_by_label("Token", exact=True).fill(wrong)
        await page.get_by_role("button", name="Continue").click()
        await expect(page.get_by_role("alert")).to_contain_text("does not accept this token")
    await page.get_by_label("Token", exact=True).fill(TOKEN)
    await page.get_by_role("button", name="Continue").click()
    await expect(card(page, "SECRET").locator("img.there")).to_be_visible()
    await page.reload()
    await card(page, "SECRET").get_by_role("button").click()
    async with page.expect_download() as download:
        await page.get_by_role("dialog").get_by_role("link").first.click()
    downloaded = await (await download.value).path()
    assert filecmp.cmp(downloaded, guarded_place.data / "jobs" / job_id / "final.png", shallow=False)
    await page.context.close()


def test_strangers_get_the_empty_page_and_nothing_else(guarded_url: str):
    routes = [
        ("GET", "/dashboard/state"),
        ("GET", "/dashboard/"),
        ("GET", "/dashboard/pictures/x/final.webp"),
        ("POST", "/dashboard/jobs/x/stop"),
        ("POST", "/dashboard/jobs/x/approve"),
    ]
    with httpx2.Client(base_url=guarded_url, timeout=10) as http:
        assert http.get("/dashboard").status_code == 200
        assert [http.request(method, path).status_code for method, path in routes] == [401] * len(routes)


def test_the_policy_of_the_page_lets_nothing_else_in(url: str):
    headers = httpx2.get(f"{url}/dashboard").headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy["style-src"])
    assert (policy["img-src"], policy["connect-src"]) == ("'self' blob:", "'self'")


async def test_another_page_cannot_press_the_buttons(url: str, client: Client, place: Place):
    job_id = await waiting(client, place, text_content="SAFE")
    json = {"content-type": "application/json"}
    attempts = [
        ({"content-type": "text/plain"}, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, 400),
        ({}, 400),
        ({**json, "origin": "https://evil.example"}, 403),
        ({**json, "origin": "null"}, 403),
        ({**json, "host": "evil.example"}, 421),
    ]
    for verb in ("stop", "approve"):
        for headers, status in attempts:
            path = f"{url}/dashboard/jobs/{job_id}/{verb}"
            assert httpx2.post(path, headers=headers, content=b'{"action": "stop"}').status_code == status, headers
    assert (await call(client, "status", job_id=job_id))["waiting_for"] == "approval"
    assert JobStore(place.data).load(job_id).decisions == ()
    await call(client, "stop", job_id=job_id)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/dashboard/jobs/01a205b1-6d95-7d9d-b70b-4e69506ec1dd/stop", b"{}", "not_found"),
        ("/dashboard/jobs/..%2f..%2fetc/stop", b"{}", "not_found"),
        ("/dashboard/jobs/nonsense/stop", b"{}", "invalid_request"),
        ("/dashboard/jobs/nonsense/stop", b"{", "invalid_request"),
        ("/dashboard/jobs/nonsense/stop", b"[1]", "invalid_request"),
        ("/dashboard/jobs/nonsense/stop", b"[" * 90_000, "invalid_request"),
        ("/dashboard/jobs/nonsense/approve", b'{"action": "burn"}', "invalid_request"),
    ],
)
def test_a_button_that_cannot_work_says_why(path: str, body: bytes, code: str, url: str):
    response = httpx2.post(f"{url}{path}", headers={"content-type": "application/json"}, content=body)
    assert response.status_code in (400, 404)
    if "%2f" not in path:
        assert response.json()["error"]["code"] == code


def test_what_a_button_sends_is_read_only_up_to_a_limit(url: str):
    response = httpx2.post(
        f"{url}/dashboard/jobs/nonsense/approve",
        headers={"content-type": "application/json; charset=utf-8"},
        content=b'{"action": "' + b"x" * 1_000_000 + b'"}',
    )
    assert response.status_code == 413


async def test_what_the_page_has_is_not_sent_again(url: str, client: Client, place: Place):
    job_id = await generate(client, place, **SMALL)
    await finish(client, job_id)
    with httpx2.Client(base_url=f"{url}/dashboard", timeout=10) as http:
        wait_until(lambda: http.get("/state").json()["samples"], what="the machine was sampled")
        state = http.get("/state").json()
        assert state["over"][0]["job_id"] == job_id
        known = {"known": state["version"], "since": state["samples"][-1]["at"]}
        again = http.get("/state", params=known)
        assert again.json()["over"] is None
        assert len(again.json()["samples"]) <= 1
        assert len(again.content) < 1000
        assert http.get("/state", params={"limit": 0}).json()["error"]["field"] == "limit"

        path = f"/pictures/{job_id}/cutout.webp"
        picture = http.get(path, params={"max_side": 100})
        image = Image.open(io.BytesIO(picture.content))
        assert (image.format, image.mode, max(image.size)) == ("WEBP", "RGBA", 100)
        assert picture.headers["cache-control"] == "private, no-cache"
        same = http.get(path, params={"max_side": 100}, headers={"if-none-match": picture.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        assert http.get(path, params={"max_side": 5000}).status_code == 400
        for missing in (f"/pictures/{job_id}/layout.webp", "/pictures/..%2f..%2fetc/passwd.webp"):
            assert http.get(missing).status_code == 404
