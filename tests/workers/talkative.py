"""The real worker, with libraries that write 200 KB to stderr whenever a stage begins."""

import sys

from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.engines.base import StageReport
from ad_agent_mcp.worker import __main__ as worker
from ad_agent_mcp.worker.context import JobContext


class TalkativeContext(JobContext):
    def open_stage(self, stage: Stage) -> StageReport:
        for number in range(2000):
            sys.stderr.write(f"{number} {'.' * 95}\n")
        return super().open_stage(stage)


worker.JobContext = TalkativeContext
worker.main()
