"""What server start-up is compared with: an MCP server with one trivial tool. Knows nothing about the product."""

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


if __name__ == "__main__":
    server.run("stdio")
