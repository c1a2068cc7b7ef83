"""What the tools, resources and routes of one server work with, and how that server is."""

from dataclasses import dataclass
from typing import Any, Literal

import anyio.to_thread
from mcp.server.mcpserver import Context
from pydantic import BaseModel
from starlette.requests import Request

from .. import __version__
from ..contract.call import GenerateRequest
from ..contract.texts import Language, say
from ..hardware import SystemMonitor
from ..jobs.folders import folder_warnings
from ..jobs.job import Job
from ..jobs.service import JobService
from ..jobs.store import JobStore
from ..media.fonts import FontCatalog
from .views import FileLocator, JobStatus, job_status


class HealthReport(BaseModel):
    """How the server is."""

    status: Literal["ok", "degraded"]
    gpu_available: bool
    version: str
    engine: str
    preset: str | None
    device: str | None
    worker: Literal["ready", "starting"]
    worker_restarts: int
    running_job: str | None
    warnings: list[str]


@dataclass(frozen=True)
class AppContext:
    """What the tools and resources of one server work with."""

    service: JobService
    store: JobStore
    fonts: FontCatalog
    monitor: SystemMonitor

    @property
    def language(self) -> Language:
        """Of what agents are told."""
        return self.service.settings.lang or "en"

    async def status_of(self, job: Job, ctx: Context[Any, Any]) -> JobStatus:
        """A job as the asking client sees it."""
        locate, language = self.locator(ctx), self.language
        return await anyio.to_thread.run_sync(
            lambda: job_status(job, store=self.store, locate=locate, metrics=self.monitor.sample(), language=language)
        )

    def locator(self, ctx: Context[Any, Any]) -> FileLocator:
        """Where the asking client finds files: paths on this machine, or URLs at the address that it used."""
        request = ctx.request_context.request
        if not isinstance(request, Request):
            return lambda job_id, name: str(self.store.folder(job_id) / f"{name}.png")
        base = str(request.base_url).rstrip("/")
        return lambda job_id, name: f"{base}/files/{job_id}/{name}.png"

    async def health(self, language: Language = "en") -> HealthReport:
        """How the server is, in detail."""
        metrics = await anyio.to_thread.run_sync(self.monitor.sample)
        worker, current = self.service.worker, self.service.current
        ready = worker.ready
        folders = await anyio.to_thread.run_sync(folder_warnings, self.service.settings)
        failing = say("answers.worker_failing") if worker.is_failing else None
        trouble = await anyio.to_thread.run_sync(self.store.trouble)
        exposure = await anyio.to_thread.run_sync(self.store.exposure)
        warnings = [*folders, failing, worker.engine_warning, trouble, exposure]
        return HealthReport(
            status="degraded" if worker.is_failing or trouble is not None else "ok",
            gpu_available=bool(metrics.gpu_info),
            version=__version__,
            engine=self.service.planner.engine_for(GenerateRequest()),
            preset=ready.presets[0] if ready else None,
            device=ready.device if ready else None,
            worker="ready" if ready else "starting",
            worker_restarts=worker.restarts,
            running_job=current.id if current else None,
            warnings=[told.in_(language) for told in warnings if told is not None],
        )
