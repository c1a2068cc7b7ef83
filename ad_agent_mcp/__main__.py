"""`python -m ad_agent_mcp` and the command `ad-agent-mcp`."""

import gc
import sys


def main() -> int:
    """Run the command line; the result is the exit code."""
    # Importing builds many thousand long-lived objects: collecting among them is wasted start-up time.
    gc.disable()
    from .cli import run

    gc.enable()
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
