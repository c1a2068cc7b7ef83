"""`python -m ad_agent_mcp` and the command `ad-agent-mcp`."""

import sys

from .cli import run


def main() -> int:
    """Run the command line; the result is the exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
