"""Files that survive a crash: the one atomic writer, a reader that trusts nothing, locks between processes, and limits.

Knows nothing about jobs.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from .contract.texts import Text, say

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource

MAX_NOTE_BYTES = 4096
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)


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


def is_temporary(name: str) -> bool:
    """Whether `name` is that of a file which `open_atomically` has not finished: being written, or left by a death."""
    return _TEMPORARY.fullmatch(name) is not None


def is_regular_file(path: Path) -> bool:
    """Whether a file lies at `path` itself: no folder, pipe or link, and nothing that cannot be looked at."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def read_small(path: Path, *, max_bytes: int) -> bytes:
    """The content of a file that anybody may have put there: never waits, follows no link, reads no more than agreed.

    Args:
        path: the file.
        max_bytes: the most that it may have.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, is no regular file (EINVAL, or ELOOP for a link), or is larger (EFBIG).
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes are too many", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:  # refuses a folder, so only now
            return file.read(max_bytes)
    finally:
        os.close(descriptor)


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


def fill_standard_streams() -> None:
    """Open nothing where this process was started without stdin, stdout or stderr.

    To be called before files stay open: the next one, the event loop's perhaps, would be taken for that stream.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def raise_file_limit(wanted: int = 8192) -> None:
    """Let this process and its children open `wanted` files, or as many as the system allows them."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def folder_trouble(root: Path, error: OSError) -> Text:
    """Why the folder `root` could not be used, and what to do, in a sentence or two."""
    if not os.path.isdir(root):  # noqa: PTH112  # raises nothing, whatever is in the way
        return say("files.folder_gone", folder=root)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return say("files.folder_unwritable", folder=root, reason=error.strerror)
    if error.filename is None:
        return say("files.folder_unusable", folder=root, reason=error.strerror)
    name = Path(os.fsdecode(error.filename)).name
    return say("files.folder_unusable_at", folder=root, reason=error.strerror, name=name)


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

        A held lock whose file was removed or moved is seen by nobody, and is taken anew.

        Raises:
            OSError: the lock file cannot be opened.
        """
        if self._descriptor is not None and not _lies_at(self._descriptor, self.path):
            self.release()
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
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def read_note(self) -> str:
        """What the holder wrote, or an empty text."""
        try:
            return read_small(self.path, max_bytes=MAX_NOTE_BYTES).decode(errors="replace")
        except OSError:
            return ""

    @staticmethod
    def is_free(path: Path) -> bool:
        """Whether nobody holds the lock at `path`; a missing file is free."""
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # may lie on a read-only disk
        except FileNotFoundError:
            return True
        except OSError:
            return False  # who cannot look must not take it for free
        try:
            return _lock(descriptor, is_shared=True)
        finally:
            os.close(descriptor)


def _lies_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


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
