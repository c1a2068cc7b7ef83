"""Advertising images over MCP: a light server process around one long-lived worker process."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ad-agent-mcp")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
