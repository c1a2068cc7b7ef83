"""Which job a caller speaks of: by id in any spelling, by the beginning of one, or by saying nothing.

Blocks on the disk.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..contract.errors import AdAgentError, ErrorCode, Fix, invalid
from ..contract.schemas import JobState
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
    missing: str


def _is_unfinished(job: Job) -> bool:
    return not job.status.is_terminal


def _is_waiting(job: Job) -> bool:
    return job.waiting_for is not None


def _is_finished(job: Job) -> bool:
    return job.status is JobState.COMPLETED


ANY = Latest(None, "There is no job yet. Call generate with a product_image to make an ad.")
UNFINISHED = Latest(_is_unfinished, "No job runs or waits; list_jobs shows the others.")
WAITING = Latest(_is_waiting, "No job waits for approval; list_jobs shows what there is.")
FINISHED = Latest(_is_finished, "No job is finished yet; status follows the latest one.")


def find_job_id(text: str, store: JobStore, *, field: str = "job_id") -> str:
    """The id of the stored job that `text` names.

    Args:
        text: an id in any case, with whatever is around it (blanks, quotes, `ad://jobs/`), or its beginning.
        store: the jobs.
        field: the argument that it came in.

    Raises:
        AdAgentError: it names none, or more than one.
    """
    spoken = text[:_MAX_CHARACTERS].strip().lower()
    named = set(_UUID.findall(spoken))
    if len(named) == 1:
        return named.pop()
    spoken = spoken.removeprefix("ad://jobs/").strip("'\"`{}[]()<>…. ").rstrip("/")
    listing = Fix(tool="list_jobs", arguments={})
    if not _PREFIX.fullmatch(spoken):
        raise invalid(
            f"{text[:64]!r} is not a job id. Job ids are UUIDs; list_jobs tells them.", field=field, fix=listing
        )
    beginning = spoken.replace("-", "")
    fitting = [job_id for job_id in store.job_ids() if job_id.replace("-", "").startswith(beginning)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise AdAgentError(
            ErrorCode.NOT_FOUND,
            f"There is no job whose id begins with {spoken!r}. list_jobs shows the stored ones.",
            field=field,
            fix=listing,
        )
    more = f" and {len(fitting) - _MAX_NAMED} more" if len(fitting) > _MAX_NAMED else ""
    raise invalid(
        f"{spoken!r} begins the ids of {len(fitting)} jobs: {', '.join(fitting[:_MAX_NAMED])}{more}. Give more of it.",
        field=field,
        fix=listing,
    )


def which_job(text: str | None, store: JobStore, latest: Latest, read: Callable[[Iterable[str]], Iterable[Job]]) -> str:
    """The id of the job that a call is about.

    Args:
        text: what the caller says; None, or that it is the latest, names none.
        store: the jobs.
        latest: which job is meant then.
        read: the jobs with these ids, one by one, as they stand now.

    Raises:
        AdAgentError: there is no such job.
    """
    if text is not None and text.strip().lower() not in _LATEST:
        return find_job_id(text, store)
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
