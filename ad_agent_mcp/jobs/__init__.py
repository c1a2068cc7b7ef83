"""Jobs: from arguments to a request that can run, their states, the disk, other servers on the same folder.

Knows nothing of MCP or HTTP, and no worker but through `supervisor`. Called by `mcp_api`.
"""
