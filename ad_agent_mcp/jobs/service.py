"""The jobs of one server: accepts them, finds them, stops them, lets them go on.

`JobService` is the single owner of the queue. A job never belongs to the request that started it, so a client that
vanishes takes nothing with it. What happens to the job that has the worker is the slot's business, what is on disk of
it the journal's.

The order of locks stands in `peers.py`.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Literal

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ..config import Settings
from ..contract.call import GenerateRequest
from ..contract.errors import AdAgentError, invalid
from ..contract.messages import Shutdown
from ..contract.schemas import JobState
from ..contract.texts import say
from ..supervisor.supervisor import Supervisor
from .admission import Admission, Prepared, small
from .capacity import Capacity
from .counters import Counters
from .errors import STOPPED, busy, not_waiting
from .estimates import StageTimes
from .job import Decision, Job, fail, new_job_id, redo, steps_to_run
from .journal import Journal
from .peers import Peers
from .planner import Planner
from .retention import prune
from .slot import WATCH_EVERY_S, Slot
from .store import JobStore
from .turn import deciding, turn_of

logger = logging.getLogger(__name__)

ADOPTION_TIMEOUT_S = 1.0
FLUSH_TIMEOUT_S = 5.0  # for the disk, before the server ends


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
        self._queue: list[Job] = []
        self.planner = Planner(settings, self.worker, self._times, self.server_id)
        self.journal = Journal(store, self.counters)
        self.slot = Slot(
            settings,
            store,
            self.worker,
            peers,
            self.journal,
            self._times,
            self.counters,
            queue=self._queue,
            planner=self.planner,
            on_rest=partial(anyio.to_thread.run_sync, self._tidy_up),
        )
        self._is_adoption_due = False
        """Whether what dead servers left could not be taken over, because another server was deciding."""
        self.capacity = Capacity(self.slot, self._queue, peers, queue_size=settings.queue_size)

    @property
    def current(self) -> Job | None:
        """The job that has the worker, if one has, as it is shown."""
        job = self.slot.job
        return None if job is None else self.journal.shown(job.id) or job

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
        if refused := self.planner.refusal(self.planner.engine_for(request), small(request, request.model_fields_set)):
            raise refused
        job_id = new_job_id()
        prepared = await anyio.to_thread.run_sync(self.admission.prepare, request, job_id)
        async with AsyncExitStack() as place:
            with anyio.CancelScope(deadline=until):  # first come, first served
                await place.enter_async_context(self.capacity.line)
            while refused := await self._accepted(prepared, job_id):
                if anyio.current_time() >= until:
                    raise refused
                with anyio.CancelScope(deadline=min(until, anyio.current_time() + WATCH_EVERY_S)):
                    await self.journal.changed.wait()  # a device that another server lets go of is not announced
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
        changed = self.journal.changed
        job = await self.find_fresh(job_id)
        with anyio.move_on_after(seconds):
            while True:
                await on_change(job)
                if job.status.is_terminal or job.waiting_for is not None:
                    break
                await anyio.sleep(every_s)
                with anyio.move_on_after(2.0):
                    await changed.wait()
                changed = self.journal.changed
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

    async def stop(self, job_id: str, *, force: bool) -> Job:
        """End a job, keeping its finished steps; a job that is over is returned unchanged.

        Raises:
            AdAgentError: `not_found`, or `busy` when another server runs it or does not let this one decide.
        """
        while True:
            job = await self.find_fresh(job_id)
            if job.status.is_terminal:
                return job
            if self.slot.has(job_id):
                with anyio.CancelScope(shield=True):
                    await self.slot.stop(job_id, grace_s=0.0 if force else self.settings.stop_grace_s)
                continue  # it may have come to rest at a pause just then
            async with deciding(self._peers, job_id), self.capacity.accept():
                job = await self._found(job_id)
                if self.slot.has(job_id) or job.status.is_terminal:
                    continue
                if job.owner not in ("", self.server_id) and job.waiting_for is None:
                    raise busy(job, is_elsewhere=True)
                self._queue[:] = [queued for queued in self._queue if queued.id != job_id]
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
            raise invalid(say("jobs.changes_without_redo"), field="changes")
        await self.find_fresh(job_id)
        async with deciding(self._peers, job_id), self.capacity.accept():
            job = await self._found(job_id)
            if job.waiting_for != "approval":
                raise not_waiting(job)
            decision = Decision(step=job.last_finished, action=action, by=by, at=time.time())
            job = job.model_copy(update={"decisions": (*job.decisions, decision)})
            if action == "stop":
                return await self._stop_resting(job)
            if refused := self.planner.refusal(job.engine, {"resume_job_id": job.id}) or await self.capacity.refusal():
                raise refused
            if action == "redo":
                prepared = await anyio.to_thread.run_sync(self.admission.changed, job, changes)
                await anyio.to_thread.run_sync(self.store.forget_step, job.id, decision.step)
                job = redo(job, prepared.request, given=prepared.given, step=decision.step)
                job = job.model_copy(update={"warnings": (*job.warnings, *prepared.notices)})
            job = job.model_copy(update={"waiting_for": None, "owner": self.server_id})
            await self.journal.keep(job)
            self._queue.append(job)
            await self.slot.look()
        return await self._found(job_id)

    def _known(self, job_id: str) -> Job | None:
        """A job that waits here, has the worker, or whose state the disk could not take."""
        waiting = next((job for job in self._queue if job.id == job_id), None)
        return (
            self.planner.with_turn(waiting, self.current, list(self._queue)) if waiting else self.journal.shown(job_id)
        )

    async def _found(self, job_id: str) -> Job:
        """`find` for the event loop."""
        if job := self._known(job_id):
            return job
        stored = await anyio.to_thread.run_sync(self.store.shown, job_id)
        return self._known(job_id) or stored  # it may have come to this server meanwhile

    async def _accepted(self, prepared: Prepared, job_id: str) -> AdAgentError | None:
        """Store the job and start it when its turn comes; while there is no room, the refusal, with nothing stored."""
        async with self.capacity.accept():
            if refused := await self.capacity.refusal():
                return refused
            job = Job(
                id=job_id,
                request=prepared.request,
                given=prepared.given,
                engine=self.planner.engine_for(prepared.request),
                steps=steps_to_run(prepared.request),
                warnings=tuple(prepared.notices),
                created_at=time.time(),
                owner=self.server_id,
            )
            await anyio.to_thread.run_sync(self.store.create, job, prepared.inputs, prepared.layers)
            logger.info("job accepted", extra={"job_id": job.id})
            self._queue.append(job)
            await self.slot.look()
            return None

    async def _stop_resting(self, job: Job) -> Job:
        """End a job that no worker has."""
        stopped = fail(job, STOPPED, at=time.time())
        await self.journal.keep(stopped)
        return stopped

    def _tidy_up(self) -> None:
        self._times.save()
        try:
            prune(self.store, self.settings)
        except (OSError, AdAgentError) as error:
            logger.warning("old jobs were not removed: %s", error)

    async def _keep_watch(self) -> None:
        """Take over what dead servers left as soon as no other server is deciding."""
        while True:
            await anyio.sleep(WATCH_EVERY_S)
            if self._is_adoption_due:
                with suppress(OSError, AdAgentError):  # it stays due
                    await self._adopt(timeout_s=0.0)

    # life

    async def _adopt(self, *, timeout_s: float = ADOPTION_TIMEOUT_S) -> None:
        """Go on with what servers that are gone left; later, while another server decides."""
        async with turn_of(self._peers, timeout_s) as turn:
            self._is_adoption_due = True
            if not turn.is_held:
                return
            async with self.capacity.accept():
                mine = {job.id for job in self.capacity.jobs()}
                for job in await anyio.to_thread.run_sync(self._peers.adopt, mine):
                    logger.info("cut-off job is now %s", job.status, extra={"job_id": job.id})
                    if job.status is JobState.PENDING and job.waiting_for is None:
                        self._queue.append(job)
                    self.journal.tell(job)
                self._is_adoption_due = False
                await self.slot.look()

    async def open(self) -> None:
        """Start the worker, adopt what dead servers left."""
        slot = self.slot
        keep = partial(self.worker.keep, on_ready=slot.on_ready, on_event=slot.on_event, on_death=slot.on_death)
        self._tasks.start_soon(keep, self._tasks)
        self._tasks.start_soon(self.journal.run)
        self._tasks.start_soon(slot.run, self._tasks)
        self._tasks.start_soon(self._keep_watch)
        await self._adopt()

    async def close(self) -> None:
        """Say goodbye to the worker and to the other servers; a running job is left to be continued."""
        with anyio.move_on_after(FLUSH_TIMEOUT_S):
            await self.slot.close()  # a worker that ends because we do has not failed its job
        await self.worker.send(Shutdown())
        await self.journal.flush(FLUSH_TIMEOUT_S)
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
