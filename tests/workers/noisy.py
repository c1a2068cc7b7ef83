"""The real worker, with libraries that print whenever a stage begins."""

import os

from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.base import StageReport
from ad_agent_mcp.worker import __main__ as worker
from ad_agent_mcp.worker.context import JobContext


class NoisyContext(JobContext):
    def open_stage(self, stage: Stage) -> StageReport:
        print("loading pipeline components...", flush=True)
        os.write(1, b"100%|##########| 7/7")
        return super().open_stage(stage)


worker.JobContext = NoisyContext
worker.main()
