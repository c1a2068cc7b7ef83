"""The jobs of one server: accepts them, gives them to the worker, follows them to their end.

`JobService` is the single owner of the running job and the queue. A job never belongs to the request that
started it, so a client that vanishes takes nothing with it.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ..config import EngineChoice, Settings
from ..contract.call import GenerateRequest
from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo, Fix, invalid
from ..contract.messages import (
    EVERY_MODEL,
    CancelJob,
    Event,
    JobDone,
    JobFailed,
    JobNotice,
    ModelMoved,
    Ready,
    Shutdown,
    StageProgress,
    StartJob,
    StepResult,
    UnloadModels,
)
from ..contract.schemas import JobState
from ..contract.stages import EngineInfo, EngineName
from ..files import FileLock
from ..supervisor.process import WorkerDiedError
from ..supervisor.supervisor import Supervisor
from .admission import Admission, Prepared, small
from .counters import Counters
from .errors import STOPPED, broken, busy, contended, crashed, occupied, stalled
from .estimates import LoadState, StageTimes
from .job import Decision, Job, advance, fail, fault_of, move_model, new_job_id, redo, start, steps_to_run
from .peers import Peers
from .plan import plan_segment, with_preset_values
from .retention import prune
from .store import JobStore

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5
TURN_TIMEOUT_S = 10.0
"""How long a decision waits for that of another server."""
ADOPTION_TIMEOUT_S = 1.0
TURN_POLL_S = 0.02


@dataclass
class _Run:
    """The job that has the worker, and what counts only while it has."""

    job: Job
    found: LoadState
    is_sent: bool = False
    """Whether the worker was given it, or none will be."""
    end_as: ErrorInfo | None = None
    """Why we are about to kill its worker."""


class JobService:
    """All that happens to jobs in one server process. Made by `open_service`."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        admission: Admission,
        command: Sequence[str],
        peers: Peers,
        tasks: TaskGroup,
    ) -> None:
        self.settings = settings
        self.store = store
        self.worker = Supervisor(settings, command)
        self.counters = Counters()
        self.admission = admission
        self._tasks = tasks
        self._times = StageTimes(store.root / "stage_times.json")
        self._peers = peers
        self.server_id = self._peers.server_id
        self._warm: set[EngineName] = set()
        """What the worker has run a job on since it, or its models, came."""
        self.resident_models: set[str] = set()
        """Models that the worker has on the device."""
        self._idle_since = time.monotonic()
        self._run: _Run | None = None
        self._queue: list[Job] = []
        self._unsaved: dict[str, Job] = {}
        """Jobs whose state the disk could not take."""
        self._is_closing = False
        self._is_adoption_due = False
        """Whether what dead servers left could not be taken over, because another server was deciding."""
        self._line = anyio.Lock()
        """Held by the first of the calls that wait for room; it is before all others."""
        self._accepting = anyio.Lock()
        self._starting = anyio.Lock()
        self._settling = anyio.Lock()
        self._saving = anyio.Lock()
        self._changed = anyio.Event()
        self._changed_ids: set[str] = set()

    @property
    def current(self) -> Job | None:
        """The job that has the worker, if one has."""
        run = self._run  # asked for by other threads, too
        return run.job if run is not None else None

    @property
    def queue_length(self) -> int:
        """Jobs that wait for the worker."""
        return len(self._queue)

    # what the tools call

    async def generate(self, request: GenerateRequest) -> Job:
        """Accept a job, at the latest `wait_seconds` after now, or refuse it with nothing stored.

        Raises:
            AdAgentError: `busy`, `invalid_request`, `model_unavailable`, `not_found` or `storage_full`.
        """
        until = anyio.current_time() + request.wait_seconds
        if refused := self._refusal(self.engine_for(request), small(request, request.model_fields_set)):
            raise refused
        job_id = new_job_id()
        prepared = await anyio.to_thread.run_sync(self.admission.prepare, request, job_id)
        async with AsyncExitStack() as place:
            with anyio.CancelScope(deadline=until):  # first come, first served
                await place.enter_async_context(self._line)
            while refused := await self._accepted(prepared, job_id):
                if anyio.current_time() >= until:
                    raise refused
                with anyio.CancelScope(deadline=min(until, anyio.current_time() + WATCH_EVERY_S)):
                    await self._changed.wait()  # a device that another server lets go of is not announced
        return await self._found(job_id)

    def find(self, job_id: str) -> Job:
        """A job as it stands now, whoever runs it. Blocks on the disk, if this server does not have it.

        Raises:
            AdAgentError: there is none, or the id is malformed.
        """
        return self._known(job_id) or self.store.shown(job_id)

    def find_all(self, job_ids: Iterable[str]) -> Iterator[Job]:
        """The jobs with these ids, one by one, without those that cannot be read or are removed meanwhile."""
        for job_id in job_ids:
            with suppress(AdAgentError):
                yield self.find(job_id)

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
        changed = self._changed
        job = await self.find_fresh(job_id)
        with anyio.move_on_after(seconds):
            while True:
                await on_change(job)
                if job.status.is_terminal or job.waiting_for is not None:
                    break
                await anyio.sleep(every_s)
                with anyio.move_on_after(2.0):
                    await changed.wait()
                changed = self._changed
                job = await self.find_fresh(job_id)
        return await self.find_fresh(job_id)

    async def find_fresh(self, job_id: str) -> Job:
        """Like `find`; a job whose server is gone is adopted first, so that nobody waits for a ghost."""
        job = await self._found(job_id)
        is_foreign = not job.status.is_terminal and job.waiting_for is None and job.owner != self.server_id
        if is_foreign and await anyio.to_thread.run_sync(self._peers.is_dead, job.owner):
            await self._adopt()
            return await self._found(job_id)
        return job

    async def adopt_ghosts(self) -> None:
        """Go on with what dead servers left, if they left something; before jobs are listed."""
        if await anyio.to_thread.run_sync(self._peers.left_ghosts):
            await self._adopt()

    async def changed_jobs(self) -> set[str]:
        """Wait until jobs of this server have changed since the last call, and tell which. For one caller."""
        while not self._changed_ids:
            await self._changed.wait()
        changed, self._changed_ids = self._changed_ids, set()
        return changed

    async def stop(self, job_id: str, *, force: bool) -> Job:
        """End a job, keeping its finished steps; a job that is over is returned unchanged.

        Raises:
            AdAgentError: `not_found`, or `busy` when another server runs it or does not let this one decide.
        """
        while True:
            job = await self.find_fresh(job_id)
            if job.status.is_terminal:
                return job
            if (run := self._run_of(job_id)) is not None:
                with anyio.CancelScope(shield=True):
                    await self._stop_running(run, grace_s=0.0 if force else self.settings.stop_grace_s)
                continue  # it may have come to rest at a pause just then
            async with self._decide(job_id), self._accept():
                job = await self._found(job_id)
                if self._run_of(job_id) is not None or job.status.is_terminal:
                    continue
                if job.owner not in ("", self.server_id) and job.waiting_for is None:
                    raise busy(job, is_elsewhere=True)
                self._queue = [queued for queued in self._queue if queued.id != job_id]
                return await self._stop_resting(job)

    async def approve(
        self,
        job_id: str,
        *,
        action: Literal["approve", "redo", "stop"],
        changes: dict[str, Any],
        by: Literal["person", "client"] = "client",
    ) -> Job:
        """Continue, redo or stop a job that waits for approval; the decision is kept with the job.

        Args:
            job_id: the job.
            action: what to do.
            changes: for `redo`, request fields with new values.
            by: who decided.

        Raises:
            AdAgentError: it does not wait, a change is not possible, another job runs (`busy`), or its engine cannot
                go on (`model_unavailable`).
        """
        if changes and action != "redo":
            raise invalid("changes go with action 'redo'; to go on without them, leave them out.", field="changes")
        await self.find_fresh(job_id)
        async with self._decide(job_id), self._accept():
            job = await self._found(job_id)
            if job.waiting_for != "approval":
                raise AdAgentError(
                    ErrorCode.INVALID_REQUEST,
                    f"Job {job_id} is {job.status} and does not wait for approval.",
                    job_id=job_id,
                    fix=Fix(tool="status", arguments={"job_id": job_id}),
                )
            decision = Decision(step=job.last_finished, action=action, by=by, at=time.time())
            job = job.model_copy(update={"decisions": (*job.decisions, decision)})
            if action == "stop":
                return await self._stop_resting(job)
            if refused := self._refusal(job.engine, {"resume_job_id": job.id}) or await self._busy():
                raise refused
            if action == "redo":
                prepared = await anyio.to_thread.run_sync(self.admission.changed, job, changes)
                await anyio.to_thread.run_sync(self.store.forget_step, job.id, decision.step)
                job = redo(job, prepared.request, given=prepared.given, step=decision.step)
                job = job.model_copy(update={"warnings": (*job.warnings, *prepared.notices)})
            job = job.model_copy(update={"waiting_for": None, "owner": self.server_id})
            await self._save(job)
            self._queue.append(job)
            await self._start_next()
        return await self._found(job_id)

    def engine_for(self, request: GenerateRequest) -> EngineName:
        """The engine that a request will run on."""
        if request.test_mode:
            return EngineName.DRAFT
        if self.worker.ready is not None:
            return self.worker.ready.engine
        return EngineName.DIFFUSION if self.settings.engine is EngineChoice.DIFFUSION else EngineName.DRAFT

    def _refusal(self, engine: EngineName, arguments: dict[str, Any]) -> AdAgentError | None:
        """The error for a job that `engine` cannot run as things are, if that is known; `arguments` make it anew."""
        ready = self.worker.ready
        is_refused = ready is not None and ready.refusal is not None and engine is ready.engine
        if ready is None or not (is_refused or self._info(engine) is None):
            return None
        return AdAgentError(
            ErrorCode.MODEL_UNAVAILABLE,
            f"{ready.refusal or ready.note} Until then, test_mode true makes the ad on the draft engine.",
            fix=Fix(tool="generate", arguments={**arguments, "test_mode": True}),
        )

    # starting and ending jobs

    def _known(self, job_id: str) -> Job | None:
        """A job that this server has, or whose state the disk could not take."""
        for job in self._mine():
            if job.id == job_id:
                return job if job is self.current else self._with_turn(job)
        return self._unsaved.get(job_id)

    async def _found(self, job_id: str) -> Job:
        """`find` for the event loop."""
        if job := self._known(job_id):
            return job
        stored = await anyio.to_thread.run_sync(self.store.shown, job_id)
        return self._known(job_id) or stored  # it may have come to this server meanwhile

    def _mine(self) -> list[Job]:
        current = self.current
        return [*([current] if current else []), *self._queue]

    @asynccontextmanager
    async def _accept(self) -> AsyncGenerator[None]:
        """One at a time, and to its end: a caller that goes away leaves no job half accepted."""
        async with self._accepting:
            with anyio.CancelScope(shield=True):
                yield

    @asynccontextmanager
    async def _turn(self, timeout_s: float) -> AsyncGenerator[FileLock]:
        """The turn among the servers on this folder for the length of the block, if it was had within `timeout_s`."""
        turn, until = self._peers.turn(), anyio.current_time() + timeout_s
        try:
            while not await anyio.to_thread.run_sync(self._peers.take_turn, turn):
                if anyio.current_time() >= until:
                    break
                await anyio.sleep(TURN_POLL_S)
            yield turn
        finally:
            turn.release()

    @asynccontextmanager
    async def _decide(self, job_id: str) -> AsyncGenerator[None]:
        """Alone among the servers that may decide about a job no worker has, from reading its state to writing it.

        Raises:
            AdAgentError: another server does not let go of its turn.
        """
        async with self._turn(TURN_TIMEOUT_S) as turn:
            if not turn.is_held:
                raise contended(job_id, TURN_TIMEOUT_S, await anyio.to_thread.run_sync(turn.read_note))
            yield

    async def _accepted(self, prepared: Prepared, job_id: str) -> AdAgentError | None:
        """Store the job and start it when its turn comes; while there is no room, the refusal, with nothing stored."""
        async with self._accept():
            if refused := await self._busy():
                return refused
            job = Job(
                id=job_id,
                request=prepared.request,
                given=prepared.given,
                engine=self.engine_for(prepared.request),
                steps=steps_to_run(prepared.request),
                warnings=tuple(prepared.notices),
                created_at=time.time(),
                owner=self.server_id,
            )
            await anyio.to_thread.run_sync(self.store.create, job, prepared.inputs, prepared.layers)
            logger.info("job accepted", extra={"job_id": job.id})
            self._queue.append(job)
            await self._start_next()
            return None

    async def _busy(self) -> AdAgentError | None:
        """The refusal of one more job, if there is no room for it."""
        if len(self._queue) < self.settings.queue_size:
            return None
        if mine := self._mine():
            return busy(mine[0], waiting=len(self._queue))
        elsewhere = await anyio.to_thread.run_sync(self._peers.device_holder)
        if elsewhere is None:
            return None
        server, holder = elsewhere
        if holder is None or holder.status.is_terminal or holder.waiting_for is not None:
            return occupied(server)
        return busy(holder, is_elsewhere=True)

    async def _start_next(self) -> None:
        """Give the slot to the oldest waiting job, if slot and device are free."""
        async with self._starting:
            if self._run is not None or not self._queue:
                return
            try:
                if not await anyio.to_thread.run_sync(self._peers.take_device, self._queue[0].id):
                    return  # the watch tries again
                job = await self._next_of_queue()
            except (OSError, AdAgentError) as error:
                logger.warning("the next job was not started: %s", error)
                return  # it is still queued
            if job is None:
                self._release_device()
                return
            is_warm = job.engine in self._warm
            found = LoadState.WARM if is_warm else LoadState.COLD if self.worker.ready else LoadState.STARTING
            self._run = run = _Run(job, found)
            async with self._answering_for(run):
                run.job = job = self._planned(job, found, at=time.time())
                await self._save(job)
                self._announce(job)
                logger.info(
                    "job started: engine %s, steps %s", job.engine, job.remaining_steps, extra={"job_id": job.id}
                )
                await self._send_running()

    def _planned(self, job: Job, found: LoadState, *, at: float) -> Job:
        """The job as it starts at `at`; without a plan while nothing is known of its engine."""
        if (info := self._info(job.engine)) is None:
            return start(job, None, {}, at=at, owner=self.server_id)
        job = with_preset_values(job, info)
        plan, notices = plan_segment(job, info)
        expected = self._times.expect(plan, info, pixels=job.request.width * job.request.height, found=found)
        if self.worker.ready is not None:  # before, its engine and all that follows from it is a guess
            job = job.model_copy(update={"warnings": tuple(dict.fromkeys((*job.warnings, *notices)))})
        return start(job, plan, expected, at=at, owner=self.server_id)

    def _info(self, engine: EngineName) -> EngineInfo | None:
        """What `engine` says of itself, or said when it last ran here."""
        return self._times.engine(engine, "draft" if engine is EngineName.DRAFT else self.settings.preset)

    def _with_turn(self, job: Job) -> Job:
        """A waiting job with the time at which it should be over, after those before it."""
        at = self._run.job.ends_at if self._run is not None else None
        for queued in list(self._queue):
            if at is None:
                break
            planned = self._planned(queued, LoadState.WARM, at=max(at, time.time()))
            if queued.id == job.id:
                return job.model_copy(update={"ends_at": planned.ends_at, "step_ends_at": planned.step_ends_at})
            at = planned.ends_at
        return job

    async def _next_of_queue(self) -> Job | None:
        """Take the oldest job that was not stopped, or taken over by another server, meanwhile."""
        for job in list(self._queue):
            is_ours = job.id in self._unsaved or await anyio.to_thread.run_sync(self._peers.owns_pending, job.id)
            if job in self._queue:
                self._queue.remove(job)
                if is_ours:
                    return job
        return None

    async def _on_ready(self) -> None:
        if self.worker.ready is not None:
            self._times.introduce(self.worker.ready.engines)
        await self._send_running()

    async def _send_running(self) -> None:
        run = self._run
        if run is None or run.is_sent or self.worker.ready is None:
            return
        run.is_sent = True
        async with self._answering_for(run):
            await self._send(run)

    async def _send(self, run: _Run) -> None:
        job = run.job
        if run.found is LoadState.STARTING:  # it was planned before the worker had said what it can do
            engine = job.engine if job.finished else self.engine_for(job.request)
            run.job = job = self._planned(job.model_copy(update={"engine": engine}), run.found, at=time.time())
            self._announce(job)
        if refused := self._refusal(job.engine, small(job.request, job.given)):
            self._tasks.start_soon(self._settle, run, fail(job, refused.info, at=time.time()))
            return
        if job.plan is None:
            return
        first_step = job.plan.steps[0] if job.plan.steps else job.request.start_step
        inputs = await anyio.to_thread.run_sync(self.store.inputs, job.id, first_step)
        folder = self.store.folder(job.id)
        command = StartJob(job_id=job.id, request=job.request_as_run, plan=job.plan, inputs=inputs, out_dir=folder)
        if self._run is run and not await self.worker.send(command):
            run.is_sent = False

    async def _stop_resting(self, job: Job) -> Job:
        """End a job that no worker has."""
        stopped = fail(job, STOPPED, at=time.time())
        await self._save(stopped)
        self._announce(stopped)
        return stopped

    def _run_of(self, job_id: str) -> _Run | None:
        return self._run if self._run is not None and self._run.job.id == job_id else None

    async def _stop_running(self, run: _Run, *, grace_s: float) -> None:
        if not run.is_sent or not await self.worker.send(CancelJob(job_id=run.job.id)):
            await self._settle(run, fail(run.job, STOPPED, at=time.time()))
            await self.worker.send(CancelJob(job_id=run.job.id))  # it may have been given the job this very moment
            return
        with anyio.move_on_after(grace_s):
            await self._until_rest(run)
        if self._run is run:
            logger.warning("the worker did not stop in time and is replaced", extra={"job_id": run.job.id})
            run.end_as = STOPPED
            self.worker.trust()  # it dies because we say so
            self.worker.kill()
            await self._until_rest(run)

    async def _until_rest(self, run: _Run) -> None:
        while self._run is run:
            await self._changed.wait()

    async def _settle(self, run: _Run, job: Job) -> None:
        """The running job rests as `job`: keep it, let go of the device, start the next one."""
        async with self._settling:
            if self._run is not run:
                return  # a stop and the worker's own end met
            run.is_sent = True
            if job.status is JobState.COMPLETED and self.settings.output_dir is not None:
                notice = await anyio.to_thread.run_sync(self.store.copy_out, job.id, self.settings.output_dir)
                job = job.model_copy(update={"warnings": (*job.warnings, *([notice] if notice else []))})
            with self._remembering(job):  # A failure is told at once: a power cut now only costs its reason.
                await self._save(job, durable=job.status in (JobState.COMPLETED, JobState.PENDING))
            level = logging.WARNING if job.status is JobState.FAILED else logging.INFO
            outcome = job.error.code if job.error else job.waiting_for or job.status
            logger.log(level, "job ended: %s", outcome, extra={"job_id": job.id})
            self._run = None
            self._idle_since = time.monotonic()
            self._release_device()
            self._announce(job)
        await self._start_next()
        self._tasks.start_soon(anyio.to_thread.run_sync, self._tidy_up)

    def _release_device(self) -> None:
        """Let other servers have the device, unless a job of ours runs or models of ours are on it."""
        if self._run is None and not self.resident_models:
            self._peers.release_device()

    def _tidy_up(self) -> None:
        self._times.save()
        try:
            prune(self.store, self.settings)
        except (OSError, AdAgentError) as error:
            logger.warning("old jobs were not removed: %s", error)

    async def _save(self, job: Job, *, durable: bool = True) -> None:
        """Keep the job's state; where the disk takes no more, this process remembers it."""
        async with self._saving:  # in the order in which things happened
            await self._write(job, durable=durable)

    @contextmanager
    def _remembering(self, job: Job) -> Generator[None]:
        """Saving that may fail in any way: a job that could not be ended would keep its place for ever."""
        try:
            yield
        except Exception:
            if job.id not in self._unsaved:
                logger.exception("the job's state was not saved", extra={"job_id": job.id})
            self._unsaved[job.id] = job

    async def _write(self, job: Job, *, durable: bool) -> None:
        try:
            await anyio.to_thread.run_sync(partial(self.store.save, job, durable=durable))
            self._unsaved.pop(job.id, None)
        except FileNotFoundError:  # somebody deleted its folder, which is their right
            self._unsaved.pop(job.id, None)
            await anyio.to_thread.run_sync(self.store.forget_marker, job.id)
            logger.warning("the job's folder is gone", extra={"job_id": job.id})
        except OSError as error:
            if job.id not in self._unsaved:
                logger.error("the job's state was not saved: %s", error, extra={"job_id": job.id})
            self._unsaved[job.id] = job

    def _announce(self, job: Job) -> None:
        if job.status.is_terminal:  # told once: a job that is over does not change any more
            self.counters.ended[job.engine, job.status] += 1
        self._changed_ids.add(job.id)
        self._changed.set()
        self._changed = anyio.Event()

    # what the worker says

    async def _keep_watch(self) -> None:
        """Do what nothing announces: a silent worker, a device let go of elsewhere, room on the disk, idle models."""
        limit_s = self.settings.stall_timeout_s
        while True:
            await anyio.sleep(min(WATCH_EVERY_S, limit_s / 4))
            async with self._saving:
                for job in list(self._unsaved.values()):
                    with self._remembering(job):
                        await self._write(job, durable=True)
            if self._is_adoption_due:
                with suppress(OSError, AdAgentError):  # it stays due
                    await self._adopt(timeout_s=0.0)
            run = self._run
            if run is None:
                await self._unload_when_idle()
                await self._start_next()
            elif run.is_sent and self.worker.silent_s >= limit_s:
                run.end_as = stalled(run.job, limit_s)
                self.worker.kill()

    async def _unload_when_idle(self) -> None:
        idle_s, limit_s = time.monotonic() - self._idle_since, self.settings.idle_unload_s
        if self.resident_models and limit_s is not None and idle_s >= limit_s:
            self._idle_since += idle_s
            await self.worker.send(UnloadModels())

    async def _on_moved(self, event: ModelMoved) -> None:
        """Keep the device for as long as models of ours are on it, whether or not a job runs."""
        if event.state == "loaded" and event.bytes:
            self.resident_models.add(event.model)
        elif event.state == "unloaded":
            self.resident_models.discard(event.model)
        if event.model == EVERY_MODEL:
            self.resident_models.clear()
            self._warm.discard(EngineName.DIFFUSION)
        async with self._starting:  # a job that is about to start has the device already
            if self._run is not None:
                return
            if event.state == "unloaded":
                self._release_device()
                return
            self._idle_since = time.monotonic()
            if not await anyio.to_thread.run_sync(self._peers.take_device, ""):
                await self.worker.send(UnloadModels())

    @asynccontextmanager
    async def _answering_for(self, run: _Run | None) -> AsyncGenerator[None]:
        """What goes wrong inside, and is no fault of the worker's, ends the job in its own words, and nothing else."""
        try:
            yield
        except WorkerDiedError:
            raise
        except Exception as error:
            logger.exception("the server could not go on with a job", extra={"job_id": run.job.id} if run else None)
            if run is not None:
                self._tasks.start_soon(self._give_up, run, broken(run.job, error))

    async def _give_up(self, run: _Run, why: ErrorInfo) -> None:
        await self.worker.send(CancelJob(job_id=run.job.id))
        await self._settle(run, fail(run.job, why, at=time.time()))

    async def _on_event(self, event: Event) -> None:
        if not self._is_closing:  # a worker that ends because we do has not failed its job
            async with self._answering_for(self._run):
                await self._take_in(event)

    async def _take_in(self, event: Event) -> None:
        run, at = self._run, time.time()
        match event:
            case Ready():
                raise WorkerDiedError("it said ready twice")
            case ModelMoved():
                if run is not None:
                    run.job = move_model(run.job, event, at=at)
                    self._announce(run.job)
                await self._on_moved(event)
            case StageProgress() | StepResult() | JobNotice() | JobDone() | JobFailed():
                if run is None or event.job_id != run.job.id:
                    return
                if isinstance(event, JobFailed) and event.ends_worker:  # no other job may be given to it
                    run.end_as = event.error
                    return
                if fault := fault_of(run.job, event):
                    raise WorkerDiedError(fault)
                job, after = run.job, advance(run.job, event, at=at)
                if ended := self._times.learn(job, after, at=at, found=run.found):
                    self.counters.stage_ended(job.engine, *ended)
                if isinstance(event, JobDone):
                    self._warm.add(job.engine)
                if after.status is not JobState.RUNNING:
                    self.worker.trust()
                    await self._settle(run, after)
                    return
                if isinstance(event, StepResult):
                    self.worker.trust()
                    await self._save(after)
                    if "step1" in event.files:
                        await anyio.to_thread.run_sync(self.store.remember_step1, event.files["step1"], job.id)
                elif int(after.percent) != int(job.percent) or after.warnings != job.warnings:
                    await self._save(after, durable=False)
                run.job = after
                self._announce(after)

    async def _on_worker_death(self, how: str) -> None:
        self._warm.clear()
        self.resident_models.clear()
        run = self._run
        if run is None:
            async with self._starting:
                self._release_device()
            return
        if self._is_closing:
            return
        await self._settle(run, fail(run.job, run.end_as or crashed(run.job, how), at=time.time()))

    # life

    async def _adopt(self, *, timeout_s: float = ADOPTION_TIMEOUT_S) -> None:
        """Go on with what servers that are gone left; later, while another server decides."""
        async with self._turn(timeout_s) as turn:
            self._is_adoption_due = True
            if not turn.is_held:
                return
            async with self._accept():
                mine = {job.id for job in self._mine()}
                for job in await anyio.to_thread.run_sync(self._peers.adopt, mine):
                    logger.info("cut-off job is now %s", job.status, extra={"job_id": job.id})
                    if job.status is JobState.PENDING and job.waiting_for is None:
                        self._queue.append(job)
                    self._announce(job)
                self._is_adoption_due = False
                await self._start_next()

    async def open(self) -> None:
        """Start the worker, adopt what dead servers left."""
        self._tasks.start_soon(
            partial(
                self.worker.keep,
                self._tasks,
                on_ready=self._on_ready,
                on_event=self._on_event,
                on_death=self._on_worker_death,
            )
        )
        self._tasks.start_soon(self._keep_watch)
        await self._adopt()

    async def close(self) -> None:
        """Say goodbye to the worker and to the other servers; a running job is left to be continued."""
        self._is_closing = True
        await self.worker.send(Shutdown())
        await anyio.to_thread.run_sync(self._peers.leave)


@asynccontextmanager
async def open_service(
    settings: Settings, store: JobStore, admission: Admission, command: Sequence[str]
) -> AsyncGenerator[JobService]:
    """A running job service, whose workers are started by `command`; the last one ends with the block."""
    peers = Peers(store, settings.device_lock, resume_max_age_s=settings.resume_max_age_s)
    await anyio.to_thread.run_sync(peers.join)  # a task group would wrap what it raises
    async with anyio.create_task_group() as tasks:
        service = JobService(settings, store, admission, command, peers, tasks)
        await service.open()
        try:
            yield service
        finally:
            with anyio.CancelScope(shield=True):
                await service.close()
            tasks.cancel_scope.cancel()
