"""What is written durably outlives a power cut: each file is on the disk before its name is, in this order."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ad_agent_mcp.files import FileLock, read_small, write_atomically

Event = tuple[str, str, int]
"""What happened to which path, and how many bytes the system had of it by then."""


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Every fsync and every rename of this process, in order."""
    events: list[Event] = []
    fsync, replace = os.fsync, os.replace

    def hear_fsync(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("fsync", os.path.realpath(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_size))

    def hear_replace(source: str | Path, target: str | Path) -> None:
        events.append(("replace", str(source), Path(source).stat().st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", hear_fsync)
    monkeypatch.setattr(os, "replace", hear_replace)
    return events


def test_a_durable_write_is_on_the_disk_before_its_name_and_its_name_before_it_returns(
    tmp_path: Path, happened: list[Event]
):
    write_atomically(tmp_path / "job.json", b"0123456789")
    (first, temporary, size), (second, renamed, _), (third, folder, _) = happened
    assert (first, second, third) == ("fsync", "replace", "fsync")
    assert Path(temporary).parent == tmp_path
    assert temporary == renamed != str(tmp_path / "job.json")
    assert size == 10, "the bytes were still in this process"
    assert folder == str(tmp_path)
    assert (tmp_path / "job.json").read_bytes() == b"0123456789"


def test_what_need_not_outlive_a_power_cut_waits_for_no_disk(tmp_path: Path, happened: list[Event]):
    write_atomically(tmp_path / "latest", b"id", durable=False)
    assert [what for what, _, _ in happened] == ["replace"]


def test_a_write_that_the_disk_does_not_confirm_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "job.json"
    path.write_bytes(b"old")

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("job.json", b"old")]


@pytest.fixture(params=["pipe", "folder", "link", "dangling link", "too large", "missing"])
def no_small_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "name"
    (tmp_path / "sound").write_bytes(b"x")
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "sound")
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "too large":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        case _:
            pass
    return path


def test_a_small_file_is_read_and_nothing_else_is_waited_for_or_followed(no_small_file: Path, tmp_path: Path):
    assert read_small(tmp_path / "sound", max_bytes=1) == b"x"
    with pytest.raises(OSError):  # noqa: PT011  # which of them depends on what lies there
        read_small(no_small_file, max_bytes=100)


def test_whether_a_lock_is_free_can_be_told_on_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = FileLock(tmp_path / "device.lock")
    assert lock.try_acquire()
    open_ = os.open

    def refuse_writing(path: str | Path, flags: int, *rest: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system", str(path))
        return open_(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse_writing)
    assert not FileLock.is_free(lock.path)
    lock.release()
    assert FileLock.is_free(lock.path)


def test_a_held_lock_whose_file_was_moved_away_is_taken_anew_where_others_look(tmp_path: Path):
    lock = FileLock(tmp_path / "server.lock")
    assert lock.try_acquire("first")
    lock.path.rename(tmp_path / "away")
    assert FileLock.is_free(lock.path)
    assert lock.try_acquire("second")
    assert not FileLock.is_free(lock.path)
    assert FileLock.is_free(tmp_path / "away")
    assert lock.read_note() == "second"
    lock.release()
    with contextlib.suppress(FileNotFoundError):
        lock.path.unlink()
