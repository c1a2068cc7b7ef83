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
from rich.table import Column, Table

from .. import __version__
from ..config import EngineChoice, Settings
from ..contract.errors import AdAgentError
from ..contract.stages import EngineName
from ..contract.texts import Text, say
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
from .shell import shown

MIN_FREE_GB = 1
MIN_RAM_GB = 2
HTTP_PORT = 8000

Verdict = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `missing` is something that a job needs."""

    what: Text
    verdict: Verdict
    text: Text


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything a job needs."""
    yield _finding("ad-agent-mcp", "ok", f"{__version__}, Python {sys.version.split()[0]}")
    yield from _machine(settings)
    yield from _engine(settings)
    yield from _data(settings)
    yield from _fonts(settings)
    yield from (Finding(say("doctor.folders"), "note", warning) for warning in folder_warnings(settings))
    yield _port()


def run_doctor(settings: Settings) -> int:
    """Show the findings.

    Returns:
        0, or 1 when something needed is missing.
    """
    console = Console()
    findings = list(examine(settings))
    finding_column = Column(shown(say("doctor.head_finding")), overflow="fold")
    table = Table(shown(say("doctor.head_what")), "", finding_column, show_edge=False)
    styles = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in findings:
        verdict = shown(say(f"doctor.verdict_{finding.verdict}"))
        table.add_row(shown(finding.what), f"[{styles[finding.verdict]}]{verdict}[/]", escape(shown(finding.text)))
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
        why = say("doctor.no_gpu_visible") if machine.gpu is None else choice.reason
        raise unavailable(say("doctor.no_gpu_required", why=why))


def _finding(what: Text | str, verdict: Verdict, told: object) -> Finding:
    """A finding of what needs no words of its own."""
    return Finding(say("doctor.plain", told=what), verdict, say("doctor.plain", told=told))


def _machine(settings: Settings) -> Iterator[Finding]:
    metrics = SystemMonitor().sample()
    free_gb = metrics.ram_total_gb - metrics.ram_used_gb
    known = {"free": free_gb, "total": metrics.ram_total_gb}
    if free_gb >= MIN_RAM_GB:
        yield Finding(say("doctor.machine_memory"), "ok", say("doctor.memory_free", **known))
    else:
        yield Finding(say("doctor.machine_memory"), "note", say("doctor.memory_low", **known, needed=MIN_RAM_GB))
    for gpu in metrics.gpu_info:
        free = (gpu.vram_total_mb - gpu.vram_used_mb) / 1024
        what = say("doctor.gpu_numbered", index=gpu.index)
        yield Finding(what, "ok", say("doctor.gpu_free", name=gpu.name, free=free))
    order = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if len(metrics.gpu_info) > 1 and order != "PCI_BUS_ID":
        yield Finding(say("doctor.gpu_order"), "note", say("doctor.gpu_order_ignored", order=order))
    if not metrics.gpu_info:
        verdict: Verdict = "missing" if settings.require_gpu else "note"
        yield Finding(say("doctor.gpu"), verdict, say("doctor.no_gpu"))


def _engine(settings: Settings) -> Iterator[Finding]:
    machine = this_machine(settings.device_lock)
    try:
        choice = choose_engine(settings, machine)
        is_enough = choice.is_ready and not (settings.require_gpu and choice.engine is EngineName.DRAFT)
        yield Finding(say("doctor.engine"), "ok" if is_enough else "missing", choice.reason)
        if settings.engine is EngineChoice.DRAFT:
            return
        preset, library = preset_named(settings.preset), ModelLibrary(settings)
        if machine.gpu is not None and (lack := lacks_to_compile()):
            text = say("doctor.uncompiled", lack=lack, preset=preset.name)
            yield Finding(say("doctor.compiler"), "note", text)
        standings = [library.standing(preset, source.role) for source in preset.sources]
        for standing in standings:
            yield _model(standing, is_mine=bool(library.overrides.get(standing.source.role)))
        if any(standing.state is not State.PREPARED for standing in standings):
            told = remedy(preset, [standing.state for standing in standings])
            yield Finding(say("doctor.models"), "note", told)
    except (AdAgentError, ValueError) as error:
        yield _finding(say("doctor.engine"), "missing", error)


def _model(standing: Standing, *, is_mine: bool) -> Finding:
    source = standing.source
    state = say(f"commands.state_{standing.state}")
    known = {"name": standing.location.name, "state": state, "size": standing.size_bytes / 1e9}
    if is_mine:
        text = say("doctor.model_mine", **known)
    elif source.is_commercial:
        text = say("doctor.model_commercial", **known, terms=source.terms)
    else:
        text = say("doctor.model_restricted", **known, terms=source.terms)
    verdict: Verdict = "ok" if standing.state is State.PREPARED else "note"
    return Finding(say("doctor.model", role=source.role), verdict, text)


def _memory_plan(settings: Settings) -> Table | None:
    """What the preset's models would take on the GPU, or without one, if asked for, on the CPU."""
    machine = this_machine(settings.device_lock)
    if settings.engine is EngineChoice.DRAFT or (machine.gpu is None and settings.engine is EngineChoice.AUTO):
        return None
    preset = preset_named(settings.preset)
    plan = plan_for(settings, preset, ModelLibrary(settings), machine)
    title = say("doctor.plan_on_gpu" if machine.gpu is not None else "doctor.plan_on_cpu", preset=preset.name)
    verdict = say(f"doctor.fit_{plan.verdict}")
    words = say("doctor.plan", verdict=verdict, why=plan.why, host=plan.host_bytes / 2**30)
    heading = [shown(say(f"doctor.plan_head_{name}")) for name in ("stage", "weights", "peak", "in", "out")]
    table = Table(*heading, title=shown(title), caption=shown(words), show_edge=False)
    for stage in rows(plan):
        table.add_row(*stage)
    return table


def _data(settings: Settings) -> Iterator[Finding]:
    try:
        store = JobStore(settings.data_dir)
        probe = store.root / ".doctor"
        write_atomically(probe, b"")
        probe.unlink()
    except (AdAgentError, OSError) as error:
        yield _finding(say("doctor.data_folder"), "missing", error)
        return
    free_gb = shutil.disk_usage(store.root).free / 2**30
    is_roomy = free_gb >= MIN_FREE_GB
    known = {"folder": store.root, "free": free_gb, "count": len(store.job_ids())}
    text = say("doctor.data" if is_roomy else "doctor.data_full", **known)
    yield Finding(say("doctor.data_folder"), "ok" if is_roomy else "missing", text)
    roots = [root for root in image_roots(settings, store, remote=False) if root.is_dir()]
    yield _finding(say("doctor.picture_folders"), "ok", roots)


def _fonts(settings: Settings) -> Iterator[Finding]:
    fonts = FontCatalog(settings.font_dirs).fonts()
    hangul = sum(font.hangul for font in fonts)
    text = say("doctor.font_count" if hangul else "doctor.fonts_without_hangul", count=len(fonts), hangul=hangul)
    yield Finding(say("doctor.fonts"), "ok" if hangul else "missing", text)
    if features.check_feature("raqm"):
        yield Finding(say("doctor.shaping"), "ok", say("doctor.raqm"))
    else:
        yield Finding(say("doctor.shaping"), "note", say("doctor.no_raqm"))


def _port() -> Finding:
    try:
        socket.create_server(("127.0.0.1", HTTP_PORT)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return Finding(say("doctor.port"), "note", say("doctor.port_taken", port=HTTP_PORT))
    return Finding(say("doctor.port"), "ok", say("doctor.port_free", port=HTTP_PORT))
