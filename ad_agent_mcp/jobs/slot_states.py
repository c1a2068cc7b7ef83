"""What a slot does with each event, as a pure function: `step(state, event) -> (state, effects)`.

    Idle -> Reserved -> Running -> Stopping | Ending -> Settling -> Idle

One job at a time, from the moment it has the slot until its last state is on disk. `slot.py` feeds the events in, one
by one, and carries the effects out in their order. Knows nothing about disks, devices or processes.
"""

from dataclasses import dataclass, replace

from ..contract.errors import ErrorInfo
from ..contract.messages import CancelJob, Event, JobFailed, ModelMoved, Ready, StartJob, StepResult
from ..contract.schemas import JobState
from ..contract.texts import Text, say
from .errors import STOPPED, crashed, stalled
from .job import Job, advance, fail, fault_of, move_model


@dataclass(frozen=True)
class Idle:
    """No job has the slot."""


@dataclass(frozen=True)
class Reserved:
    """The job has the slot and its device; the worker has not been given it."""

    job: Job


@dataclass(frozen=True)
class Running:
    """The worker was given the job."""

    job: Job


@dataclass(frozen=True)
class Stopping:
    """The worker was asked to stop, and has until then (monotonic seconds)."""

    job: Job
    until: float


@dataclass(frozen=True)
class Ending:
    """The worker is about to die, by our hand or its own; then the job ends as `why` says.

    What a worker says that `is_believed` still counts, for what is finished is on disk.
    """

    job: Job
    why: ErrorInfo
    is_believed: bool = True


@dataclass(frozen=True)
class Settling:
    """The job has come to rest as `job` says, which is on its way to the disk."""

    job: Job


State = Idle | Reserved | Running | Stopping | Ending | Settling


@dataclass(frozen=True)
class Chosen:
    """This job is next, and the device is ours."""

    job: Job


@dataclass(frozen=True)
class WorkerReady:
    """There is a worker that can be given jobs."""


@dataclass(frozen=True)
class Gathered:
    """All that the worker needs for the job is there; `job` as it will run."""

    job: Job
    command: StartJob


@dataclass(frozen=True)
class Given:
    """The worker was given the job."""

    job: Job


@dataclass(frozen=True)
class Said:
    """The worker said something."""

    event: Event


@dataclass(frozen=True)
class Died:
    """The worker died; `was_ready`: after it had been there for jobs."""

    how: Text
    was_ready: bool


@dataclass(frozen=True)
class StopAsked:
    """Somebody wants the job to end; the worker may take until then (monotonic seconds)."""

    job_id: str
    until: float


@dataclass(frozen=True)
class Broken:
    """We cannot go on with the job, which is no fault of the worker's."""

    job_id: str
    why: ErrorInfo


@dataclass(frozen=True)
class Tick:
    """Time has passed: it is `now` (monotonic seconds), and the worker has been silent for `silent_s` of `limit_s`."""

    now: float
    silent_s: float
    limit_s: float


@dataclass(frozen=True)
class Kept:
    """The state in which the job rests is on disk, or remembered."""

    job_id: str


SlotEvent = Chosen | WorkerReady | Gathered | Given | Said | Died | StopAsked | Broken | Tick | Kept


@dataclass(frozen=True)
class Gather:
    """Bring together what the worker needs for the job, as soon as there is a worker."""

    job: Job


@dataclass(frozen=True)
class Send:
    """Give the worker a command."""

    command: StartJob | CancelJob
    job: Job


@dataclass(frozen=True)
class Kill:
    """End the worker; `is_fault`: it did something wrong, and the next one may have to wait."""

    is_fault: bool


@dataclass(frozen=True)
class Keep:
    """Show the job, after the disk has it where `is_saved`."""

    job: Job
    is_saved: bool = True
    is_durable: bool = False
    step1: str | None = None


@dataclass(frozen=True)
class Settle:
    """Bring the job's last state to the disk, and say `Kept`."""

    job: Job


Effect = Gather | Send | Kill | Keep | Settle
Step = tuple[State, tuple[Effect, ...]]


