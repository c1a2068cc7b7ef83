"""Commands as the worker's reader takes them, whatever the pipe does with their bytes, and what is no command."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import Cancelled
from ad_agent_mcp.contract.messages import (
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    UNREADABLE_EXIT,
    CancelJob,
    Command,
    Inputs,
    Shutdown,
    StartJob,
    UnloadModels,
    encode,
)
from ad_agent_mcp.contract.stages import EngineName, Plan
from ad_agent_mcp.worker.inbox import Inbox

IDS = ("a", "b", "c")
PLAN = Plan(engine=EngineName.DRAFT, preset="draft", steps=(), stages=())
words = st.text(st.characters(codec="utf-8", categories=["L", "N", "Zs"]), max_size=30)
commands = st.one_of(
    st.builds(lambda job_id, text: start(job_id, text), st.sampled_from(IDS), words),
    st.builds(CancelJob, job_id=st.sampled_from(IDS)),
    st.just(UnloadModels()),
)


def start(job_id: str, text: str = "") -> StartJob:
    request = GenerateRequest(bg_prompt=text)
    return StartJob(job_id=job_id, request=request, plan=PLAN, inputs=Inputs(), out_dir=Path("out"))


class Pipe(io.RawIOBase):
    """Bytes that come in pieces, as a pipe gives them; each piece ends at one of `cuts`."""

    def __init__(self, data: bytes, cuts: set[int]) -> None:
        self._data, self._at, self._cuts = data, 0, sorted({*cuts, len(data)})

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = next((cut for cut in self._cuts if cut > self._at), self._at)
        piece = self._data[self._at : min(end, self._at + len(buffer))]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def read(data: bytes, cuts: set[int] | None = None) -> tuple[Inbox, int]:
    inbox = Inbox()
    return inbox, inbox.read(io.BufferedReader(Pipe(data, cuts or set())))


def work_of(inbox: Inbox) -> list[Any]:
    work: list[Any] = []
    while inbox.has_work:
        work.append(inbox.next_work())
    return work


def is_cancelled(inbox: Inbox, job_id: str) -> bool:
    try:
        inbox.raise_if_cancelled(job_id)
    except Cancelled:
        return True
    return False


@given(st.lists(commands, max_size=6), st.sets(st.integers(0, 2000)))
@example([start("a", "여름"), CancelJob(job_id="a"), UnloadModels()], set(range(2000)))
def test_commands_come_whole_and_in_order_wherever_the_pipe_cuts_them(sent: list[Command], cuts: set[int]):
    inbox, status = read(b"".join(encode(command) for command in sent), cuts)
    assert status == 0
    assert work_of(inbox) == [command for command in sent if not isinstance(command, CancelJob)]
    assert [job_id for job_id in IDS if is_cancelled(inbox, job_id)] == [
        job_id for job_id in IDS if CancelJob(job_id=job_id) in sent
    ]


@given(st.lists(commands, min_size=1, max_size=3), st.data())
def test_a_stream_that_breaks_off_gives_what_was_whole_and_says_if_more_had_begun(
    sent: list[Command], data: st.DataObject
):
    frames = [encode(command) for command in sent]
    borders = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    end = data.draw(st.integers(0, borders[-1]) | st.sampled_from(borders))
    inbox, status = read(b"".join(frames)[:end])
    whole = sent[: max(count for count, border in enumerate(borders) if border <= end)]
    assert work_of(inbox) == [command for command in whole if not isinstance(command, CancelJob)]
    assert status == (0 if end in borders else UNREADABLE_EXIT)


@given(st.binary(min_size=1, max_size=200))
def test_garbage_ends_the_worker_with_a_status_of_its_own(garbage: bytes):
    inbox, status = read(encode(UnloadModels()) + garbage)
    assert status == UNREADABLE_EXIT
    assert work_of(inbox) == [UnloadModels()]


def framed(body: bytes) -> bytes:
    return FRAME_HEADER.pack(len(body)) + body


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (framed(b'{"type": "start_job_2", "job_id": "a"}'), "start_job_2"),
        (framed(b'{"type": "cancel_job", "job_id": "a", "why": "tired"}'), "cancel_job.why"),
        (
            framed(encode(start("a", "secret words"))[4:].replace(b"bg_prompt", b"bg_words")),
            "start_job.request.bg_words",
        ),
        (framed(b'{"type": "cancel_job"}'), "cancel_job.job_id"),
        (framed(b"not JSON"), "JSON"),
        (framed(b""), "JSON"),
        (b"GET / HTTP/1.1\r\n", "1195725856 bytes"),
        (FRAME_HEADER.pack(MAX_FRAME_BYTES + 1) + b"{}", f"{MAX_FRAME_BYTES + 1} bytes"),
        (b"\0\0", "broke off"),
        (FRAME_HEADER.pack(30) + b"{}", "broke off"),
    ],
)
def test_what_cannot_be_read_is_said_without_anybodys_words(data: bytes, told: str, caplog: pytest.LogCaptureFixture):
    inbox, status = read(encode(CancelJob(job_id="a")) + data)
    assert status == UNREADABLE_EXIT
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert told in record.getMessage()
    assert not [word for word in ("tired", "secret", 'words"') if word in record.getMessage()]
    assert not inbox.has_work
    assert is_cancelled(inbox, "a")


def test_a_frame_of_the_greatest_size_is_read():
    body = encode(CancelJob(job_id="a"))[4:].ljust(MAX_FRAME_BYTES)
    inbox, status = read(framed(body))
    assert status == 0
    assert is_cancelled(inbox, "a")


def test_nothing_after_a_shutdown_is_read():
    inbox, status = read(encode(Shutdown()) + encode(CancelJob(job_id="a")) + b"garbage")
    assert status == 0
    assert not is_cancelled(inbox, "a")


def test_a_cancel_that_overtakes_its_job_holds_for_that_job_alone():
    inbox, _ = read(encode(CancelJob(job_id="b")) + encode(start("a")) + encode(start("b")))
    assert [(job.job_id, is_cancelled(inbox, job.job_id)) for job in work_of(inbox)] == [("a", False), ("b", True)]
