"""The real worker, which says a path and dies when there is a file in the folder on the command line, else fails."""

import os
import sys
from pathlib import Path

from ad_agent_mcp.worker import __main__ as worker

SECRET = "/opt/secret/place"


def fail(*arguments: object, **named: object) -> None:
    if any(Path(sys.argv[1]).iterdir()):
        sys.stderr.write(f"FATAL: no such file: {SECRET}/model.bin\n")
        sys.stderr.flush()
        os._exit(3)
    raise FileNotFoundError(2, "No such file or directory", f"{SECRET}/model.bin")


worker.run_job = fail
worker.main()
