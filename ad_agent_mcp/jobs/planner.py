"""How a job would run as things are: on which engine, with which stages, until when; or why it cannot.

Looks at what the worker says, or said last on this machine, and at measured times; changes nothing.
"""

import time
from collections.abc import Sequence
from typing import Any

from ..config import EngineChoice, Settings
from ..contract.call import GenerateRequest
from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo, Fix
from ..contract.stages import EngineInfo, EngineName
from ..contract.texts import say
from ..supervisor.supervisor import Supervisor
from .admission import small
from .estimates import LoadState, StageTimes
from .job import Job, start
from .plan import plan_segment, with_preset_values


class Planner:
    """Plans the jobs of one server."""

    def __init__(self, settings: Settings, worker: Supervisor, times: StageTimes, server_id: str) -> None:
        self._settings = settings
        self._worker = worker
        self._times = times
        self._server_id = server_id

    def engine_for(self, request: GenerateRequest) -> EngineName:
        """The engine that a request will run on."""
        if request.test_mode:
            return EngineName.DRAFT
        if self._worker.ready is not None:
            return self._worker.ready.engine
        return EngineName.DIFFUSION if self._settings.engine is EngineChoice.DIFFUSION else EngineName.DRAFT

    def refusal(self, engine: EngineName, arguments: dict[str, Any]) -> AdAgentError | None:
        """The error for a job that `engine` cannot run as things are, if that is known; `arguments` make it anew."""
        ready = self._worker.ready
        is_refused = ready is not None and ready.refusal is not None and engine is ready.engine
        if ready is None or not (is_refused or self._info(engine) is None):
            return None
        return AdAgentError(
            ErrorCode.MODEL_UNAVAILABLE,
            say("jobs.refused", refusal=ready.refusal or ready.note),
            fix=Fix(tool="generate", arguments={**arguments, "test_mode": True}),
        )

    def refused(self, job: Job) -> ErrorInfo | None:
        """Why the job cannot run as things are, if that is known."""
        refused = self.refusal(job.engine, small(job.request, job.given))
        return refused.info if refused else None

    def planned(self, job: Job, found: LoadState, at: float) -> Job:
        """The job as it starts at `at`, seconds since the epoch; without a plan while its engine is unknown."""
        if found is LoadState.STARTING and not job.finished:
            job = job.model_copy(update={"engine": self.engine_for(job.request)})
        if (info := self._info(job.engine)) is None:
            return start(job, None, {}, at=at, owner=self._server_id)
        job = with_preset_values(job, info)
        plan, notices = plan_segment(job, info)
        expected = self._times.expect(plan, info, pixels=job.request.width * job.request.height, found=found)
        if self._worker.ready is not None:  # before, its engine and all that follows from it is a guess
            job = job.model_copy(update={"warnings": tuple(dict.fromkeys((*job.warnings, *notices)))})
        return start(job, plan, expected, at=at, owner=self._server_id)

    def with_turn(self, job: Job, current: Job | None, queue: Sequence[Job]) -> Job:
        """A job of `queue` with the time at which it should be over, after those before it and the `current` one."""
        at = current.ends_at if current is not None else None
        for queued in queue:
            if at is None:
                break
            planned = self.planned(queued, LoadState.WARM, max(at, time.time()))
            if queued.id == job.id:
                return job.model_copy(update={"ends_at": planned.ends_at, "step_ends_at": planned.step_ends_at})
            at = planned.ends_at
        return job

    def _info(self, engine: EngineName) -> EngineInfo | None:
        """What the worker says of the engine, else what one said last."""
        told = self._worker.ready.engines if self._worker.ready is not None else ()
        preset = "draft" if engine is EngineName.DRAFT else self._settings.preset
        return next((info for info in told if info.name is engine), None) or self._times.engine(engine, preset)
