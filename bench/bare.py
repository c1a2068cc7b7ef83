"""What start-up and calls are compared with: an MCP server with one trivial tool. Knows nothing about the product.

Serves over stdio, or over HTTP on the port that the last argument names.
"""

import sys

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[-1]))
    else:
        server.run("stdio")
