"""Opening files and folders where they were found: nothing that was swapped for a link since then is followed.

Paths here are resolved already and were found to be allowed; this keeps true what was found.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path


def open_in_place(path: Path, *, is_folder: bool = False) -> int:
    """A descriptor for reading what lies at `path`, which is resolved; never waits on a device or a pipe.

    Raises:
        OSError: it cannot be read, or is behind a link now.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | (getattr(os, "O_DIRECTORY", 0) if is_folder else 0))
    if _was_moved(descriptor, path):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it was put behind a link meanwhile", str(path))
    return descriptor


@contextlib.contextmanager
def listing(folder: Path) -> Generator[Iterator[os.DirEntry[str]]]:
    """The entries of `folder`, which is resolved, read as far as they are asked for.

    Raises:
        OSError: it cannot be read, is no folder, or is behind a link now.
    """
    if os.scandir not in os.supports_fd:
        with os.scandir(folder) as entries:
            yield entries
        return
    descriptor = open_in_place(folder, is_folder=True)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _was_moved(descriptor: int, path: Path) -> bool:
    """Whether a folder on the way to `path` was swapped for a link after `path` was resolved (Linux)."""
    return sys.platform == "linux" and os.path.realpath(f"/proc/self/fd/{descriptor}") != str(path)
