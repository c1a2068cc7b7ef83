"""The worker's event stream: whole frames, one at a time, whoever writes and whoever else prints."""

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ad_agent_mcp.contract.messages import (
    EVENT,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    Event,
    JobNotice,
    ModelMoved,
    StepResult,
)
from ad_agent_mcp.contract.texts import say
from ad_agent_mcp.worker.context import Wire


def frames(data: bytes) -> list[Event]:
    events: list[Event] = []
    while data:
        (size,) = FRAME_HEADER.unpack(data[: FRAME_HEADER.size])
        body, data = data[FRAME_HEADER.size : FRAME_HEADER.size + size], data[FRAME_HEADER.size + size :]
        assert len(body) == size
        events.append(EVENT.validate_json(body))
    return events


def notice(text: str) -> JobNotice:
    return JobNotice(job_id="a", code="c", message=text)


@contextmanager
def pipe() -> Generator[tuple[int, list[bytes]]]:
    """The end of a pipe that is written to, and what was read at the other once the block is left."""
    reading, writing = os.pipe()
    pieces: list[bytes] = []

    def drain() -> None:
        while piece := os.read(reading, 1 << 16):
            pieces.append(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield writing, pieces
    finally:
        os.close(writing)
        thread.join()
        os.close(reading)


def test_a_warning_crosses_the_pipe_with_what_it_is_made_from():
    told = say("pipeline.blend_reduced", kept=0.65)
    with pipe() as (end, pieces):
        Wire(end).warn("a", "blend_reduced", told)
    assert frames(b"".join(pieces)) == [JobNotice(job_id="a", code="blend_reduced", message=told.en, text=told)]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5), st.integers(1, 50))
def test_a_pipe_that_takes_a_few_bytes_at_a_time_gets_whole_frames(texts: list[str], most: int):
    written = os.write
    with pytest.MonkeyPatch.context() as patch, pipe() as (end, pieces):
        patch.setattr(os, "write", lambda descriptor, data: written(descriptor, data[:most]))
        wire = Wire(end)
        for text in texts:
            wire.send(notice(text))
    assert frames(b"".join(pieces)) == [notice(text) for text in texts]


def test_frames_of_several_threads_never_mix(monkeypatch: pytest.MonkeyPatch):
    written = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: written(descriptor, data[:7]))
    with pipe() as (end, pieces):
        wire = Wire(end)
        threads = [
            threading.Thread(target=lambda name=name: [wire.send(notice(f"{name} {n}")) for n in range(50)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = [event.message for event in frames(b"".join(pieces)) if isinstance(event, JobNotice)]
    assert len(told) == 200
    for name in "abcd":
        assert [text for text in told if text[0] == name] == [f"{name} {n}" for n in range(50)]


def test_an_oversized_message_is_refused_before_a_byte_of_it_is_written():
    with pipe() as (end, pieces):
        wire = Wire(end)
        with pytest.raises(ValueError, match=str(MAX_FRAME_BYTES)):
            wire.send(StepResult(job_id="x", step=1, files={"step1": "x" * MAX_FRAME_BYTES}, width=1, height=1))
        wire.send(notice("after"))
    assert frames(b"".join(pieces)) == [notice("after")]


def test_a_server_that_is_gone_is_noticed():
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        Wire(writing).send(notice("x"))
    os.close(writing)


PRINTING = """
import ctypes, os, subprocess, sys
from ad_agent_mcp.contract.messages import ModelMoved
from ad_agent_mcp.worker.context import Wire
sys.stdout.write("before ")
wire = Wire.claim_stdout()
libc = ctypes.CDLL(None)
for name in ("one", "two"):
    wire.send(ModelMoved(model=name, state="loading"))
    print("printed")
    os.write(1, b"written")
    libc.puts(b"from C")
    subprocess.run([sys.executable, "-c", "print('a child')"])
libc.fflush(None)
"""


def test_what_is_printed_by_whomever_after_stdout_was_claimed_is_in_no_frame():
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, timeout=60, check=True)
    assert done.stdout.startswith(b"before ")
    told = frames(done.stdout.removeprefix(b"before "))
    assert told == [ModelMoved(model=name, state="loading") for name in ("one", "two")]
    for text in (b"printed", b"written", b"from C", b"a child"):
        assert done.stderr.count(text) == 2
