"""Figures against their bars: as a table, as JSON, and in a document. Knows nothing about what is measured."""

import importlib.metadata
import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

VERSIONS_OF = ("ad-agent-mcp", "mcp", "pydantic", "pillow", "opencv-python-headless", "numpy")
BEGIN, END = "<!-- written by python -m bench -->", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """One line of the table; `ok` is null where there is no bar."""

    what: str
    figure: str
    bar: str
    ok: bool | None


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "processor": f"{_cpu_model()}, {os.cpu_count()} cores visible",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions()),
    }


def markdown(rows: Iterable[Row], about: Mapping[str, str]) -> str:
    """The machine and the table."""
    facts = [f"- {name}: {fact}" for name, fact in about.items()]
    shown = [f"| {row.what} | {row.figure} | {row.bar} | {verdict(row)} |" for row in rows]
    return "\n".join([*facts, "", "| what | measured | bar | kept |", "|---|---|---|---|", *shown])


def verdict(row: Row) -> str:
    """Whether the bar is kept, in a word."""
    return {True: "yes", False: "NO", None: ""}[row.ok]


def write_into(document: Path, text: str) -> None:
    """Replace what stands between the marks of `document`.

    Raises:
        ValueError: it has no such marks.
    """
    before = document.read_text("utf-8")
    after, count = re.subn(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{text}\n{END}", before, flags=re.DOTALL
    )
    if not count:
        raise ValueError(f"{document} has no lines {BEGIN} and {END}")
    document.write_text(after, "utf-8")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that `share` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def summary(times_s: Sequence[float]) -> str:
    """Median, 99th percentile and maximum."""
    return f"p50 {ms(statistics.median(times_s))}, p99 {ms(percentile(times_s, 0.99))}, max {ms(max(times_s))}"


def median_max(times_s: Sequence[float]) -> str:
    """Median and maximum."""
    return f"median {ms(statistics.median(times_s))}, max {ms(max(times_s))}"


def ms(seconds: float) -> str:
    """Milliseconds with what digits they deserve."""
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0995 else f"{seconds * 1000:.1f} ms"


def _cpu_model() -> str:
    try:
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _versions() -> Iterable[tuple[str, str]]:
    for name in VERSIONS_OF:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"