def step(state: State, event: SlotEvent, *, at: float) -> Step:
    """What comes of `event` in `state`; an event that cannot be meant for it changes nothing.

    Args:
        state: of the slot.
        event: what happened.
        at: now, in seconds since the epoch.
    """
    match state, event:
        case Idle(), Chosen(job):
            return Reserved(job), (Keep(job, is_durable=True), Gather(job))
        case Reserved(job), WorkerReady():
            return state, (Gather(job),)
        case Reserved(job), Gathered(planned, command) if planned.id == job.id:
            anew = (Keep(planned, is_durable=True),) if planned != job else ()
            return Reserved(planned), (*anew, Send(command, planned))
        case Reserved(job), Given(given) if given.id == job.id:
            return Running(given), (Keep(given, is_saved=False),)
        case Reserved(job), Died(how, was_ready=False):
            return _settle(fail(job, crashed(job, how), at=at))
        case Reserved(job), StopAsked(job_id) if job_id == job.id:
            return _settle(fail(job, STOPPED, at=at))
        case ((Reserved(job) | Running(job) | Stopping(job)), Broken(job_id, why)) if job_id == job.id:
            settling, effects = _settle(fail(job, why, at=at))
            return settling, effects if isinstance(state, Reserved) else (_cancel(job), *effects)
        case Running(job), StopAsked(job_id, until) if job_id == job.id:
            return Stopping(job, until), (_cancel(job),)
        case Stopping(job, until), StopAsked(job_id, sooner) if job_id == job.id:
            return Stopping(job, min(until, sooner)), ()
        case Stopping(job, until), Tick(now) if now >= until:
            return Ending(job, STOPPED), (Kill(is_fault=False),)
        case Running(job), Tick(silent_s=silent_s, limit_s=limit_s) if silent_s >= limit_s:
            return Ending(job, stalled(job, limit_s)), (Kill(is_fault=True),)
        case Ending(), Tick(silent_s=silent_s, limit_s=limit_s) if silent_s >= limit_s:
            return state, (Kill(is_fault=True),)
        case ((Running(job) | Stopping(job) | Ending(job)), Died(how)):
            return _settle(fail(job, _reason(state, crashed(job, how)), at=at))
        case ((Running() | Stopping() | Ending(is_believed=True)), Said(said)):
            return _heard(state, said, at=at)
        case ((Idle() | Reserved() | Settling()), Said(Ready())):
            return state, (Kill(is_fault=True),)
        case Settling(job), Kept(job_id) if job_id == job.id:
            return Idle(), ()
        case _:
            return state, ()


def _heard(state: Running | Stopping | Ending, said: Event, *, at: float) -> Step:
    """What comes of the worker's words while it has the job."""
    job = state.job
    match said:
        case ModelMoved():
            moved = move_model(job, said, at=at)
            return replace(state, job=moved), (Keep(moved, is_saved=False),)
        case Ready():
            fault = None
        case _ if said.job_id != job.id:
            return state, ()
        case JobFailed(error=error, ends_worker=True):  # no other job may be given to it
            return Ending(job, error), ()
        case _:
            fault = fault_of(job, said)
    if fault is not None or isinstance(said, Ready):
        why = _reason(state, crashed(job, fault or say("worker.ready_twice")))
        return Ending(job, why, is_believed=False), (Kill(is_fault=True),)
    after = advance(job, said, at=at)
    if after.status is not JobState.RUNNING:
        return _settle(after)
    if isinstance(said, StepResult):
        return replace(state, job=after), (Keep(after, is_durable=True, step1=said.files.get("step1")),)
    has_news = int(after.percent) != int(job.percent) or after.warnings != job.warnings
    return replace(state, job=after), (Keep(after, is_saved=has_news),)


def _reason(state: State, otherwise: ErrorInfo) -> ErrorInfo:
    """Why the job of a worker that dies ends."""
    match state:
        case Ending(why=why):
            return why
        case Stopping():
            return STOPPED
        case _:
            return otherwise


def _settle(job: Job) -> Step:
    return Settling(job), (Settle(job),)


def _cancel(job: Job) -> Send:
    return Send(CancelJob(job_id=job.id), job)
