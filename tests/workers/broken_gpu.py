"""The real worker, whose engine breaks its GPU context once: a file in the folder on the command line remembers it."""

import sys
from pathlib import Path
from typing import Any

from ad_agent_mcp.engines.draft.engine import DraftEngine
from ad_agent_mcp.worker import __main__ as worker

MARK = Path(sys.argv[1]) / "broken"


class BreakingEngine(DraftEngine):
    is_broken = False

    def cut_out(self, *arguments: Any, **named: Any) -> Any:
        if not MARK.exists():
            MARK.touch()
            self.is_broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA.")
        return super().cut_out(*arguments, **named)

    def is_usable(self) -> bool:
        return not self.is_broken


worker.create_engine = lambda name, settings: BreakingEngine()
worker.main()
