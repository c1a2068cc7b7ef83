"""The real worker, of a version that had no such thing as `start_job`."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from ad_agent_mcp.contract.messages import CancelJob, Shutdown
from ad_agent_mcp.worker import __main__ as worker
from ad_agent_mcp.worker import inbox

inbox.COMMAND = TypeAdapter(Annotated[CancelJob | Shutdown, Field(discriminator="type")])
worker.main()
