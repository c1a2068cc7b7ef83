"""Start, latency and recovery of one server and one client. Knows nothing about how figures are shown."""

import io
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tests.e2e.support import SERVER, SMALL, Place, free_port, http_server, processes_of

from .client import HttpClient, StdioClient, call_over_http
from .pictures import photographs
from .processes import gone_s, is_listening, mapped_of, poll, worker_of
from .report import Row, median_max, ms, percentile, summary

BARE = [sys.executable, "-P", str(Path(__file__).with_name("bare.py"))]
LARGE: dict[str, Any] = {"width": 2048, "height": 2048, "seed": 3, "text_content": "Big Summer Sale"}
"""Arguments of a job that lasts."""
HEAVY_LIBRARIES = ("torch", "numpy", "cv2")
CALLS = 300
INTO_THE_JOB_S = 0.3
"""How long a job has run when its processes are killed."""


def measure_start(place: Place, *, pairs: int = 15) -> Iterator[Row]:
    """Time from the start of the process to the answer of tools/list, in pairs, and what the server holds then."""
    ours_s: list[float] = []
    bare_s: list[float] = []
    rss_mib: list[float] = []
    mapped: set[str] = set()
    for number in range(pairs + 1):
        turns = [(SERVER, ours_s), (BARE, bare_s)]
        for command, times in turns if number % 2 else reversed(turns):
            with server(place, command) as client:
                client.request("tools/list")
                times.append(time.perf_counter() - client.started_at)
                if command is SERVER:
                    rss_mib.append(client.process.memory_info().rss / 2**20)
                    mapped |= mapped_of(client.process, HEAVY_LIBRARIES)
    ratios = [ours / bare for ours, bare in zip(ours_s[1:], bare_s[1:], strict=True)]  # the first pair warms the disk
    ratio = statistics.median(ratios)
    medians = f"ours {ms(statistics.median(ours_s[1:]))}, bare {ms(statistics.median(bare_s[1:]))}"
    quartiles = " ".join(f"{value:.2f}" for value in statistics.quantiles(ratios))
    figure = f"x {ratio:.2f} ({medians}; quartiles {quartiles})"
    yield Row(f"start to tools/list, median of {pairs} pairs", figure, "<= x 1.35", ratio <= 1.35)
    yield Row("RSS after tools/list", f"{max(rss_mib):.0f} MiB (max)", "<= 100 MiB", max(rss_mib) <= 100)
    yield Row("torch, numpy, cv2 in the server", ", ".join(sorted(mapped)) or "none", "none", not mapped)


def measure_generate(place: Place, *, calls: int = 100, large_calls: int = 12) -> Iterator[Row]:
    """Time until `generate` has accepted a photo given by its path, on an idle worker."""
    files = photographs(place.pictures)
    with server(place) as client:
        for name in ("1 MP JPEG", "1 MP PNG"):
            times = [_accepted_s(client, files[name]) for _ in range(calls)]
            is_kept = percentile(times, 0.99) <= 0.150
            yield Row(f"generate accepts {name}, {calls} calls", summary(times), "p99 <= 150 ms", is_kept)
        times = [_accepted_s(client, files["8 MP JPEG"]) for _ in range(large_calls)]
        is_kept = max(times) <= 0.400
        yield Row(f"generate accepts 8 MP JPEG, {large_calls} calls", summary(times), "max <= 400 ms", is_kept)
        for name in ("8 MP PNG", "1 MP WebP", "8 MP WebP"):
            pairs = [(_decode_s(files[name]), _accepted_s(client, files[name])) for _ in range(large_calls)]
            beyond = [accepted - decoded for decoded, accepted in pairs]
            decode_s = statistics.median(decoded for decoded, _ in pairs)
            figure = f"decode + {summary(beyond)} (decode {ms(decode_s)})"
            is_kept = statistics.median(beyond) <= 0.100
            yield Row(f"generate accepts {name}, {large_calls} calls", figure, "p50 <= decode + 100 ms", is_kept)
        rss_mib = client.process.memory_info().rss / 2**20
        mapped = mapped_of(client.process, HEAVY_LIBRARIES)
        yield Row("RSS after all these pictures", f"{rss_mib:.0f} MiB", "", None)
        yield Row("torch, numpy, cv2 after them", ", ".join(sorted(mapped)) or "none", "none", not mapped)


