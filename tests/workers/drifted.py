"""Speaks another version of the protocol."""

import os
import time

from ad_agent_mcp.contract.messages import Ready
from ad_agent_mcp.contract.stages import EngineName

from . import wire

wire.send(Ready(protocol=999, pid=os.getpid(), engine=EngineName.DRAFT, device="cpu", presets=()))
time.sleep(60)
