"""Processes come and go together: no worker outlives its server, no server its stdio client."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from .support import SERVER, SMALL, Place, call, connected, finish, http_server, processes_of, wait_until

pytestmark = pytest.mark.anyio
GONE_WITHIN_S = 10.0
"""Nothing else would end them; how quick it is, on a machine with nothing else to do, is bench.server's to tell."""
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def start_stdio(place: Place) -> subprocess.Popen[bytes]:
    """A stdio server that has answered and whose worker lives."""
    process = subprocess.Popen(SERVER, env=place.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
    assert b'"result"' in process.stdout.readline()
    wait_until(lambda: processes_of(place)["worker"], what="the worker starts")
    return process


@pytest.mark.parametrize("way", ["kill -9", "SIGTERM", "SIGINT", "closed stdin"])
def test_a_stdio_server_takes_its_worker_with_it(way: str, place: Place):
    with start_stdio(place) as process:
        assert process.stdin is not None
        worker = processes_of(place)["worker"]
        if way == "closed stdin":
            process.stdin.close()
        else:
            number = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}[way]
            process.send_signal(number)
        assert process.wait(GONE_WITHIN_S) == (-9 if way == "kill -9" else 0)
        wait_until(lambda: all_gone(worker), what="the worker is gone", seconds=GONE_WITHIN_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_http_server_takes_its_worker_with_it(number: signal.Signals, place: Place):
    with http_server(place):
        wait_until(lambda: processes_of(place)["worker"], what="the worker starts")
        found = processes_of(place)
        os.kill(found["server"][0].pid, number)
        everything = [*found["server"], *found["worker"]]
        wait_until(lambda: all_gone(everything), what="all are gone", seconds=GONE_WITHIN_S)


async def test_a_signal_to_server_and_worker_alike_leaves_the_running_job_to_the_next_server(place: Place):
    from mcp import Client

    with http_server(place) as url:
        async with Client(f"{url}/mcp") as client:
            job = await call(
                client, "generate", product_image=place.photo, text_content="안녕", width=2048, height=2048
            )
            state = job
            while "(" not in (state["sub_step"] or ""):  # until its worker has begun
                state = await call(client, "status", job_id=job["job_id"], include_images="none")
        found = processes_of(place)
        for process in (*found["worker"], *found["server"]):
            process.terminate()
        wait_until(lambda: all_gone(found["server"]), what="the server is gone", seconds=GONE_WITHIN_S)
    left = json.loads((place.data / "jobs" / job["job_id"] / "job.json").read_text("utf-8"))
    assert (left["status"], left["error"], left["retries"]) == ("running", None, 0)


def test_a_client_that_is_killed_takes_server_and_worker_with_it(place: Place):
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}) + "\n"
    code = f"""
import subprocess, time
server = subprocess.Popen({SERVER!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
server.stdin.write({hello.encode()!r})
server.stdin.flush()
server.stdout.readline()
print("connected", flush=True)
time.sleep(60)
"""
    client = subprocess.Popen([sys.executable, "-c", code], env=place.environment(), stdout=subprocess.PIPE)
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"connected\n"
        wait_until(lambda: processes_of(place)["worker"], what="the worker starts")
        found = processes_of(place)
        client.kill()
        everything = [*found["server"], *found["worker"]]
        wait_until(lambda: all_gone(everything), what="all are gone", seconds=GONE_WITHIN_S)


@pytest.mark.parametrize("transport", ["sse", "http"])
async def test_a_job_does_not_end_with_the_client_that_started_it(transport: str, place: Place):
    async with connected("stdio", place):
        pass  # makes the data folder
    with http_server(place) as url:
        from mcp import Client
        from mcp.client.sse import sse_client

        target = f"{url}/sse" if transport == "sse" else f"{url}/mcp"
        async with Client(sse_client(target) if transport == "sse" else target) as client:
            job = await call(client, "generate", product_image=place.photo, text_content="안녕", **SMALL)
        async with Client(f"{url}/mcp") as client:
            state = await finish(client, job["job_id"])
        assert state["status"] == "completed"


async def test_a_worker_killed_from_outside_is_replaced_and_the_next_job_completes(place: Place):
    async with connected("stdio", place) as client:
        job = await call(client, "generate", product_image=place.photo, text_content="안녕", width=1024, height=1024)
        processes_of(place)["worker"][0].kill()
        state = await finish(client, job["job_id"])
        assert state["error"]["code"] == "worker_crashed"
        job = await call(client, "generate", product_image=place.photo, text_content="안녕", **SMALL)
        assert (await finish(client, job["job_id"]))["status"] == "completed"
