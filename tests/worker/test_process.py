"""The real worker as a process: what it is told over stdin, what it answers on stdout, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.messages import (
    EVENT,
    FRAME_HEADER,
    UNREADABLE_EXIT,
    CancelJob,
    Event,
    Inputs,
    JobDone,
    JobFailed,
    Message,
    Ready,
    Shutdown,
    StageProgress,
    StartJob,
    UnloadModels,
    encode,
)
from ad_agent_mcp.engines.draft.info import INFO


class Worker:
    """A worker and both ends of its pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.stdin, self.stdout, self.stderr = process, process.stdin, process.stdout, process.stderr

    def tell(self, *messages: Message) -> None:
        """Write all of them at once."""
        self.stdin.write(b"".join(map(encode, messages)))
        self.stdin.flush()

    def hear(self) -> Event | None:
        """The next event; None when its stdout has ended."""
        header = self.stdout.read(FRAME_HEADER.size)
        return EVENT.validate_json(self.stdout.read(FRAME_HEADER.unpack(header)[0])) if header else None

    def hear_until(self, *kinds: type[Message]) -> Event:
        while not isinstance(event := self.hear(), kinds):
            assert event is not None, self.stderr.read().decode()
        assert event is not None
        return event

    def end(self) -> tuple[int, str]:
        """Its exit status and what it said on stderr, once it has ended by itself."""
        said = self.stderr.read().decode()
        return self.process.wait(30), said


@contextmanager
def started(data: Path, *command: str) -> Generator[Worker]:
    environment = {**os.environ, "AD_AGENT_DATA_DIR": str(data), "AD_AGENT_ENGINE": "draft"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ad_agent_mcp.worker", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    with process:
        worker = Worker(process)
        try:
            worker.hear_until(Ready)
            yield worker
        finally:
            process.kill()


def job(job_id: str, folder: Path, pictures: Path) -> StartJob:
    plan = INFO.plan((1,))
    out_dir = folder / job_id
    out_dir.mkdir()
    return StartJob(
        job_id=job_id,
        request=GenerateRequest(width=256, height=256, seed=1),
        plan=plan,
        inputs=Inputs(product=pictures / "bottle.png"),
        out_dir=out_dir,
    )


def test_a_cancel_ends_the_job_that_it_names_and_no_other_and_may_come_first(tmp_path: Path, pictures: Path):
    first, second, third = (job(name, tmp_path, pictures) for name in ("first", "second", "third"))
    with started(tmp_path) as worker:
        worker.tell(CancelJob(job_id="second"), first, second)
        done = worker.hear_until(JobDone, JobFailed)
        assert isinstance(done, JobDone)
        assert done.job_id == "first"
        stopped = worker.hear_until(JobDone, JobFailed)
        assert isinstance(stopped, JobFailed)
        assert (stopped.job_id, stopped.error.code) == ("second", "cancelled")
        worker.tell(third)
        assert isinstance(worker.hear_until(StageProgress), StageProgress)
        worker.tell(CancelJob(job_id="third"))
        stopped = worker.hear_until(JobDone, JobFailed)
        assert isinstance(stopped, JobFailed)
        assert stopped.error.code == "cancelled"
        worker.stdin.close()
        assert worker.end()[0] == 0


@pytest.mark.parametrize("how", ["shutdown", "end of stdin"])
def test_it_ends_at_once_while_it_works(how: str, tmp_path: Path, pictures: Path):
    with started(tmp_path) as worker:
        worker.tell(job("a", tmp_path, pictures))
        worker.hear_until(StageProgress)
        if how == "shutdown":
            worker.tell(Shutdown())
        else:
            worker.stdin.close()
        heard: list[Event] = []
        while event := worker.hear():
            heard.append(event)
        assert worker.end()[0] == 0
        assert not [event for event in heard if isinstance(event, JobDone | JobFailed)]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes")
def test_what_is_sent_to_its_whole_group_ends_no_job(tmp_path: Path, pictures: Path):
    with started(tmp_path) as worker:
        worker.tell(job("a", tmp_path, pictures))
        worker.hear_until(StageProgress)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            worker.process.send_signal(number)
        assert isinstance(worker.hear_until(JobDone, JobFailed), JobDone)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"type": "cancel_job", "job_id": "a", "lane": 2}', "cancel_job.lane"),
        (b'{"type": "sing"}', "sing"),
        (b"\xff\xfe", "JSON"),
    ],
)
def test_a_command_that_it_does_not_know_ends_it_with_a_word_and_a_status(body: bytes, told: str, tmp_path: Path):
    with started(tmp_path) as worker:
        worker.tell(UnloadModels())
        worker.stdin.write(FRAME_HEADER.pack(len(body)) + body)
        worker.stdin.flush()
        status, said = worker.end()
    assert status == UNREADABLE_EXIT
    assert told in said
