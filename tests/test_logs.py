"""What the log tells: every line of a job with its id, in both processes, and never what people wrote."""

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from PIL import Image

from ad_agent_mcp.logs import MAX_WAITING_BYTES, LineQueue, unblocked_stderr

from .e2e.support import SERVER, Place, call, finish, http_server

pytestmark = pytest.mark.anyio
TOKEN = "correct-horse-battery-staple"
SECRETS = {
    "bg_prompt": "a quiet marble hall of Xanadu",
    "text_model_prompt": "gold foil of Ophir",
    "text_content": "비밀 Shibboleth",
}


@pytest.fixture
def place(tmp_path: Path, pictures: Path) -> Place:
    return Place(tmp_path / "data", pictures, {"AD_AGENT_LOG_FORMAT": "json"})


def records(log: Path) -> list[dict[str, Any]]:
    """Every line of a log; each has to be an object."""
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


async def logged_job(place: Place, log: Path, **arguments: Any) -> tuple[str, list[dict[str, Any]]]:
    """One job of a fresh stdio server: its id, and all that was logged."""
    with log.open("w") as stream:
        server = StdioServerParameters(command=SERVER[0], args=SERVER[1:], env=place.environment())
        from mcp.client.stdio import stdio_client

        async with Client(stdio_client(server, errlog=stream)) as client:
            job = await call(client, "generate", product_image=place.photo, width=256, height=256, **arguments)
            await finish(client, job["job_id"])
    return job["job_id"], records(log)


async def test_a_job_is_followed_through_both_processes_by_its_id(place: Place, tmp_path: Path):
    job_id, told = await logged_job(place, tmp_path / "log", text_content="Hi")
    lines = {
        process: [entry["message"] for entry in told if entry.get("job_id") == job_id and entry["process"] == process]
        for process in ("server", "worker")
    }
    assert lines["server"] == ["job accepted", "job started: engine draft, steps (1, 2, 3)", "job ended: completed"]
    steps = [line for line in lines["worker"] if line.startswith("step ")]
    assert steps == [f"step {step} finished" for step in (1, 2, 3)]
    assert [line for line in lines["worker"] if line.startswith("stage ")][:2] == ["stage cut_out", "stage background"]
    assert (lines["worker"][0], lines["worker"][-1]) == ("job started", "job finished")
    for entry in told:
        age = datetime.now(UTC) - datetime.fromisoformat(entry["time"])
        assert timedelta(0) <= age < timedelta(minutes=2)
        assert entry["level"] in ("INFO", "WARNING")
        assert entry["logger"]


async def test_a_failed_job_is_warned_of_with_its_id_by_both_processes(place: Place, tmp_path: Path):
    place.pictures = tmp_path
    Image.new("RGBA", (64, 64)).save(place.photo)  # nothing in it can be seen, which only the worker finds out
    job_id, told = await logged_job(place, tmp_path / "log")
    warned = {(entry["process"], entry["message"]) for entry in told if entry.get("job_id") == job_id} & {
        ("server", "job ended: invalid_request"),
        ("worker", "job failed: invalid_request"),
    }
    assert len(warned) == 2
    assert all(entry["level"] == "WARNING" for entry in told if "invalid_request" in entry["message"])


