"""Says of itself what its argument says, as JSON, and completes every job with models that then stay on the device.

`bg_prompt` names how many bytes they take there. With AD_AGENT_PRELOAD=1 they come before the first job. With a second
argument, a FIFO, it is ready when that was written to.
"""

import json
import sys
from pathlib import Path

from ad_agent_mcp.config import Settings
from ad_agent_mcp.contract.messages import EVERY_MODEL, ModelMoved, StartJob, UnloadModels

from . import wire


def load(size_bytes: int) -> None:
    wire.send(ModelMoved(model="flux", state="loading"))
    wire.send(ModelMoved(model="flux", state="loaded", bytes=size_bytes))


if len(sys.argv) > 2:
    Path(sys.argv[2]).read_bytes()
wire.ready(**json.loads(sys.argv[1]))
if Settings().preload:
    load(7)
while True:
    match wire.receive():
        case StartJob() as job:
            wire.open_first_stage(job)
            load(int(job.request.bg_prompt or 7))
            wire.complete(job)
        case UnloadModels():
            wire.send(ModelMoved(model=EVERY_MODEL, state="unloaded"))
        case _:
            pass
