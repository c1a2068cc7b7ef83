"""Which finished jobs and uploads are let go of: by count, age and disk space, oldest first.

A job that runs, waits or is queued is never removed. Blocks on the disk.
"""

import contextlib
import json
import logging
import os
import time
from pathlib import Path

from pydantic import TypeAdapter

from ..config import Settings
from ..files import write_atomically
from .store import JobStore

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
SIZES = "sizes.json"
"""What each job that is over takes on the disk: it is looked at once, for it never changes."""
_SIZES = TypeAdapter(dict[str, int])


def prune(store: JobStore, settings: Settings, *, now: float | None = None) -> list[str]:
    """Remove what is over the limits.

    Args:
        store: the jobs; ids sort by creation time.
        settings: `keep_jobs`, `keep_days`, `keep_gb`.
        now: seconds since the epoch, for tests.

    Returns:
        The ids of the removed jobs.
    """
    now = time.time() if now is None else now
    job_ids, latest_id = store.job_ids(), store.latest_id()
    active = store.active_jobs()  # after the ids, so that it has every job that has just come
    known_bytes: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        known_bytes = _SIZES.validate_json((store.root / SIZES).read_bytes())
    sizes_bytes: dict[str, int] = {}
    budget_bytes = settings.keep_gb * 2**30
    kept = used_bytes = 0
    removed: list[str] = []
    for job_id in job_ids:
        if job_id in active:
            continue
        size_bytes = known_bytes.get(job_id)
        sizes_bytes[job_id] = _size_bytes(store.jobs / job_id) if size_bytes is None else size_bytes
        used_bytes += sizes_bytes[job_id]
        kept += 1
        is_old = now - _created_at(job_id) > settings.keep_days * DAY_S
        # The newest one stays whatever its size, and whatever its id says after a clock was set back.
        is_newest = kept == 1 or job_id == latest_id
        if (not is_newest and (kept > settings.keep_jobs or used_bytes > budget_bytes)) or is_old:
            store.remove(job_id)
            del sizes_bytes[job_id]
            removed.append(job_id)
    if sizes_bytes != known_bytes:
        with contextlib.suppress(OSError):
            write_atomically(store.root / SIZES, json.dumps(sizes_bytes).encode(), durable=False)
    for asset in store.assets.iterdir():
        with contextlib.suppress(OSError):
            if now - asset.stat().st_mtime > settings.keep_days * DAY_S:
                asset.unlink()
    if removed:
        logger.info("%d old jobs were removed (AD_AGENT_KEEP_JOBS, _DAYS, _GB)", len(removed))
    return removed


def _created_at(job_id: str) -> float:
    """When a job was made: its id begins with the milliseconds since the epoch (UUID version 7)."""
    return int(job_id.replace("-", "")[:12], 16) / 1000


def _size_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118  # ten thousand jobs are walked
                total += status.st_size // status.st_nlink
    return total
