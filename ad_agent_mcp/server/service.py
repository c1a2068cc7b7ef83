"""The jobs of one server: accepts them, gives them to the worker, follows them to their end.

`JobService` is the single owner of the running job, the queue, the worker and the device lock. A job never
belongs to the request that started it, so a client that vanishes takes nothing with it.
"""

import json
import logging
import math
import os
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ..config import EngineChoice, Settings
from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo, Fix
from ..contract.messages import (
    CancelJob,
    Event,
    Inputs,
    JobDone,
    JobFailed,
    JobNotice,
    ModelMoved,
    Ready,
    Shutdown,
    StageProgress,
    StartJob,
    StepResult,
)
from ..contract.schemas import GenerateRequest, JobState
from ..contract.stages import EngineName, Plan
from ..files import FileLock, is_disk_full
from .eta import StageTimes
from .intake import Intake, storage_full
from .job import Job, advance, fail, new_job_id, requeue, start, steps_to_run
from .planning import plan_segment
from .store import JobStore
from .worker_process import WORKER_COMMAND, WorkerDiedError, WorkerProcess

logger = logging.getLogger(__name__)

DEVICE_LOCK = "device-0.lock"
FOREIGN_POLL_S = 0.5
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pause before the next start, by how many workers in a row died without finishing a step."""


class JobService:
    """All that happens to jobs in one server process. Made by `open_service`."""

    def __init__(
        self, settings: Settings, store: JobStore, intake: Intake, command: Sequence[str], tasks: TaskGroup
    ) -> None:
        self.settings = settings
        self.store = store
        self.server_id = uuid.uuid4().hex[:12]
        self.ready: Ready | None = None
        """The worker's first word, while it lives."""
        self.restarts = 0
        self._intake = intake
        self._command = command
        self._tasks = tasks
        self._times = StageTimes(store.root / "stage_times.json")
        self._server_lock = FileLock(store.locks / f"server-{self.server_id}.lock")
        self._device_lock = FileLock(store.locks / DEVICE_LOCK)
        self._worker: WorkerProcess | None = None
        self._running: Job | None = None
        self._was_sent = False
        self._queue: list[Job] = []
        self._accepting = anyio.Lock()
        self._changed = anyio.Event()
        self._starting = anyio.Lock()
        self._end_as: tuple[str, ErrorInfo] | None = None
        """The job whose worker we are about to kill, and why."""
        self._waits_for_device = False
        self._failures = 0

    # what the tools call

    async def generate(self, request: GenerateRequest) -> Job:
        """Accept a job, or refuse it with nothing stored.

        Raises:
            AdAgentError: `busy`, `invalid_request`, `not_found` or `storage_full`.
        """
        await self._refuse_when_busy()
        job_id = new_job_id()
        prepared = await anyio.to_thread.run_sync(self._intake.prepare, request, job_id)
        async with self._accepting:
            await self._refuse_when_busy()
            job = Job(
                id=job_id,
                request=prepared.request,
                engine=self.engine_for(prepared.request),
                steps=steps_to_run(prepared.request),
                warnings=prepared.notices,
                created_at=time.time(),
                owner=self.server_id,
            )
            try:
                await anyio.to_thread.run_sync(self.store.create, job, prepared.inputs, prepared.layers)
            except OSError as error:
                raise (storage_full() if is_disk_full(error) else error) from error
            logger.info("job accepted", extra={"job_id": job.id})
            self._queue.append(job)
            await self._start_next()
        return self.find(job_id)

    def find(self, job_id: str) -> Job:
        """A job as it stands now, whoever runs it. A cut-off one is taken over on the way.

        Raises:
            AdAgentError: there is none, or the id is malformed.
        """
        for job in self._mine():
            if job.id == job_id:
                return job
        return self.store.load(job_id)

    def latest(self) -> Job | None:
        """The newest job, or None while there is none."""
        for job_id in self.store.job_ids():
            try:
                return self.find(job_id)
            except AdAgentError:
                continue
        return None

    async def wait(
        self, job_id: str, seconds: float, *, on_change: Callable[[Job], Awaitable[None]], every_s: float = 0.25
    ) -> Job:
        """Follow a job for at most `seconds`, or until it rests (is over, or waits for approval).

        Args:
            job_id: the job.
            seconds: how long to wait.
            on_change: called at once and then at most once per `every_s`.
            every_s: seconds between two looks.
        """
        job = await self.find_fresh(job_id)
        with anyio.move_on_after(seconds):
            while True:
                await on_change(job)
                if job.status.is_terminal or job.waiting_for is not None:
                    break
                changed = self._changed
                await anyio.sleep(every_s)
                with anyio.move_on_after(2.0):
                    await changed.wait()
                job = await self.find_fresh(job_id)
        return await self.find_fresh(job_id)

    async def find_fresh(self, job_id: str) -> Job:
        """Like `find`; a job whose server has died is adopted first, so that nobody waits for a ghost."""
        job = self.find(job_id)
        is_foreign = not job.status.is_terminal and job.waiting_for is None and job.owner != self.server_id
        if is_foreign and await anyio.to_thread.run_sync(self._is_dead, job.owner):
            await self._adopt_orphans()
            return self.find(job_id)
        return job

    async def stop(self, job_id: str, *, force: bool) -> Job:
        """End a job, keeping its finished steps; a job that is over is returned unchanged.

        Raises:
            AdAgentError: `not_found`, or `busy` when another server runs it.
        """
        job = await self.find_fresh(job_id)
        if job.status.is_terminal:
            return job
        if self._has_worker(job_id):
            await self._stop_running(job_id, grace_s=0.0 if force else self.settings.stop_grace_s)
            return self.find(job_id)
        if job.owner not in ("", self.server_id) and job.waiting_for is None:
            raise self._run_elsewhere(job)
        self._queue = [queued for queued in self._queue if queued.id != job_id]
        error = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")
        stopped = fail(job, error, at=time.time())
        await self._save(stopped)
        self._announce()
        return stopped

    async def approve(self, job_id: str, *, action: str, changes: dict[str, Any]) -> Job:
        """Continue, redo or stop a job that waits for approval.

        Raises:
            AdAgentError: it does not wait, a change is not possible, or another job runs (`busy`).
        """
        job = await self.find_fresh(job_id)
        if action == "stop":
            return await self.stop(job_id, force=False)
        async with self._accepting:
            job = self.find(job_id)
            if job.waiting_for != "approval":
                raise AdAgentError(
                    ErrorCode.INVALID_REQUEST,
                    f"Job {job_id} is {job.status} and does not wait for approval.",
                    job_id=job_id,
                    fix=Fix(tool="status", arguments={"job_id": job_id}),
                )
            await self._refuse_when_busy()
            if action == "redo":
                last = max(job.finished)
                request = await anyio.to_thread.run_sync(partial(self._intake.changed, job, changes, from_step=last))
                job = job.model_copy(
                    update={
                        "request": request,
                        "steps": steps_to_run(request),
                        "finished": {step: files for step, files in job.finished.items() if step != last},
                        "percent": 0.0,
                    }
                )
            job = job.model_copy(update={"waiting_for": None, "owner": self.server_id})
            await self._save(job)
            self._queue.append(job)
            await self._start_next()
        return self.find(job_id)

    @property
    def current(self) -> Job | None:
        """The job that has the worker, if one has."""
        return self._running

    def engine_for(self, request: GenerateRequest) -> EngineName:
        """The engine that a request will run on."""
        if request.test_mode:
            return EngineName.DRAFT
        if self.ready is not None:
            return self.ready.engine
        return EngineName.DIFFUSION if self.settings.engine is EngineChoice.DIFFUSION else EngineName.DRAFT

    # starting and ending jobs

    def _mine(self) -> list[Job]:
        return [*([self._running] if self._running else []), *self._queue]

    async def _refuse_when_busy(self) -> None:
        job = self._running
        if job is None and not self._queue:
            foreign = await anyio.to_thread.run_sync(self._foreign_holder)
            if foreign is not None and not self.settings.queue_size:
                raise foreign
            return
        if len(self._queue) < self.settings.queue_size:
            return
        busy_with = job or self._queue[0]
        raise busy(busy_with, waiting=len(self._queue), at=time.time())

    def _foreign_holder(self) -> AdAgentError | None:
        """The refusal if another server holds the device. Blocks on the disk."""
        if self._device_lock.is_held:
            return None
        with FileLock.probe(self._device_lock.path) as free:
            if free is not None:
                return None
        try:
            job = self.store.load(json.loads(self._device_lock.read_note())["job_id"])
        except (ValueError, KeyError, AdAgentError):
            return AdAgentError(
                ErrorCode.BUSY, "Another server on this machine uses the device; try again.", retry_after_seconds=2
            )
        return busy(job, waiting=0, at=time.time(), elsewhere=True)

    def _run_elsewhere(self, job: Job) -> AdAgentError:
        return AdAgentError(
            ErrorCode.BUSY,
            f"Job {job.id} is run by another server on this data folder (server {job.owner}); stop it there.",
            job_id=job.id,
            retry_after_seconds=_retry_after(job, time.time()),
        )

    async def _start_next(self) -> None:
        """Give the slot to the oldest waiting job, if slot and device are free."""
        async with self._starting:
            if self._running is not None or not self._queue:
                return
            job = self._queue[0]
            note = json.dumps({"server": self.server_id, "pid": os.getpid(), "job_id": job.id})
            if not await anyio.to_thread.run_sync(self._device_lock.try_acquire, note):
                if not self._waits_for_device:
                    self._waits_for_device = True
                    self._tasks.start_soon(self._wait_for_device)
                return
            self._queue.pop(0)
            plan, notices = plan_segment(job, preset=self._preset(job))
            pixels = job.request.width * job.request.height
            expected_s = self._times.expected_s(plan, pixels=pixels)
            job = job.model_copy(update={"warnings": tuple(dict.fromkeys((*job.warnings, *notices)))})
            self._running = start(job, plan, expected_s, at=time.time(), owner=self.server_id)
            self._was_sent = False
            await self._save(self._running)
            self._announce()
            await self._send_running()

    async def _wait_for_device(self) -> None:
        while self._queue and self._running is None:
            await anyio.sleep(FOREIGN_POLL_S)
            async with self._accepting:
                await self._start_next()
        self._waits_for_device = False

    def _preset(self, job: Job) -> str:
        return "draft" if job.engine is EngineName.DRAFT else self.settings.preset

    async def _send_running(self) -> None:
        job, worker = self._running, self._worker
        if job is None or worker is None or self._was_sent or job.plan is None:
            return
        self._was_sent = True
        worker.heard_at = time.monotonic()
        inputs = await anyio.to_thread.run_sync(self._inputs_of, job, job.plan)
        await worker.send(
            StartJob(
                job_id=job.id, request=job.request, plan=job.plan, inputs=inputs, out_dir=self.store.folder(job.id)
            )
        )

    def _inputs_of(self, job: Job, plan: Plan) -> Inputs:
        folder = self.store.folder(job.id)

        def existing(*names: str) -> Path | None:
            return next((folder / name for name in names if (folder / name).is_file()), None)

        first = plan.steps[0] if plan.steps else job.request.start_step
        step1 = existing("inputs/step1_image", "step1.png") if first > 1 else None
        return Inputs(
            product=existing("inputs/product_image"),
            step1=step1,
            step2=existing("step2.png", "inputs/step2_image") if first == 3 else None,
            has_step1_layers=step1 is not None and step1.name == "step1.png" and (folder / "cutout.png").is_file(),
        )

    async def _stop_running(self, job_id: str, *, grace_s: float) -> None:
        error = ErrorInfo(code=ErrorCode.CANCELLED, message="stopped")
        worker = self._worker
        if worker is None or not self._was_sent:
            if self._running is not None:
                await self._settle(fail(self._running, error, at=time.time()))
            return
        await worker.send(CancelJob(job_id=job_id))
        with anyio.move_on_after(grace_s):
            await self._until_rest(job_id)
        if self._has_worker(job_id):
            logger.warning("the worker did not stop in time and is replaced", extra={"job_id": job_id})
            self._end_as = (job_id, error)
            worker.kill()
            await self._until_rest(job_id)

    def _has_worker(self, job_id: str) -> bool:
        return self._running is not None and self._running.id == job_id

    async def _until_rest(self, job_id: str) -> None:
        while self._has_worker(job_id):
            await self._changed.wait()

    async def _settle(self, job: Job) -> None:
        """The running job rests: keep it, let go of the device, start the next one."""
        if job.status is JobState.COMPLETED and self.settings.output_dir is not None:
            await anyio.to_thread.run_sync(self._copy_out, job, self.settings.output_dir)
        await self._save(job)
        logger.info("job %s", job.waiting_for or job.status, extra={"job_id": job.id})
        await anyio.to_thread.run_sync(self._times.save)
        self._running = None
        self._device_lock.release()
        self._announce()
        await self._start_next()

    def _copy_out(self, job: Job, folder: Path) -> None:
        final = self.store.layer(job.id, "final")
        if final is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(final, folder / f"ad-{job.id}.png")
        except OSError as error:
            logger.warning("the ad was not copied to %s: %s", folder, error, extra={"job_id": job.id})

    async def _save(self, job: Job, *, durable: bool = True) -> None:
        try:
            await anyio.to_thread.run_sync(partial(self.store.save, job, durable=durable))
        except OSError as error:
            logger.error("the job's state was not saved: %s", error, extra={"job_id": job.id})

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # the worker

    async def keep_worker(self) -> None:
        """Have a worker at all times; a dead one is replaced, slower when they keep dying."""
        while True:
            how = "it ended"
            try:
                async with WorkerProcess.spawn(self.settings, self._tasks, self._command) as (worker, ready):
                    self._worker, self.ready = worker, ready
                    logger.info("worker %d is ready: engine %s on %s", ready.pid, ready.engine, ready.device)
                    await self._send_running()
                    async for event in worker.events():
                        await self._on_event(event)
            except WorkerDiedError as death:
                how = str(death)
            except Exception as error:  # the receive loop outlives whatever one event, or one start, did to it
                logger.exception("the worker could not be followed")
                how = f"it could not be followed ({type(error).__name__}: {error})"
            self._worker = self.ready = None
            logger.warning("the worker died: %s", how)
            await self._on_worker_death(how)
            delay_s = RESTART_DELAYS_S[min(self._failures, len(RESTART_DELAYS_S) - 1)]
            self._failures += 1
            self.restarts += 1
            await anyio.sleep(delay_s)

    async def watch_for_stalls(self) -> None:
        """Kill a worker that says nothing for `stall_timeout_s` while a job runs."""
        limit_s = self.settings.stall_timeout_s
        while True:
            await anyio.sleep(min(1.0, limit_s / 4))
            worker, job = self._worker, self._running
            if worker is None or job is None or not self._was_sent or time.monotonic() - worker.heard_at < limit_s:
                continue
            error = ErrorInfo(
                code=ErrorCode.WORKER_STALLED,
                message=f"The worker said nothing for {limit_s:g} s and was replaced. Finished steps are kept: "
                f"call generate with resume_job_id={job.id!r}. AD_AGENT_STALL_TIMEOUT_S sets the limit.",
                fix=Fix(tool="generate", arguments={"resume_job_id": job.id}),
            )
            self._end_as = (job.id, error)
            worker.kill()
            worker.heard_at = time.monotonic()

    async def _on_event(self, event: Event) -> None:
        job, at = self._running, time.time()
        match event:
            case Ready():
                raise WorkerDiedError("it said ready twice")
            case ModelMoved(model=model, state=state):
                if job is not None:
                    self._running = job.model_copy(update={"loading": model if state == "loading" else None})
                    self._announce()
            case StageProgress() | StepResult() | JobNotice() | JobDone() | JobFailed():
                if job is None or event.job_id != job.id:
                    return
                if isinstance(event, StageProgress):
                    self._note_time(job, event, at)
                after = advance(job, event, at=at)
                if after.status is not JobState.RUNNING:
                    self._failures = 0
                    await self._settle(after)
                    return
                if isinstance(event, StepResult):
                    self._failures = 0
                    await self._save(after)
                    if event.step == 1 and "step1" in event.files:
                        await anyio.to_thread.run_sync(self.store.remember_step1, event.files["step1"], job.id)
                elif int(after.percent) != int(job.percent) or after.warnings != job.warnings:
                    await self._save(after, durable=False)
                self._running = after
                self._announce()

    def _note_time(self, job: Job, event: StageProgress, at: float) -> None:
        if event.done == event.total and event.stage is job.stage and job.stage_since is not None and job.plan:
            pixels = job.request.width * job.request.height
            self._times.record(job.plan, event.stage, at - job.stage_since, pixels=pixels)

    async def _on_worker_death(self, how: str) -> None:
        job, end_as = self._running, self._end_as
        self._end_as = None
        if job is None:
            return
        error = ErrorInfo(
            code=ErrorCode.WORKER_CRASHED,
            message=f"The worker process died while it worked on this job: {how}. Finished steps are kept: call "
            f"generate with resume_job_id={job.id!r} to go on from there.",
            fix=Fix(tool="generate", arguments={"resume_job_id": job.id}),
        )
        if end_as is not None and end_as[0] == job.id:
            error = end_as[1]
        await self._settle(fail(job, error, at=time.time()))

    # other servers on this data folder

    def _is_dead(self, owner: str) -> bool:
        if owner == self.server_id:
            return False
        path = self.store.locks / f"server-{owner}.lock"
        if not owner or not path.exists():
            return True
        with FileLock.probe(path) as free:
            return free is not None

    def _orphans(self) -> list[Job]:
        """Cut-off jobs, now ours: requeued where they may go on, failed otherwise. Blocks on the disk."""
        adopted: list[Job] = []
        with FileLock.probe(self.store.locks / "adoption.lock") as turn:
            if turn is None:
                return []
            mine = {job.id for job in self._mine()}
            for job_id, owner in sorted(self.store.active_jobs().items()):
                if job_id in mine or not self._is_dead(owner):
                    continue
                try:
                    job = self.store.load(job_id)
                except AdAgentError:
                    self.store.forget_marker(job_id)
                    continue
                if job.waiting_for is not None or job.status.is_terminal:
                    continue
                job = self._taken_over(job, at=time.time())
                self.store.save(job)
                adopted.append(job)
                (self.store.locks / f"server-{owner}.lock").unlink(missing_ok=True)
        return adopted

    def _taken_over(self, job: Job, *, at: float) -> Job:
        if job.retries == 0 and at - job.created_at <= self.settings.resume_max_age_s:
            return requeue(job, at=at, owner=self.server_id)
        return fail(
            job,
            ErrorInfo(
                code=ErrorCode.INTERRUPTED,
                message="The server that ran this job ended before the job did. Finished steps are kept: call "
                f"generate with resume_job_id={job.id!r} to go on from there.",
                fix=Fix(tool="generate", arguments={"resume_job_id": job.id}),
            ),
            at=at,
        )

    async def _adopt_orphans(self) -> None:
        async with self._accepting:
            for job in await anyio.to_thread.run_sync(self._orphans):
                logger.info("cut-off job is now %s", job.status, extra={"job_id": job.id})
                if job.status is JobState.PENDING:
                    self._queue.append(job)
            await self._start_next()
        self._announce()

    # life

    async def open(self) -> None:
        """Take part: hold this server's lock, adopt what dead servers left, start the worker."""
        self._server_lock.try_acquire(str(os.getpid()))
        self._tasks.start_soon(self.keep_worker)
        self._tasks.start_soon(self.watch_for_stalls)
        await self._adopt_orphans()

    async def close(self) -> None:
        """Say goodbye to the worker and to the other servers; a running job is left to be continued."""
        if self._worker is not None:
            await self._worker.send(Shutdown())
        self._device_lock.release()
        self._server_lock.release()
        self._server_lock.path.unlink(missing_ok=True)


