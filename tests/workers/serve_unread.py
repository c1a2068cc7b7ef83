"""The stdio server as the command line runs it, whose worker says far more than a pipe holds on its stderr."""

import sys
from functools import partial

import anyio

from ad_agent_mcp.config import Settings
from ad_agent_mcp.logs import configure_logging, unblocked_stderr
from ad_agent_mcp.mcp_api.stdio import serve_stdio

configure_logging("INFO", "text", process="server")
with unblocked_stderr():
    anyio.run(partial(serve_stdio, Settings(), command=(sys.executable, "-m", "tests.workers.talkative")))
