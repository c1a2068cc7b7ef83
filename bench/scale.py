"""What ten thousand stored jobs cost, against ten."""

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.schemas import JobState
from ad_agent_mcp.jobs.job import new_job_id
from ad_agent_mcp.jobs.retention import prune
from ad_agent_mcp.jobs.store import JobStore
from tests.e2e.support import SMALL, Place

from .client import StdioClient
from .pictures import photographs
from .report import Row, ms
from .server import server, until_ready

FEW, MANY = 10, 10_000
KEPT = {"AD_AGENT_KEEP_JOBS": "20000", "AD_AGENT_KEEP_GB": "1000"}
CALLS = {
    "status of the latest": ("status", {"include_images": "none"}),
    "list_jobs": ("list_jobs", {}),
    "list_jobs(status=running)": ("list_jobs", {"status": "running"}),
    "list_jobs(status=failed)": ("list_jobs", {"status": "failed"}),
}


def measure_scale(place: Place, *, pairs: int = 12, calls: int = 200) -> Iterator[Row]:
    """Starts and calls in pairs, one of each beside the other."""
    places = [replace(place, data=place.data / str(count), settings=KEPT) for count in (FEW, MANY)]
    for one, count in zip(places, (FEW, MANY), strict=True):
        _fill(one, count)
    starts: list[list[float]] = [[], []]
    for number in range(pairs + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            with server(places[side]) as client:
                client.request("tools/list")
                starts[side].append(time.perf_counter() - client.started_at)
    yield _row(f"start to tools/list, {pairs} pairs", [times[1:] for times in starts], limit=1.2)
    with server(places[0]) as few, server(places[1]) as many:
        clients = (few, many)
        for what, (tool, arguments) in CALLS.items():
            count, limit = (calls, 1.2) if tool == "status" else (15, None)
            times: list[list[float]] = [[], []]
            for _ in range(count + 1):
                for client, taken_s in zip(clients, times, strict=True):
                    taken_s.append(_call_s(client, tool, arguments))
            yield _row(f"{what}, {count} pairs", [taken[1:] for taken in times], limit=limit)
    store, settings = JobStore(places[1].data), Settings(keep_jobs=20_000, keep_gb=1000)
    for when in ("first", "second"):
        start = time.perf_counter()
        prune(store, settings)
        yield Row(f"retention over {MANY:,} jobs, {when} time", ms(time.perf_counter() - start), "", None)


def _row(what: str, times: list[list[float]], *, limit: float | None) -> Row:
    few, many = map(statistics.median, times)
    figure = f"x {many / few:.2f} ({FEW}: {ms(few)}, {MANY:,}: {ms(many)})"
    bar = "" if limit is None else f"<= x {limit}"
    return Row(f"{MANY:,} stored jobs: {what}", figure, bar, None if limit is None else many / few <= limit)


def _call_s(client: StdioClient, tool: str, arguments: dict[str, str]) -> float:
    start = time.perf_counter()
    client.call(tool, **arguments)
    return time.perf_counter() - start


def _fill(place: Place, count: int) -> None:
    """One real job, and copies of it under other ids; their pictures share its bytes."""
    with server(place) as client:
        until_ready(client)
        picture = photographs(place.pictures)["1 MP JPEG"]
        made = client.call("generate", product_image=picture, text_content="Sale", wait_seconds=50, **SMALL)["job_id"]
    store = JobStore(place.data)
    job = store.load(made)
    if job.status is not JobState.COMPLETED:
        raise RuntimeError(f"the job is {job.status}")
    names = [str(path.relative_to(store.folder(made))) for path in store.folder(made).rglob("*") if path.is_file()]
    for _ in range(count - 1):
        copy = job.model_copy(update={"id": new_job_id()})
        folder = store.jobs / copy.id
        (folder / "inputs").mkdir(parents=True)
        for name in set(names) - {"job.json"}:
            os.link(store.folder(made) / name, folder / name)
        (folder / "job.json").write_text(copy.model_dump_json(by_alias=True), "utf-8")
    (place.data / "latest").write_text(store.job_ids()[0], "utf-8")
    (place.data / "sizes.json").unlink(missing_ok=True)
