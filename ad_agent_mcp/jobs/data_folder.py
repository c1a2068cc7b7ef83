"""The data folder as such: made for its owner alone, mended where it can be, told where not.

Knows nothing about jobs.
"""

import contextlib
import errno
import logging
import os
import secrets
import stat
import sys
from collections.abc import Callable, Generator
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.texts import Text, say
from ..files import folder_trouble, is_disk_full, read_small, write_atomically

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 256
FORMAT = 1
"""Of what lies in the folder; an older server refuses a newer one. A folder without a number is of the first."""
_FolderT = TypeVar("_FolderT", bound="DataFolder")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class DataFolderError(AdAgentError):
    """Raised when the data folder is full, gone, or cannot be read or written: nobody's job is to blame."""


class DataFolder:
    """One data folder: what lies where in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.active = root / "active"
        self.steps = root / "steps"
        self.assets = root / "assets"
        self.locks = root / "locks"
        self.inbox = root / "inbox"
        self._folders = (self.jobs, self.active, self.steps, self.assets, self.locks, self.inbox)

    def make_folders(self) -> None:
        """Make what is missing, for this user alone; a file that lies in a folder's place is put aside.

        The data folder itself is not made: who removed or unmounted it has to bring it back.

        Raises:
            OSError: the data folder is gone or cannot be written.
        """
        for folder in self._folders:
            if folder.is_dir():
                continue
            if folder.exists():
                _put_aside(folder)
            folder.mkdir(mode=0o700, exist_ok=True)  # another server may make it this very moment

    def clear_names(self) -> None:
        """Put aside what lies where files of ours belong and could not be replaced by one.

        Raises:
            OSError: the data folder cannot be written.
        """
        for name in ("latest", "format", "sizes.json", "stage_times.json"):
            path = self.root / name
            if path.is_dir() and not path.is_symlink():
                _put_aside(path)
        for entry in list(os.scandir(self.locks)):
            if entry.name.endswith(".lock") and not entry.is_file(follow_symlinks=False):
                _put_aside(Path(entry.path))

    def claim_format(self) -> None:
        """Mark the folder with the number of its format.

        Raises:
            AdAgentError: a newer version has written it.
        """
        noted = self.read_name(self.root / "format") or ""
        if noted.isdecimal() and int(noted) > FORMAT:
            raise invalid(say("jobs.folder_newer", folder=self.root, found=noted, known=FORMAT))
        if noted != str(FORMAT):
            with contextlib.suppress(OSError):  # a full disk; the next start tries again
                write_atomically(self.root / "format", str(FORMAT).encode(), durable=False)

    def trouble(self) -> Text | None:
        """What is wrong with the data folder now and what to do, or None; looks, and writes nothing."""
        for folder in (self.root, *self._folders):
            try:
                status = os.stat(folder)  # noqa: PTH116  # its error says why
            except FileNotFoundError as error:
                if folder == self.root:  # what is missing inside is made when it is needed
                    return folder_trouble(self.root, error)
                continue
            except OSError as error:
                return folder_trouble(self.root, error)
            if not stat.S_ISDIR(status.st_mode):
                return folder_trouble(self.root, NotADirectoryError(errno.ENOTDIR, "Not a directory", str(folder)))
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                return folder_trouble(self.root, PermissionError(errno.EACCES, "read-only, or another user's"))
        return None

    def exposure(self) -> Text | None:
        """A warning when other users of this machine may look into the data folder, or None."""
        try:
            mode = self.root.stat().st_mode & 0o777
        except OSError:
            return None
        if sys.platform == "win32" or not mode & 0o077:
            return None
        return say("jobs.folder_exposed", folder=self.root, mode=f"{mode:03o}")

    def read_name(self, path: Path) -> str | None:
        """The short text in a file, such as an id, or None where there is none that can be read."""
        try:
            return read_small(path, max_bytes=MAX_NAME_BYTES).decode("ascii", errors="replace").strip()
        except OSError:
            return None


@contextlib.contextmanager
def telling_trouble_of(root: Path) -> Generator[None]:
    """Whatever the system refuses inside is told as what is wrong with the data folder `root`.

    Raises:
        DataFolderError: `storage_full` for a full disk, else `engine_failed`; the message says what to do.
    """
    try:
        yield
    except OSError as error:
        raise _explained(root, error) from error


def telling_trouble(method: Callable[Concatenate[_FolderT, _P], _T]) -> Callable[Concatenate[_FolderT, _P], _T]:
    """A method of a data folder inside `telling_trouble_of`."""

    @wraps(method)
    def told(folder: _FolderT, *arguments: _P.args, **options: _P.kwargs) -> _T:
        with telling_trouble_of(folder.root):
            return method(folder, *arguments, **options)

    return told


def _put_aside(path: Path) -> None:
    """Give what lies in the place of something of ours another name, so that nothing of anybody's is lost."""
    aside = path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}")
    path.rename(aside)
    logger.warning("%s is not what belongs there, and is called %s now", path, aside.name)


def _explained(root: Path, error: OSError) -> DataFolderError:
    logger.error("the data folder: %s", error)
    if is_disk_full(error):
        return DataFolderError(ErrorCode.STORAGE_FULL, say("jobs.disk_full"))
    return DataFolderError(ErrorCode.ENGINE_FAILED, folder_trouble(root, error))
