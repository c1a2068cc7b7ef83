"""`ad-agent-mcp doctor`: what this machine can do, what it lacks, and the remedy."""

import contextlib
import errno
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import features
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..config import EngineChoice, Settings
from ..contract.errors import AdAgentError
from ..contract.stages import EngineName
from ..files import write_atomically
from ..hardware import SystemMonitor, this_machine
from ..jobs.folders import folder_warnings
from ..jobs.image_refs import image_roots
from ..jobs.store import JobStore
from ..media.fonts import FontCatalog
from ..models.catalog import preset_named
from ..models.library import ModelLibrary, Standing, State, remedy, unavailable
from ..models.memory_plan import rows
from ..models.selection import choose_engine, lacks_to_compile, plan_for

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
    yield from _engine(settings)
    yield from _data(settings)
    yield from _fonts(settings)
    yield from (Finding("folders", "note", str(warning)) for warning in folder_warnings(settings))
    yield _port()


def run_doctor(settings: Settings) -> int:
    """Show the findings.

    Returns:
        0, or 1 when something needed is missing.
    """
    console = Console()
    findings = list(examine(settings))
    table = Table("what", "", "finding", show_edge=False)
    styles = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        table.add_row(finding.what, f"[{styles[finding.verdict]}]{finding.verdict}[/]", escape(finding.text))
    console.print(table)
    with contextlib.suppress(AdAgentError, ValueError):  # the findings have said it
        if (plan := _memory_plan(settings)) is not None:
            console.print("", plan)
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def require_gpu(settings: Settings) -> None:
    """Make sure that jobs will run on a GPU.

    Raises:
        AdAgentError: `model_unavailable`; there is none, its memory is too small, or models are missing.
    """
    machine = this_machine(settings.device_lock)
    choice = choose_engine(settings, machine)
    if machine.gpu is None or choice.engine is EngineName.DRAFT or not choice.is_ready:
        why = "no NVIDIA GPU is visible." if machine.gpu is None else str(choice.reason)
        raise unavailable(f"AD_AGENT_REQUIRE_GPU is set, but: {why} `ad-agent-mcp doctor` tells more.")


def _machine(settings: Settings) -> Iterator[Finding]:
    metrics = SystemMonitor().sample()
    free_gb = metrics.ram_total_gb - metrics.ram_used_gb
    text = f"{free_gb:.1f} of {metrics.ram_total_gb:.1f} GiB free"
    if free_gb < MIN_RAM_GB:
        text += f"; a draft job needs about {MIN_RAM_GB} GiB: close other programs"
    yield Finding("memory", "ok" if free_gb >= MIN_RAM_GB else "note", text)
    for gpu in metrics.gpu_info:
        free = (gpu.vram_total_mb - gpu.vram_used_mb) / 1024
        yield Finding(f"GPU {gpu.index}", "ok", f"{gpu.name}, {free:.1f} GiB free")
    order = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if len(metrics.gpu_info) > 1 and order != "PCI_BUS_ID":
        text = f"CUDA_DEVICE_ORDER={order} is not followed: GPUs are counted by PCI bus, as nvidia-smi counts them"
        yield Finding("GPU order", "note", f"{text}; name another in CUDA_VISIBLE_DEVICES, best by its UUID")
    if not metrics.gpu_info:
        verdict: Verdict = "missing" if settings.require_gpu else "note"
        yield Finding("GPU", verdict, "no NVIDIA GPU is visible; the driver and, in a container, --gpus all are needed")


def _engine(settings: Settings) -> Iterator[Finding]:
    machine = this_machine(settings.device_lock)
    try:
        choice = choose_engine(settings, machine)
        is_enough = choice.is_ready and not (settings.require_gpu and choice.engine is EngineName.DRAFT)
        yield Finding("engine", "ok" if is_enough else "missing", str(choice.reason))
        if settings.engine is EngineChoice.DRAFT:
            return
        preset, library = preset_named(settings.preset), ModelLibrary(settings)
        if machine.gpu is not None and (lack := lacks_to_compile()):
            text = f"{lack}: preset {preset.name} runs uncompiled, so slower; install gcc and python3-dev, or set CC"
            yield Finding("C compiler", "note", text)
        standings = [library.standing(preset, source.role) for source in preset.sources]
        for standing in standings:
            yield _model(standing, is_mine=bool(library.overrides.get(standing.source.role)))
        if any(standing.state is not State.PREPARED for standing in standings):
            yield Finding("models", "note", str(remedy(preset, [standing.state for standing in standings])))
    except (AdAgentError, ValueError) as error:
        yield Finding("engine", "missing", str(error))


def _model(standing: Standing, *, is_mine: bool) -> Finding:
    source = standing.source
    licence = "" if is_mine else f"{source.terms}{'' if source.is_commercial else ', not for commercial use'}; "
    text = f"{standing.location.name}: {licence}{standing.state}, {standing.size_bytes / 1e9:.1f} GB on disk"
    return Finding(f"model {source.role}", "ok" if standing.state is State.PREPARED else "note", text)


def _memory_plan(settings: Settings) -> Table | None:
    """What the preset's models would take on the GPU, or without one, if asked for, on the CPU."""
    machine = this_machine(settings.device_lock)
    if settings.engine is EngineChoice.DRAFT or (machine.gpu is None and settings.engine is EngineChoice.AUTO):
        return None
    preset = preset_named(settings.preset)
    plan = plan_for(settings, preset, ModelLibrary(settings), machine)
    where = "GPU" if machine.gpu is not None else "CPU: no GPU is visible, so models take ordinary memory"
    heading, *stages = rows(plan)
    words = f"{plan.verdict.replace('_', ' ')}: {plan.why}; {plan.host_bytes / 2**30:.1f} GiB of host memory"
    table = Table(*heading, title=f"preset {preset.name} at 1024 x 1024 on the {where}", caption=words, show_edge=False)
    for stage in stages:
        table.add_row(*stage)
    return table


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
    fonts = FontCatalog(settings.font_dirs).fonts()
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
    try:
        socket.create_server(("127.0.0.1", HTTP_PORT)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return Finding("port", "note", f"{HTTP_PORT} is in use; serve --transport http needs another --port")
    return Finding("port", "ok", f"{HTTP_PORT} is free for serve --transport http")
