"""Which job a caller speaks of: by id in any spelling, by the beginning of one, or by saying nothing.

Blocks on the disk.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..contract.errors import AdAgentError, ErrorCode, Fix, invalid
from ..contract.schemas import JobState
from ..contract.texts import Text, say
from .job import Job
from .store import JobStore

_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])")
_PREFIX = re.compile(r"[0-9a-f]{4,8}|[0-9a-f]{8}-[0-9a-f-]{0,27}|[0-9a-f]{9,32}")
_LATEST = ("latest", "last", "newest")
_MAX_CHARACTERS = 500
_MAX_NAMED = 5


class Latest(NamedTuple):
    """Which job is meant where none is named: the newest that fits.

    Attributes:
        fits: whether a job does; None where all do.
        missing: what to say when there is none.
    """

    fits: Callable[[Job], bool] | None
    missing: Text


def _is_unfinished(job: Job) -> bool:
    return not job.status.is_terminal


def _is_waiting(job: Job) -> bool:
    return job.waiting_for is not None


def _is_finished(job: Job) -> bool:
    return job.status is JobState.COMPLETED


ANY = Latest(None, say("jobs.none_yet"))
UNFINISHED = Latest(_is_unfinished, say("jobs.none_unfinished"))
WAITING = Latest(_is_waiting, say("jobs.none_waiting"))
FINISHED = Latest(_is_finished, say("jobs.none_finished"))


def find_job_id(given: str, store: JobStore, *, field: str = "job_id") -> str:
    """The id of the stored job that `given` names.

    Args:
        given: an id in any case, with whatever is around it (blanks, quotes, `ad://jobs/`), or its beginning.
        store: the jobs.
        field: the argument that it came in.

    Raises:
        AdAgentError: it names none, or more than one.
    """
    spoken = given[:_MAX_CHARACTERS].strip().lower()
    named = set(_UUID.findall(spoken))
    if len(named) == 1:
        return named.pop()
    spoken = spoken.removeprefix("ad://jobs/").strip("'\"`{}[]()<>…. ").rstrip("/")
    listing = Fix(tool="list_jobs", arguments={})
    if not _PREFIX.fullmatch(spoken):
        raise invalid(say("jobs.not_an_id", given=repr(given[:64])), field=field, fix=listing)
    beginning = spoken.replace("-", "")
    fitting = [job_id for job_id in store.job_ids() if job_id.replace("-", "").startswith(beginning)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise AdAgentError(
            ErrorCode.NOT_FOUND,
            say("jobs.no_id_begins_so", beginning=repr(spoken)),
            field=field,
            fix=listing,
        )
    several = {"beginning": repr(spoken), "count": len(fitting), "ids": fitting[:_MAX_NAMED]}
    if len(fitting) > _MAX_NAMED:
        told = say("jobs.many_more_ids_begin_so", **several, more=len(fitting) - _MAX_NAMED)
    else:
        told = say("jobs.many_ids_begin_so", **several)
    raise invalid(told, field=field, fix=listing)


def which_job(
    given: str | None, store: JobStore, latest: Latest, read: Callable[[Iterable[str]], Iterable[Job]]
) -> str:
    """The id of the job that a call is about.

    Args:
        given: what the caller says; None, or that it is the latest, names none.
        store: the jobs.
        latest: which job is meant then.
        read: the jobs with these ids, one by one, as they stand now.

    Raises:
        AdAgentError: there is no such job.
    """
    if given is not None and given.strip().lower() not in _LATEST:
        return find_job_id(given, store)
    newest = store.latest_id()
    if latest.fits is None and newest is not None:
        return newest
    if latest.fits is not None:
        among = store.job_ids() if latest is FINISHED else sorted(store.active_jobs(), reverse=True)
        for job in read(among):
            if latest.fits(job):
                return job.id
    fix = Fix(tool="list_jobs", arguments={}) if newest is not None else None
    raise AdAgentError(ErrorCode.NOT_FOUND, latest.missing, field="job_id", fix=fix)
