"""`ad-agent-mcp doctor`: what this machine can do, what it lacks, and the remedy."""

import errno
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import features
from rich.console import Console
from rich.table import Table

from . import __version__
from .config import EngineChoice, Settings
from .contract.errors import AdAgentError
from .files import write_atomically
from .imaging.fonts import FontCatalog
from .server.metrics import WANTED_VRAM_GB, SystemMonitor
from .server.references import image_roots
from .server.store import JobStore

MIN_FREE_GB = 1
MIN_RAM_GB = 2
HTTP_PORT = 8000

Verdict = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `missing` is something that a job needs."""

    what: str
    verdict: Verdict
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything a job needs."""
    yield Finding("ad-agent-mcp", "ok", f"{__version__}, Python {sys.version.split()[0]}")
    yield from _machine(settings)
    yield from _data(settings)
    yield from _fonts(settings)
    yield _port()


def run_doctor(settings: Settings, console: Console) -> int:
    """Show the findings.

    Returns:
        0, or 1 when something needed is missing.
    """
    findings = list(examine(settings))
    table = Table("what", "", "finding", show_edge=False)
    styles = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        table.add_row(finding.what, f"[{styles[finding.verdict]}]{finding.verdict}[/]", finding.text)
    console.print(table)
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def _machine(settings: Settings) -> Iterator[Finding]:
    metrics = SystemMonitor().sample()
    free_gb = metrics.ram_total_gb - metrics.ram_used_gb
    text = f"{free_gb:.1f} of {metrics.ram_total_gb:.1f} GiB free"
    few = f"{text}; a draft job needs about {MIN_RAM_GB} GiB: close other programs"
    yield Finding("memory", "ok" if free_gb >= MIN_RAM_GB else "note", text if free_gb >= MIN_RAM_GB else few)
    for gpu in metrics.gpu_info:
        free = (gpu.vram_total_mb - gpu.vram_used_mb) / 1024
        enough = free >= WANTED_VRAM_GB
        hint = "" if enough else f"; the diffusion engine wants {WANTED_VRAM_GB}"
        yield Finding(f"GPU {gpu.index}", "ok" if enough else "note", f"{gpu.name}, {free:.1f} GiB free{hint}")
    if not metrics.gpu_info:
        verdict: Verdict = "missing" if settings.require_gpu else "note"
        yield Finding("GPU", verdict, "no NVIDIA GPU is visible; the driver and, in a container, --gpus all are needed")
    if settings.engine is EngineChoice.DIFFUSION:
        yield Finding("engine", "missing", "diffusion is not part of this version; set AD_AGENT_ENGINE=draft")
    else:
        yield Finding("engine", "ok", "draft: a job makes its ad on the CPU, in a few seconds")


def _data(settings: Settings) -> Iterator[Finding]:
    try:
        store = JobStore(settings.data_dir)
        probe = store.root / ".doctor"
        write_atomically(probe, b"")
        probe.unlink()
    except (AdAgentError, OSError) as error:
        yield Finding("data folder", "missing", f"{error}")
        return
    free_gb = shutil.disk_usage(store.root).free / 2**30
    text = f"{store.root}, {free_gb:.1f} GiB free, {len(store.job_ids())} jobs"
    if free_gb < MIN_FREE_GB:
        text += "; free some space, or lower AD_AGENT_KEEP_JOBS"
    yield Finding("data folder", "ok" if free_gb >= MIN_FREE_GB else "missing", text)
    roots = [root for root in image_roots(settings, store, remote=False) if root.is_dir()]
    yield Finding("picture folders", "ok", ", ".join(str(root) for root in roots))


def _fonts(settings: Settings) -> Iterator[Finding]:
    fonts = FontCatalog.with_user_folders(settings.font_dirs).fonts()
    hangul = sum(font.hangul for font in fonts)
    text = f"{len(fonts)} fonts, {hangul} with Hangul"
    yield Finding(
        "fonts", "ok" if hangul else "missing", text if hangul else f"{text}; reinstall, or set AD_AGENT_FONT_DIRS"
    )
    if features.check_feature("raqm"):
        yield Finding("text shaping", "ok", "raqm: kerning, joining and right-to-left scripts")
    else:
        yield Finding(
            "text shaping", "note", "no fribidi library: no kerning, no Arabic or Hebrew; install libfribidi0"
        )


def _port() -> Finding:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", HTTP_PORT))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return Finding("port", "note", f"{HTTP_PORT} is in use; serve --transport http needs another --port")
    return Finding("port", "ok", f"{HTTP_PORT} is free for serve --transport http")
