"""The real worker, which kills itself, its server or both at one boundary, once, and logs what it runs.

    python -m tests.workers.killer TARGET BOUNDARY FOLDER

TARGET is worker, server or both; BOUNDARY a stage as it opens (`cut_out`) or a step as its result was told
(`step1`); FOLDER takes the log and the mark that it has happened.
"""

import os
import signal
import sys
import time
from pathlib import Path

from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.base import StageReport
from ad_agent_mcp.worker import __main__ as worker
from ad_agent_mcp.worker.context import JobContext

TARGET, BOUNDARY, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])


def reached(boundary: str) -> None:
    with (FOLDER / "log").open("a") as log:
        log.write(f"{boundary}\n")
    if boundary != BOUNDARY or (FOLDER / "done").exists():
        return
    (FOLDER / "done").touch()
    if TARGET in ("server", "both"):
        os.kill(os.getppid(), signal.SIGKILL)
    if TARGET in ("worker", "both"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class KillingContext(JobContext):
    def open_stage(self, stage: Stage) -> StageReport:
        report = super().open_stage(stage)
        reached(stage)
        return report

    def step_finished(self, step: int, files: dict[str, str], size: tuple[int, int]) -> None:
        super().step_finished(step, files, size)
        reached(f"step{step}")


worker.JobContext = KillingContext
worker.main()
