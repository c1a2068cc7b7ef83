"""`python -m ad_agent_mcp` and the command `ad-agent-mcp`."""

import sys


def main() -> int:
    """Run the command line; the result is the exit code."""
    try:
        from .commands.cli import run  # takes long enough for a Ctrl-C

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
