"""One worker and its device: gives it the next job, follows that to its end, and takes another.

One task reads one mailbox, so nothing here needs a lock. What happens with a job is decided by `slot_states.step`;
here it is carried out. What takes time, and the disk, is done beside the mailbox, and comes back as an event.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_never

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ..config import Settings
from ..contract.errors import AdAgentError
from ..contract.messages import EVERY_MODEL, Event, JobDone, ModelMoved, StartJob, UnloadModels
from ..contract.schemas import JobState
from ..contract.stages import EngineName
from ..contract.texts import Text
from ..supervisor.supervisor import Supervisor
from . import slot_states as states
from .counters import Counters
from .errors import broken
from .estimates import LoadState, StageTimes
from .job import Job
from .journal import Journal
from .peers import Peers
from .planner import Planner
from .slot_states import Effect, Idle, SlotEvent, State, step
from .store import JobStore

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5


@dataclass(frozen=True)
class Wake:
    """A job waits; `seen` is set when the slot has looked at the queue."""

    seen: anyio.Event


class Slot:
    """Owned by the job service, which puts jobs into `queue`; the slot takes them out."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        worker: Supervisor,
        peers: Peers,
        journal: Journal,
        times: StageTimes,
        counters: Counters,
        *,
        queue: list[Job],
        planner: Planner,
        on_rest: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._worker = worker
        self._peers = peers
        self._journal = journal
        self._times = times
        self._counters = counters
        self._queue = queue
        self._planner = planner
        self._on_rest = on_rest
        self._state: State = Idle()
        self._found = LoadState.STARTING
        self._warm: set[EngineName] = set()
        """What the worker has run a job on since it, or its models, came."""
        self.resident_models: set[str] = set()
        """Models that the worker has on the device."""
        self._idle_since = time.monotonic()
        self._turns = 0
        """How many jobs have had the slot."""
        self._scope = anyio.CancelScope()
        self._ended: anyio.Event | None = None
        self._mail: deque[SlotEvent | Wake] = deque()
        self._arrived = anyio.Event()

    # what others call

    @property
    def job(self) -> Job | None:
        """The job that has the slot, if one has."""
        state = self._state  # asked for by other threads, too
        return None if isinstance(state, Idle) else state.job

    def has(self, job_id: str) -> bool:
        """Whether the slot is that job's."""
        return (job := self.job) is not None and job.id == job_id

    async def look(self) -> None:
        """Wait until the slot has looked at the queue, and what it took is shown as running."""
        seen = anyio.Event()
        if not self._scope.cancel_called:
            self._post(Wake(seen))
            await seen.wait()
        if (job := self.job) is not None:
            await self._journal.written(job.id)

    async def stop(self, job_id: str, *, grace_s: float) -> None:
        """End the job if it has the slot, and wait until it has it no more; after `grace_s` its worker is killed."""
        self._post(states.StopAsked(job_id, anyio.current_time() + grace_s))
        turn = self._turns
        while self.has(job_id) and self._turns == turn:
            await self._journal.changed.wait()

    async def close(self) -> None:
        """Follow nothing any more; then nobody waits for this slot, and no thread of it touches the device's lock."""
        self._scope.cancel()
        for event in self._mail:
            if isinstance(event, Wake):
                event.seen.set()
        if self._ended is not None:
            await self._ended.wait()

    async def on_ready(self) -> None:
        """A worker lives."""
        if self._worker.ready is not None:
            self._times.introduce(self._worker.ready.engines)
        self._post(states.WorkerReady())

    async def on_event(self, event: Event) -> None:
        """The worker said something."""
        self._post(states.Said(event))

    async def on_death(self, how: Text, was_ready: bool) -> None:
        """The worker is gone."""
        self._post(states.Died(how, was_ready))

    async def run(self, tasks: TaskGroup) -> None:
        """Read the mailbox until cancelled; what takes time is done in `tasks`."""
        self._ended = anyio.Event()
        try:
            with self._scope:
                await self._read(tasks)
        finally:
            self._ended.set()

    async def _read(self, tasks: TaskGroup) -> None:
        every_s = min(WATCH_EVERY_S, self._settings.stall_timeout_s / 4)
        next_tick = anyio.current_time() + every_s
        while True:
            until = min(next_tick, self._state.until) if isinstance(self._state, states.Stopping) else next_tick
            is_late = anyio.current_time() >= until  # a worker that never stops talking does not stop the clock
            if not is_late and not self._mail:
                self._arrived = anyio.Event()
                with anyio.CancelScope(deadline=until):
                    await self._arrived.wait()
            event = self._mail.popleft() if self._mail and not is_late else None
            if event is None:
                next_tick = (now := anyio.current_time()) + every_s
                event = states.Tick(now, self._worker.silent_s, self._settings.stall_timeout_s)
            try:
                await self._take(event, tasks)
            except Exception as error:
                logger.exception("the server could not go on with a job")
                self._give_up(error)

    # the mailbox's own

    def _post(self, event: SlotEvent | Wake) -> None:
        self._mail.append(event)
        self._arrived.set()

    async def _take(self, event: SlotEvent | Wake, tasks: TaskGroup) -> None:
        match event:
            case states.Said(ModelMoved() as moved):
                self._models_moved(moved)
            case states.Died():
                self._warm.clear()
                self.resident_models.clear()
            case _:
                pass
        try:
            if not isinstance(event, Wake):
                await self._step(event, tasks)
            if isinstance(self._state, Idle):
                await self._idle(tasks, is_ticking=isinstance(event, states.Tick))
        finally:
            if isinstance(event, Wake):
                event.seen.set()

    async def _step(self, event: SlotEvent, tasks: TaskGroup) -> None:
        at, before = time.time(), self.job
        self._state, effects = step(self._state, event, at=at)
        after = self.job
        if before is not None and after is not None:
            if ended := self._times.learn(before, after, at=at, found=self._found):
                self._counters.stage_ended(before.engine, *ended)
            if isinstance(event, states.Said) and isinstance(event.event, JobDone):
                self._warm.add(after.engine)
        for effect in effects:
            await self._perform(effect, tasks)
        if before is not None and after is None:
            self._idle_since = time.monotonic()
            self._journal.wake()
            tasks.start_soon(self._on_rest)

    async def _perform(self, effect: Effect, tasks: TaskGroup) -> None:
        match effect:
            case states.Keep(job, is_saved, is_durable, step1):
                self._journal.put(job, is_saved=is_saved, is_durable=is_durable, step1=step1)
            case states.Gather(job):
                if self._worker.ready is not None:
                    tasks.start_soon(self._gather, job)
            case states.Send(StartJob() as command, job):
                if await self._worker.send(command):
                    await self._step(states.Given(job), tasks)
            case states.Send(command):
                await self._worker.send(command)
            case states.Kill(is_fault):
                logger.warning("the worker is replaced")
                if not is_fault:
                    self._worker.trust()
                self._worker.kill()
            case states.Settle(job):
                tasks.start_soon(self._settle, job)
            case _:
                assert_never(effect)

    async def _gather(self, job: Job) -> None:
        """What the worker needs for the job; a job that was planned before there was a worker is planned anew."""
        try:
            if self._found is LoadState.STARTING:
                job = self._planner.planned(job, self._found, time.time())
            if refused := self._planner.refused(job):
                self._post(states.Broken(job.id, refused))
                return
            if job.plan is None:
                return  # it is planned when the worker has said what it can do
            first_step = job.plan.steps[0] if job.plan.steps else job.request.start_step
            inputs = await anyio.to_thread.run_sync(self._store.inputs, job.id, first_step)
            folder = self._store.folder(job.id)
            command = StartJob(job_id=job.id, request=job.request_as_run, plan=job.plan, inputs=inputs, out_dir=folder)
            self._post(states.Gathered(job, command))
        except Exception as error:
            logger.exception("the server could not go on with a job", extra={"job_id": job.id})
            self._give_up(error)

    async def _settle(self, job: Job) -> None:
        """Bring a job to the disk as it rests."""
        try:
            if job.status is JobState.COMPLETED and self._settings.output_dir is not None:
                notice = await anyio.to_thread.run_sync(self._store.copy_out, job.id, self._settings.output_dir)
                job = job.model_copy(update={"warnings": (*job.warnings, *([notice] if notice else []))})
        except Exception:
            logger.exception("the ad was not copied", extra={"job_id": job.id})
        outcome = job.error.code if job.error else job.waiting_for or job.status
        level = logging.WARNING if job.status is JobState.FAILED else logging.INFO
        # A failure is told at once: a power cut now only costs its reason.
        is_durable = job.status in (JobState.COMPLETED, JobState.PENDING)
        await self._journal.put(job, is_durable=is_durable).wait()
        logger.log(level, "job ended: %s", outcome, extra={"job_id": job.id})
        self._post(states.Kept(job.id))

    def _give_up(self, error: Exception) -> None:
        """What goes wrong here, and is no fault of the worker's, ends the job in its own words, and nothing else."""
        if (job := self.job) is not None:
            self._post(states.Broken(job.id, broken(job, error)))

    # between two jobs

    async def _idle(self, tasks: TaskGroup, *, is_ticking: bool) -> None:
        """Take the next job; without one, keep the device only while models of ours are on it."""
        if (job := await self._next_job()) is not None:
            is_warm = job.engine in self._warm
            self._found = LoadState.WARM if is_warm else LoadState.COLD if self._worker.ready else LoadState.STARTING
            job = self._planner.planned(job, self._found, time.time())
            logger.info("job started: engine %s, steps %s", job.engine, job.remaining_steps, extra={"job_id": job.id})
            self._turns += 1
            await self._step(states.Chosen(job), tasks)
            return
        if not self.resident_models:
            if self._peers.has_device:
                await anyio.to_thread.run_sync(self._peers.release_device)
        elif not await anyio.to_thread.run_sync(self._peers.take_device, ""):
            await self._worker.send(UnloadModels())
        elif is_ticking:
            await self._unload_when_idle()

    async def _next_job(self) -> Job | None:
        """Take the oldest job that was not stopped, or taken over by another server, meanwhile; with the device."""
        try:
            for job in list(self._queue):
                if not await anyio.to_thread.run_sync(self._peers.take_device, job.id):
                    return None  # another server has it; the next tick tries again
                is_ours = self._journal.is_unsaved(job.id) or await anyio.to_thread.run_sync(
                    self._peers.owns_pending, job.id
                )
                if job in self._queue:
                    self._queue.remove(job)
                    if is_ours:
                        return job
        except (OSError, AdAgentError) as error:
            logger.warning("the next job was not started: %s", error)  # it is still queued
        return None

    async def _unload_when_idle(self) -> None:
        idle_s, limit_s = time.monotonic() - self._idle_since, self._settings.idle_unload_s
        if limit_s is not None and idle_s >= limit_s:
            self._idle_since += idle_s
            await self._worker.send(UnloadModels())

    def _models_moved(self, event: ModelMoved) -> None:
        if event.state == "loaded" and event.bytes:
            self.resident_models.add(event.model)
            self._idle_since = time.monotonic()
        elif event.state == "unloaded":
            self.resident_models.discard(event.model)
        if event.model == EVERY_MODEL:
            self.resident_models.clear()
            self._warm.discard(EngineName.DIFFUSION)