@asynccontextmanager
async def open_service(
    settings: Settings, store: JobStore, intake: Intake, *, command: Sequence[str] = WORKER_COMMAND
) -> AsyncGenerator[JobService]:
    """A running job service; its worker ends with the block."""
    async with anyio.create_task_group() as tasks:
        service = JobService(settings, store, intake, command, tasks)
        await service.open()
        try:
            yield service
        finally:
            with anyio.CancelScope(shield=True):
                await service.close()
            tasks.cancel_scope.cancel()


def busy(job: Job, *, waiting: int, at: float, elsewhere: bool = False) -> AdAgentError:
    """The refusal while `job` has the worker."""
    where = f" in another server on this data folder (server {job.owner})" if elsewhere else ""
    queue = f" and {waiting} more wait" if waiting else ""
    after = _retry_after(job, at)
    return AdAgentError(
        ErrorCode.BUSY,
        f"Job {job.id} is {job.status}{where}{queue}; one runs at a time. Call again in about {after} s, "
        "or stop that job.",
        retry_after_seconds=after,
        job_id=job.id,
        fix=Fix(tool="status", arguments={"job_id": job.id, "wait_seconds": min(50, after)}),
    )


def _retry_after(job: Job, at: float) -> int:
    return max(1, math.ceil(job.ends_at - at)) if job.ends_at is not None else 5
