"""What a power cut would leave of a folder."""

import contextlib
import os
from pathlib import Path

import pytest


class Disk:
    """What would be left of a folder after a power cut: contents that were synced, under names that were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._contents: dict[tuple[int, int], bytes] = {}
        self._names: dict[str, tuple[int, int]] = {}
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            for entry in path.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another thread has just given it its name
                    self._names[str(entry)] = key_of(entry)
        else:
            self._contents[key_of(path)] = path.read_bytes()

    def content(self, path: Path) -> bytes | None:
        """The file as it would be found."""
        key = self._names.get(str(path))
        return None if key is None else self._contents.get(key)

    def has_name(self, path: Path) -> bool:
        """Whether the folder that `path` lies in would still have it."""
        return str(path) in self._names


def key_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
