"""The real worker, which takes its time to get ready."""

import time

from ad_agent_mcp.worker.__main__ import main

time.sleep(0.7)
main()
