"""Which finished jobs and uploads are let go of: by count, age and disk space, oldest first.

What dead writers left goes, too. A job that runs, waits or is queued is never removed. Blocks on the disk.

Clocks are wrong at times, so age alone removes little: the newest `SAFE_FROM_AGE` jobs stay however old they seem, and
one clean-up lets go of a tenth at most. What seems to come from the future was made by a clock that was ahead, hence
before whatever is made now: it counts as oldest.
"""

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from ..config import Settings
from ..files import is_temporary, read_small, write_atomically
from .picture_store import ASSET_ID
from .store import JobStore, created_at

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
SAFE_FROM_AGE = 20
"""Jobs, the newest ones, that age does not remove."""
CLOCK_SLACK_S = 3600.0
"""By how much clocks are set back in earnest: less is not told from jobs made just now."""
ABANDONED_S = 3600.0
"""Age of half a file, or half a job, after which nobody can still be writing it."""
SIZES = "sizes.json"
"""What each job that is over takes on the disk: it is looked at once, for it never changes."""
MAX_SIZES_BYTES = 64 << 20
_SIZES = TypeAdapter(dict[str, Annotated[int, Field(ge=0)]])


def prune(store: JobStore, settings: Settings, *, now: float | None = None) -> list[str]:
    """Remove what is over the limits, and what dead writers left.

    Args:
        store: the jobs; ids sort by creation time.
        settings: `keep_jobs`, `keep_days`, `keep_gb`.
        now: seconds since the epoch, for tests.

    Returns:
        The ids of the removed jobs.

    Raises:
        DataFolderError: the data folder is gone or cannot be read.
    """
    now = time.time() if now is None else now
    sweep(store, now=now)
    job_ids = sorted(
        store.job_ids(), key=lambda job_id: (created_at(job_id) <= now + CLOCK_SLACK_S, job_id), reverse=True
    )
    latest_id = store.latest_id()
    active = store.active_jobs()  # after the ids, so that it has every job that has just come
    over = [job_id for job_id in job_ids if job_id not in active]
    known_bytes = _known_sizes(store)
    sizes_bytes, unsettled = _measured(store, over, known_bytes, now=now)
    if sum(sizes_bytes.values()) > settings.keep_gb * 2**30:  # nothing is removed because a file claims its size
        sizes_bytes, unsettled = _measured(store, over, {}, now=now)
    removed: list[str] = []
    for job_id in _beyond_limits(sizes_bytes, settings, latest_id, now=now):
        try:
            store.remove(job_id)
        except (OSError, RecursionError) as error:
            logger.warning("an old job was not removed: %s", error, extra={"job_id": job_id})
            continue
        del sizes_bytes[job_id]
        removed.append(job_id)
    settled_bytes = {job_id: size for job_id, size in sizes_bytes.items() if job_id not in unsettled}
    if settled_bytes != known_bytes:
        with contextlib.suppress(OSError):
            write_atomically(store.root / SIZES, json.dumps(settled_bytes).encode(), durable=False)
    _remove_old_uploads(store, settings, now=now)
    if removed:
        logger.info("%d old jobs were removed (AD_AGENT_KEEP_JOBS, _DAYS, _GB)", len(removed))
    return removed


def sweep(store: JobStore, *, now: float | None = None) -> None:
    """Remove the half files and half jobs of dead writers, where finding them does not take reading every job.

    Raises:
        DataFolderError: the data folder is gone or cannot be read.
    """
    now = time.time() if now is None else now
    for folder in (store.root, store.active, store.steps, store.assets, store.locks):
        for entry in _entries(folder):
            if is_temporary(entry.name) and _is_abandoned(Path(entry.path), now):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
    for job_id in store.active_jobs():
        if _is_half(store.jobs / job_id) and _is_abandoned(store.active / job_id, now):
            with contextlib.suppress(OSError):
                store.remove(job_id)


def _beyond_limits(sizes_bytes: dict[str, int], settings: Settings, latest_id: str | None, *, now: float) -> list[str]:
    """The jobs to remove, of those with these sizes, newest first."""
    used_bytes = 0
    surplus: list[str] = []
    aged: list[str] = []
    for kept, (job_id, size_bytes) in enumerate(sizes_bytes.items(), 1):
        used_bytes += size_bytes
        # The newest one stays whatever its size, and whatever its id says after a clock was set back.
        if kept == 1 or job_id == latest_id:
            continue
        if kept > settings.keep_jobs or used_bytes > settings.keep_gb * 2**30:
            surplus.append(job_id)
        elif kept > SAFE_FROM_AGE and now - created_at(job_id) > settings.keep_days * DAY_S:
            aged.append(job_id)
    return aged[-_tenth(len(sizes_bytes)) :] + surplus


def _tenth(count: int) -> int:
    return max(1, count // 10)


def _known_sizes(store: JobStore) -> dict[str, int]:
    try:
        return _SIZES.validate_json(read_small(store.root / SIZES, max_bytes=MAX_SIZES_BYTES))
    except (OSError, ValueError):
        return {}


def _measured(
    store: JobStore, job_ids: list[str], known_bytes: dict[str, int], *, now: float
) -> tuple[dict[str, int], set[str]]:
    """What each job takes on the disk, in the given order, and those that have to be looked at again."""
    sizes_bytes: dict[str, int] = {}
    unsettled: set[str] = set()
    for job_id in job_ids:
        folder = store.jobs / job_id
        if job_id in known_bytes:
            sizes_bytes[job_id] = known_bytes[job_id]
        elif not _is_half(folder):
            sizes_bytes[job_id], is_settled = _looked_through(folder, now=now)
            if not is_settled:
                unsettled.add(job_id)
        elif _is_abandoned(folder, now):
            with contextlib.suppress(OSError):
                store.remove(job_id)
    return sizes_bytes, unsettled


def _looked_through(folder: Path, *, now: float) -> tuple[int, bool]:
    """The bytes in a job's folder without abandoned half files, which are removed; whether none is left."""
    total_bytes, is_settled = 0, True
    folders = [folder]
    while folders:
        for entry in _entries(folders.pop()):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                status = entry.stat(follow_symlinks=False)
                if is_temporary(entry.name):
                    if now - status.st_mtime > ABANDONED_S:
                        os.unlink(entry.path)  # noqa: PTH108  # ten thousand jobs are walked
                        continue
                    is_settled = False
                total_bytes += status.st_size // max(1, status.st_nlink)
    return total_bytes, is_settled


def _remove_old_uploads(store: JobStore, settings: Settings, *, now: float) -> None:
    uploads = [entry for entry in _entries(store.assets) if ASSET_ID.fullmatch(entry.name)]
    old: list[tuple[float, str]] = []
    for upload in uploads:
        with contextlib.suppress(OSError):
            status = upload.stat(follow_symlinks=False)
            if now - status.st_mtime > settings.keep_days * DAY_S:
                old.append((status.st_mtime, upload.path))
    for _, path in sorted(old)[: _tenth(len(uploads))]:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _is_half(folder: Path) -> bool:
    """Whether a job was only begun to be put there: it has neither its state nor an ad."""
    return not any(os.path.lexists(folder / name) for name in ("job.json", "final.png"))


def _is_abandoned(path: Path, now: float) -> bool:
    try:
        return now - path.lstat().st_mtime > ABANDONED_S
    except OSError:
        return False