def measure_calls(place: Place) -> Iterator[Row]:
    """Round trips of tools, on an idle server and while jobs run; and how large the messages are."""
    picture = photographs(place.pictures)["1 MP PNG"]
    with server(place) as client:
        client.request("tools/list")
        yield Row("tools/list, bytes", f"{client.answer_bytes:,}", "<= 18,432", client.answer_bytes <= 18_432)
        until_ready(client)
        done = client.call("generate", product_image=picture, **SMALL)["job_id"]
        poll(lambda: look(client, done)["status"] == "completed")
        calls = {"health": {}, "status": {"job_id": done, "include_images": "none"}}
        for tool, arguments in calls.items():
            times = [_call_s(client, tool, **arguments) for _ in range(CALLS)]
            yield Row(f"{tool}, idle, {CALLS} calls", summary(times), "", None)
        busy: dict[str, list[float]] = {"health": [], "status": []}
        sizes: list[int] = []
        jobs = 0
        while min(map(len, busy.values())) < CALLS:
            job_id = client.call("generate", product_image=picture, **LARGE)["job_id"]
            jobs += 1
            while True:
                start = time.perf_counter()
                state = look(client, job_id)
                taken_s = time.perf_counter() - start
                if state["status"] != "running":
                    break
                busy["status"].append(taken_s)
                sizes.append(client.answer_bytes)
                busy["health"].append(_call_s(client, "health"))
                time.sleep(0.005)
        for tool, times in busy.items():
            what = f"{tool} while a 2048 px job runs, {len(times)} calls in {jobs} jobs"
            yield Row(what, summary(times), "p99 <= 30 ms", percentile(times, 0.99) <= 0.030)
        yield Row("status of a running job, bytes", f"{max(sizes):,} (max)", "", None)
        for images in ("preview", "full"):
            times = [_call_s(client, "status", job_id=job_id, include_images=images) for _ in range(5)]
            size = client.answer_bytes
            yield Row(f"status with {images} of 2048 px, bytes", f"{size:,}", "<= 900,000", size <= 900_000)
            yield Row(f"status with {images} of 2048 px, 5 calls", median_max(times), "", None)


