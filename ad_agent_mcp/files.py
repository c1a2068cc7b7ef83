"""Files that survive a crash: the one atomic writer, locks between processes, and what the system has no more of.

Knows nothing about jobs.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data` as a whole: a reader, or a restart, sees the old file or the new one.

    Args:
        path: the file; its folder exists.
        data: the whole content.
        durable: also outlive a power cut (fsync of the file and its folder). Without it the file still
            outlives the death of any process.

    Raises:
        OSError: the disk is full, or the folder is not writable. Nothing is left behind.
    """
    with open_atomically(path, durable=durable) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomically(path: Path, *, durable: bool = True) -> Generator[BinaryIO]:
    """`write_atomically` for content that comes piece by piece; an exception inside leaves `path` as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` outlive a power cut, where the platform can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def is_disk_full(error: OSError) -> bool:
    """Whether `error` says that there is no room (or quota) left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_files(error: OSError) -> bool:
    """Whether `error` says that this process, or the system, may open no more files or connections."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def raise_file_limit(wanted: int = 8192) -> None:
    """Let this process and its children open `wanted` files, or as many as the system allows them."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


class FileLock:
    """An exclusive lock between processes; the system lets go of it when its holder dies.

    Owned by whoever called `try_acquire`; the file stays and carries a note about the holder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self, note: str = "") -> bool:
        """Take the lock without waiting, or only renew the note; False when another process has it.

        Raises:
            OSError: the lock file cannot be opened.
        """
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            if not _lock(descriptor):
                os.close(descriptor)
                return False
        with contextlib.suppress(OSError):  # a full disk holds no note; the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, note.encode())
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go; nothing happens when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read_note(self) -> str:
        """What the holder wrote, or an empty text."""
        try:
            return self.path.read_text("utf-8", errors="replace")
        except OSError:
            return ""

    @staticmethod
    def is_free(path: Path) -> bool:
        """Whether nobody holds the lock at `path`; a missing file is free."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # who cannot look must not take it for free
        try:
            return _lock(descriptor, is_shared=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, *, is_shared: bool = False) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True
