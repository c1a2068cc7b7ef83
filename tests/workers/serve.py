"""A stdio server whose worker is the command on the command line."""

import sys

import anyio

from ad_agent_mcp.config import Settings
from ad_agent_mcp.mcp_api.stdio import serve_stdio

command = sys.argv[1:]


async def main() -> None:
    await serve_stdio(Settings(), command=command)


anyio.run(main)
