"""The stdio wire as bytes: what no client library would send, and clients that stop reading."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .support import SERVER, Place, processes_of, wait_until

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
PARSE_ERROR, INVALID_REQUEST = -32700, -32600
PIPE_BYTES = 1 << 16
ENDS_WITHIN_S = 15.0


class Wire:
    """A client of bytes."""

    def __init__(self, process: subprocess.Popen[bytes], era: str) -> None:
        self.process = process
        self.era = era
        self._asked = 1000

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def request(self, method: str, **params: Any) -> bytes:
        """A request in the era's form, with the next id."""
        self._asked += 1
        if self.era == "modern":
            params["_meta"] = MODERN
        return json.dumps({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params}).encode()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a request; what else comes before it is dropped."""
        self.send(self.request(method, **params))
        while (answer := self.receive()).get("id") != self._asked:
            pass
        return answer

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return self.ask("tools/call", name=tool, arguments=arguments)["result"]["structuredContent"]

    def open(self) -> None:
        if self.era == "legacy":
            assert "result" in self.ask("initialize", **HELLO)
            self.send(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')
        else:
            assert "result" in self.ask("tools/list")


@contextlib.contextmanager
def connected(
    place: Place, *, era: str = "legacy", command: list[str] = SERVER, stderr: int | None = None
) -> Iterator[Wire]:
    process = subprocess.Popen(
        command, env=place.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    )
    with process:
        try:
            wire = Wire(process, era)
            wire.open()
            yield wire
        finally:
            process.kill()


BAD_LINES: dict[str, tuple[bytes, int, int | str | None]] = {
    "a lone surrogate": (b'{"jsonrpc":"2.0","id":3,"method":"ping","params":{"a":"\\ud800"}}', PARSE_ERROR, 3),
    "5,000 digits": (
        b'{"params":{"n":' + b"9" * 5000 + b'},"method":"ping","jsonrpc":"2.0","id":"x-4"}',
        PARSE_ERROR,
        "x-4",
    ),
    "3,000 deep": (
        b'{"method":"ping","params":{"id":9,"a":' + b'{"id":[' * 3000 + b"]}" * 3000 + b'},"id":5}',
        PARSE_ERROR,
        5,
    ),
    "no end": (b'{"jsonrpc":"2.0","id":6,"method":"ping","params":{"a":"', PARSE_ERROR, 6),
    "two on a line": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping"} {"jsonrpc":"2.0","id":8,"method":"ping"}',
        PARSE_ERROR,
        7,
    ),
    "no JSON": (b"GET / HTTP/1.1", PARSE_ERROR, None),
    "no UTF-8": (b'{"jsonrpc":"2.0","id":9,"method":"p\xffng"}', PARSE_ERROR, 9),
    "UTF-16": ('{"jsonrpc":"2.0","id":9,"method":"ping"}'.encode("utf-16-le"), PARSE_ERROR, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', INVALID_REQUEST, None),
    "an empty batch": (b"[]", INVALID_REQUEST, None),
    "a number": (b"3", INVALID_REQUEST, None),
    "null": (b"null", INVALID_REQUEST, None),
    "an empty object": (b"{}", INVALID_REQUEST, None),
    "a float id": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', INVALID_REQUEST, None),
    "a null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST, None),
    "a true id": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', INVALID_REQUEST, None),
    "an id in an object": (b'{"jsonrpc":"2.0","id":{"id":1},"method":"ping"}', INVALID_REQUEST, None),
    "another version": (b'{"jsonrpc":"1.0","id":10,"method":"ping"}', INVALID_REQUEST, 10),
    "no version": (b'{"id":11,"method":"ping"}', INVALID_REQUEST, 11),
    "no method": (b'{"jsonrpc":"2.0","id":12}', INVALID_REQUEST, 12),
    "a method that is a number": (b'{"jsonrpc":"2.0","id":13,"method":7}', INVALID_REQUEST, 13),
    "parameters in a list": (b'{"jsonrpc":"2.0","id":"a","method":"ping","params":[1]}', INVALID_REQUEST, "a"),
    "a method of a megabyte": (b'{"jsonrpc":"2.0","id":14,"method":"%s"}' % (b"m" * 1_000_000), INVALID_REQUEST, 14),
    "an id of a megabyte": (b'{"jsonrpc":"2.0","id":"%s","method":"ping"}' % (b"i" * 1_000_000), INVALID_REQUEST, None),
    "a line beyond the limit": (
        b'{"jsonrpc":"2.0","id":15,"method":"ping","params":{"a":"%s"}}' % (b"a" * 2_000_000),
        INVALID_REQUEST,
        15,
    ),
}
UNANSWERED = {
    "an empty line": b"\r",
    "a notification that is none": b'{"jsonrpc":"2.0","method":"notifications/initialized","params":[1]}',
    "a notification of another version": b'{"jsonrpc":"1.0","method":"notifications/initialized"}',
    "an unknown notification": b'{"jsonrpc":"2.0","method":"notifications/nothing"}',
    "an answer to nothing": b'{"jsonrpc":"2.0","id":99,"result":{}}',
    "an answer that is none": b'{"jsonrpc":"2.0","id":99,"result":3}',
}


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_whatever_is_no_message_is_answered_and_the_server_goes_on(era: str, place: Place):
    place.settings["AD_AGENT_MAX_IMAGE_BYTES"] = "200000"
    with connected(place, era=era) as wire:
        for name, (line, code, request_id) in BAD_LINES.items():
            wire.send(line)
            answer = wire.receive()
            assert (answer["error"]["code"], answer["id"]) == (code, request_id), name
            assert len(json.dumps(answer)) < 1000, name
            assert "result" in wire.ask("tools/list"), name
        for name, line in UNANSWERED.items():
            wire.send(line)
            wire.send(probe := wire.request("tools/list"))
            assert wire.receive()["id"] == json.loads(probe)["id"], name


def test_a_byte_order_mark_before_the_first_line_and_returns_before_its_end_are_skipped(place: Place):
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(SERVER, env=place.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.enter_context(process)
        stack.callback(process.kill)
        wire = Wire(process, "legacy")
        wire.send(b"\xef\xbb\xbf" + wire.request("initialize", **HELLO) + b"\r")
        assert "result" in wire.receive()


MEGABYTE = "x" * 1_000_000
ECHOES: list[tuple[str, dict[str, Any]]] = [
    ("resources/read", {"uri": f"ad://fonts/{MEGABYTE}"}),
    ("resources/subscribe", {"uri": MEGABYTE}),
    ("prompts/get", {"name": MEGABYTE}),
    ("prompts/get", {"name": "ad_brief", "arguments": {"product": MEGABYTE}}),
    ("tools/call", {"name": MEGABYTE}),
    ("tools/call", {"name": "status", "arguments": {"job_id": MEGABYTE}}),
    ("tools/call", {"name": "status", "arguments": {MEGABYTE: 1}}),
    ("tools/list", {"_meta": {"progressToken": MEGABYTE}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": MEGABYTE}, "argument": {}}),
    ("initialize", {**HELLO, "protocolVersion": MEGABYTE}),
]


def test_a_megabyte_is_not_told_back(place: Place):
    with connected(place) as wire:
        for method, params in ECHOES:
            answer = wire.ask(method, **params)
            assert "error" in answer or answer["result"]["isError"], method
            assert len(json.dumps(answer)) < 20_000, method


def test_a_picture_beyond_a_megabyte_still_comes_in_by_its_arguments(place: Place):
    with connected(place) as wire:
        result = wire.ask("tools/call", name="generate", arguments={"product_image": "A" * 3_000_000})["result"]
        assert result["isError"]
        assert result["structuredContent"]["error"]["field"] == "product_image"


def test_a_server_whose_stderr_nobody_reads_answers_and_works(place: Place):
    """The worker writes far more than a pipe holds during each ad, and the server for each refused call."""
    command = [sys.executable, "-m", "tests.workers.serve_unread"]
    with connected(place, command=command, stderr=subprocess.PIPE) as wire:
        for _ in range(3):
            job = wire.call("generate", product_image=place.photo, width=256, height=256, wait_seconds=50)
            assert job["status"] == "completed"
        for _ in range(1400):
            assert wire.call("status", job_id="nonsense")["error"]["code"] == "invalid_request"
        assert wire.call("health")["worker_restarts"] == 0
        assert wire.process.stdin is not None
        wire.process.stdin.close()
        assert wire.process.wait(ENDS_WITHIN_S) == 0


def test_the_log_tells_how_much_of_it_nobody_read(place: Place, tmp_path: Path):
    command = [sys.executable, "-m", "tests.workers.serve_unread"]
    with connected(place, command=command, stderr=subprocess.PIPE) as wire:
        for _ in range(3):
            wire.call("generate", product_image=place.photo, width=256, height=256, wait_seconds=50)
        said: list[bytes] = []
        assert wire.process.stderr is not None
        reader = threading.Thread(target=lambda: said.extend(iter(wire.process.stderr.readline, b"")))
        reader.start()
        wait_until(lambda: any(b"lines of the log were dropped" in line for line in said), what="the loss is told")
        wire.call("status", job_id="nonsense")
        wire.process.stdin.close()
        assert wire.process.wait(ENDS_WITHIN_S) == 0
        reader.join()
        assert b"status refused" in said[-1] + said[-2]


@pytest.mark.parametrize("unread", ["a little", "more than the pipe holds"])
def test_a_server_whose_stdout_nobody_reads_ends_when_stdin_closes(unread: str, place: Place):
    with connected(place) as wire:
        wait_until(lambda: processes_of(place)["worker"], what="the worker starts")
        found = processes_of(place)
        for _ in range(1 if unread == "a little" else 40):
            wire.send(wire.request("tools/list"))
            wire.send(b"[]")
        assert wire.process.stdin is not None
        wire.process.stdin.close()
        assert wire.process.wait(ENDS_WITHIN_S) == 0
        _, alive = psutil.wait_procs(found["worker"], ENDS_WITHIN_S)
        assert not alive


def test_a_server_whose_stdout_is_closed_ends(place: Place):
    with connected(place) as wire:
        assert wire.process.stdout is not None
        wire.process.stdout.close()
        wire.send(wire.request("tools/list"))
        assert wire.process.wait(ENDS_WITHIN_S) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_server_started_without_a_standard_stream_ends_in_order_and_not_by_its_own_files(closed: str, place: Place):
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}).encode() + b"\n"
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', *SERVER],
        input=hello,
        env=place.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, b"Errno" in done.stderr) == (0, False)
    assert (b'"serverInfo"' in done.stdout) == (closed == "2>&-")