async def test_no_words_no_pictures_and_no_token_are_logged(place: Place):
    place.settings |= {"AD_AGENT_TOKEN": TOKEN, "AD_AGENT_MAX_IMAGE_BYTES": "200000"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    content = (place.pictures / "bottle.png").read_bytes()
    photo = base64.b64encode(content).decode()
    with http_server(place) as url, httpx2.Client(base_url=url, headers=headers, timeout=10) as plain:
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            from mcp.client.streamable_http import streamable_http_client

            async with Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client:
                job = await call(client, "generate", product_image=photo, width=256, height=256, **SECRETS)
                state = await finish(client, job["job_id"])
                assert state["status"] == "completed"
                await client.call_tool("generate", {"product_image": photo, **SECRETS, "width": 1})
                await client.call_tool(
                    "generate", {"product_image": photo, **SECRETS, "text_content": "\ue000 Shibboleth"}
                )
                (place.data / "jobs" / job["job_id"] / "job.json").write_text(json.dumps({"request": SECRETS}))
                await client.call_tool("status", {"job_id": job["job_id"]})
        plain.get(f"/nowhere?token={TOKEN}")
        plain.get("/nowhere", headers={"authorization": f"Bearer {TOKEN}x"})
        place.data.rename(place.data.with_name("gone"))
        assert plain.post("/upload", content=content).status_code == 500
        place.data.with_name("gone").rename(place.data)
    (log,) = place.data.parent.glob("http-*.log")
    text = log.read_text("utf-8")
    assert "the data folder: " in text
    assert "unreadable" in text
    for secret in (TOKEN, "Xanadu", "Ophir", "Shibboleth", "비밀", photo[1000:1040]):
        assert secret not in text


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_no_level_of_the_log_tells_what_travels_in_streams_or_stands_in_broken_requests(level: str, place: Place):
    place.settings |= {"AD_AGENT_TOKEN": TOKEN, "AD_AGENT_LOG_LEVEL": level}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    words = " ".join(SECRETS.values())
    with http_server(place) as url, httpx2.Client(base_url=url, headers=headers, timeout=20) as plain:
        async with Client(sse_client(f"{url}/sse", headers=headers)) as client:
            job = await call(client, "generate", product_image=place.photo, width=256, height=256, **SECRETS)
            assert (await finish(client, job["job_id"]))["parameters"]["text_content"] == SECRETS["text_content"]
            await client.call_tool("get_image", {"name": words})
        for message in (
            {"id": words, "method": words},
            {"id": 1, "method": "tools/call", "params": {"name": "generate", "arguments": [words]}},
            {"method": "notifications/cancelled", "params": {"requestId": [words]}},
            {"method": "notifications/progress", "params": words},
        ):
            plain.post("/mcp", json={"jsonrpc": "2.0", **message})
        plain.post("/mcp", content=f"{words}{{".encode())
        plain.post("/upload", content=words.encode())
        plain.get(f"/sse/{TOKEN}?{TOKEN}", headers={"origin": TOKEN, "referer": TOKEN})
    (log,) = place.data.parent.glob("http-*.log")
    text = log.read_text("utf-8")
    assert "job ended: completed" in text
    for secret in (TOKEN, "Xanadu", "Ophir", "Shibboleth", "비밀"):
        assert secret not in text


def test_an_exception_is_told_in_one_line_with_its_traceback(capfd: pytest.CaptureFixture[str]):
    code = """
import logging
from ad_agent_mcp.logs import configure_logging, current_job_id
configure_logging("INFO", "json", process="worker")
current_job_id.set("some-id")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("a.b").exception("한 %s", "줄")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    entry = json.loads(done.stderr)
    assert (entry["level"], entry["process"], entry["logger"], entry["message"]) == ("ERROR", "worker", "a.b", "한 줄")
    assert entry["job_id"] == "some-id"
    assert "ZeroDivisionError" in entry["exception"]


class Unread:
    """A queue for lines into a pipe that nobody reads until `arrived` is called."""

    def __init__(self, *, is_blocking: bool = True) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, is_blocking)
        self.queue = LineQueue(self._writing)

    def arrived(self, *last: str) -> str:
        """All that comes, with `last` written when everything before it has come."""
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.extend(iter(lambda: os.read(self._reading, 1 << 16), b"")))
        reader.start()
        for text in ("", *last):
            self.queue.write(text)
            assert self.queue.drain(30)
        os.close(self._writing)
        reader.join()
        os.close(self._reading)
        return b"".join(said).decode()


def test_lines_that_nobody_reads_are_kept_up_to_a_limit_and_the_others_counted(caplog: pytest.LogCaptureFixture):
    unread, line, count = Unread(), "x" * 999 + "\n", 3 * MAX_WAITING_BYTES // 1000
    for _ in range(count):
        unread.queue.write(line)
    assert not unread.queue.drain(0.0)
    assert "dropped" not in caplog.text
    said = unread.arrived("the end\n")
    kept = said.count(line)
    assert said == line * kept + "the end\n"
    assert MAX_WAITING_BYTES // 1000 - 1 <= kept < count
    assert f"{count - kept} lines of the log were dropped" in caplog.text


def test_the_last_line_arrives_although_it_has_no_end_and_whoever_started_us_left_the_pipe_unwaiting():
    unread, text = Unread(is_blocking=False), "x" * 300_000 + "\nthe "
    unread.queue.write(text)
    assert not unread.queue.drain(0.0)
    assert unread.arrived("end") == text + "end"


def test_a_reader_that_is_gone_holds_nobody_up():
    reading, writing = os.pipe()
    os.close(reading)
    queue = LineQueue(writing)
    for _ in range(3):
        queue.write("a line\n")
        assert queue.drain(30)
    os.close(writing)


@pytest.mark.parametrize(("size", "is_read"), [(10, True), (300_000, False)])
def test_what_is_said_after_the_end_waits_for_no_reader_either(
    size: int, is_read: bool, monkeypatch: pytest.MonkeyPatch
):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as plain:
        monkeypatch.setattr(sys, "stderr", plain)
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setattr("ad_agent_mcp.logs.FLUSH_S", 30 if is_read else 0)
        with unblocked_stderr():
            sys.stderr.write("x" * size + "\n")
        assert (sys.stderr is plain) == is_read
        os.close(reading)