def measure_http(place: Place) -> Iterator[Row]:
    """A trivial call over HTTP on a kept connection, in turns with one to a bare server."""
    place.data.mkdir(parents=True)
    port = free_port()
    bare = subprocess.Popen([*BARE, str(port)], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        with http_server(place) as url:
            poll(lambda: is_listening(port), every_s=0.05)
            poll(lambda: call_over_http(url, "health")["worker"] == "ready", every_s=0.05)
            with HttpClient(url) as client, HttpClient(f"http://127.0.0.1:{port}") as other:
                ours_s: list[float] = []
                bare_s: list[float] = []
                for _ in range(CALLS):
                    ours_s.append(_call_s(client, "health"))
                    bare_s.append(_call_s(other, "add", first=1, second=2))
    finally:
        bare.terminate()
        bare.wait(10)
    ratio = statistics.median(ours_s) / statistics.median(bare_s)
    figure = f"x {ratio:.2f} (ours {summary(ours_s)}; bare {summary(bare_s)})"
    yield Row(f"health over HTTP against a bare server's tool, {CALLS} calls", figure, "<= x 1.5", ratio <= 1.5)


def measure_recovery(place: Place, *, rounds: int = 9) -> Iterator[Row]:
    """SIGKILL the worker during a job: when `status` says so, when there is a new one, and whether it works."""
    picture = photographs(place.pictures)["1 MP PNG"]
    noticed_s: list[float] = []
    replaced_s: list[float] = []
    completed = 0
    with server(place) as client:
        for number in range(rounds):
            until_ready(client)
            worker = worker_of(client.process)
            job_id = client.call("generate", product_image=picture, **LARGE)["job_id"]
            time.sleep(0.1 + 0.15 * number)
            if look(client, job_id)["status"] != "running":
                raise RuntimeError("the job was over before its worker was killed")
            killed_at = time.perf_counter()
            worker.kill()
            while (state := look(client, job_id))["status"] != "failed":
                time.sleep(0.002)
            noticed_s.append(time.perf_counter() - killed_at)
            if state["error"]["code"] != "worker_crashed":
                raise RuntimeError(f"the job failed with {state['error']}")
            until_ready(client)
            replaced_s.append(time.perf_counter() - killed_at)
            after = client.call("generate", product_image=picture, wait_seconds=50, **SMALL)
            completed += after["status"] == "completed"
    is_kept = max(noticed_s) <= 0.050
    yield Row(f"worker's death is a failed job, {rounds} kills", median_max(noticed_s), "max <= 50 ms", is_kept)
    yield Row("draft worker is replaced", median_max(replaced_s), "max <= 2 s", max(replaced_s) <= 2.0)
    yield Row("next job completes", f"{completed} of {rounds}", "all", completed == rounds)


def measure_orphans(place: Place, *, rounds: int = 5) -> Iterator[Row]:
    """SIGKILL a server, or the client that started one, during a job: when every process is gone."""
    picture = photographs(place.pictures)["1 MP PNG"]
    for what, outlived_s in (
        ("worker is gone after SIGKILL of its stdio server", _worker_outlives_stdio_s),
        ("worker is gone after SIGKILL of its http server", _worker_outlives_http_s),
        ("server and worker are gone after SIGKILL of the client", _processes_outlive_client_s),
    ):
        # A data folder for each kill: the next server would go on with the job that was cut off.
        places = [replace(place, data=place.data / f"{outlived_s.__name__}-{number}") for number in range(rounds)]
        times = [outlived_s(fresh, picture) for fresh in places]
        yield Row(f"{what}, {rounds} kills", median_max(times), "max <= 2 s", max(times) <= 2.0)


def _worker_outlives_stdio_s(place: Place, picture: str) -> float:
    with server(place) as client:
        worker = _compute(client, picture)
        return gone_s([worker], after=client.kill)


def _worker_outlives_http_s(place: Place, picture: str) -> float:
    place.data.mkdir(parents=True)
    with http_server(place) as url:
        poll(lambda: call_over_http(url, "health")["worker"] == "ready", every_s=0.05)
        call_over_http(url, "generate", product_image=picture, **LARGE)
        time.sleep(INTO_THE_JOB_S)
        found = processes_of(place)
        (server,) = found["server"]
        return gone_s(found["worker"], after=server.kill)


def _processes_outlive_client_s(place: Place, picture: str) -> float:
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    client = spawning.Process(target=_be_a_client, args=(place, picture, there))
    client.start()
    orphans = [psutil.Process(pid) for pid in here.recv()]
    outlived_s = gone_s(orphans, after=client.kill)
    client.join()
    return outlived_s


def _be_a_client(place: Place, picture: str, parent: Connection) -> None:
    with server(place) as client:
        worker = _compute(client, picture)
        parent.send((client.process.pid, worker.pid))
        parent.recv()  # until the kill


def server(place: Place, command: Sequence[str] = SERVER) -> StdioClient:
    """A client of a fresh stdio server on the data folder of `place`."""
    place.data.mkdir(parents=True, exist_ok=True)
    return StdioClient(command, place.environment(), log=place.data.parent / f"{place.data.name}.log")


def _compute(client: StdioClient, picture: str) -> psutil.Process:
    """Bring the server's worker into the midst of a job."""
    until_ready(client)
    worker = worker_of(client.process)
    client.call("generate", product_image=picture, **LARGE)
    time.sleep(INTO_THE_JOB_S)
    return worker


def until_ready(client: StdioClient) -> None:
    """Wait for the server's worker."""
    poll(lambda: client.call("health")["worker"] == "ready")


def _call_s(client: StdioClient | HttpClient, tool: str, **arguments: Any) -> float:
    start = time.perf_counter()
    client.call(tool, **arguments)
    return time.perf_counter() - start


def look(client: StdioClient, job_id: str) -> dict[str, Any]:
    """The job's status without pictures."""
    return client.call("status", job_id=job_id, include_images="none")


def _accepted_s(client: StdioClient, picture: str) -> float:
    """Time of one `generate`; its job is stopped and the worker idle again afterwards."""
    until_ready(client)
    start = time.perf_counter()
    job_id = client.call("generate", product_image=picture, text_content="Sale", **SMALL)["job_id"]
    accepted_s = time.perf_counter() - start
    client.call("stop", job_id=job_id)
    poll(lambda: client.call("health")["running_job"] is None)
    return accepted_s


def _decode_s(picture: str) -> float:
    data = Path(picture).read_bytes()
    start = time.perf_counter()
    Image.open(io.BytesIO(data)).load()
    return time.perf_counter() - start
