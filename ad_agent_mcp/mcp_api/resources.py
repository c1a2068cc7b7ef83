"""The `ad://` resources: pictures in ranges, jobs, fonts, the machine."""

import json
import re
from pathlib import Path
from typing import Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError

from .context import AppContext
from .views import dump

RANGE_BYTES = 600_000
"""Default and largest range of a picture in one message; base64 makes it a third larger."""

_WHOLE_NUMBER = re.compile("[0-9]{1,15}")


def add_resources(server: MCPServer[Any], app: AppContext) -> None:
    """Register the resources of one server, which tells an `AdAgentError` of theirs as what is not there."""

    @server.resource("ad://fonts", mime_type="application/json")
    async def fonts() -> str:  # pyright: ignore[reportUnusedFunction]
        """Fonts that font_name may name."""
        listed = await anyio.to_thread.run_sync(app.fonts.fonts)
        return json.dumps([font.model_dump() for font in listed], ensure_ascii=False)

    @server.resource("ad://fonts/{+name}/sample.png", mime_type="image/png")
    async def font_sample(name: str) -> bytes:  # pyright: ignore[reportUnusedFunction]
        """A few words set in a font."""
        return await anyio.to_thread.run_sync(app.fonts.sample, name)

    @server.resource("ad://system", mime_type="application/json")
    async def system() -> str:  # pyright: ignore[reportUnusedFunction]
        """CPU, RAM and GPU use of the machine now."""
        metrics = await anyio.to_thread.run_sync(app.monitor.sample)
        return metrics.model_dump_json()

    @server.resource("ad://jobs/{job_id}", mime_type="application/json")
    async def job(job_id: str, ctx: Context) -> str:  # pyright: ignore[reportUnusedFunction]
        """A job's status."""
        found = await app.service.find_fresh(job_id)
        return json.dumps(dump(await app.status_of(found, ctx)), ensure_ascii=False)

    @server.resource("ad://jobs/{job_id}/layout.json", mime_type="application/json")
    async def layout(job_id: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """What a job's layers show and where."""
        found = await anyio.to_thread.run_sync(app.store.document, job_id)
        if found is None:
            raise ResourceNotFoundError(f"Job {job_id} has no layout yet: its first step is not finished.")
        return found.model_dump_json()

    @server.resource("ad://jobs/{job_id}/{name}.png{?offset,length}", mime_type="image/png")
    async def layer(  # pyright: ignore[reportUnusedFunction]
        job_id: str, name: str, offset: str = "0", length: str = str(RANGE_BYTES)
    ) -> bytes:
        """A picture of a job as PNG, up to 600000 bytes from offset; read on until a range comes back shorter."""
        path = await anyio.to_thread.run_sync(app.store.layer, job_id, name)
        if path is None:
            raise ResourceNotFoundError(f"There is no picture ad://jobs/{job_id}/{name}.png.")
        return await anyio.to_thread.run_sync(_read_range, path, offset, length)

    @server.resource("ad://assets/{asset_id}{?offset,length}", mime_type="application/octet-stream")
    async def asset(  # pyright: ignore[reportUnusedFunction]
        asset_id: str, offset: str = "0", length: str = str(RANGE_BYTES)
    ) -> bytes:
        """An uploaded picture, up to 600000 bytes from offset."""
        path = await anyio.to_thread.run_sync(app.store.asset, asset_id)
        return await anyio.to_thread.run_sync(_read_range, path, offset, length)


def _read_range(path: Path, offset: str, length: str) -> bytes:
    if not _WHOLE_NUMBER.fullmatch(offset) or not _WHOLE_NUMBER.fullmatch(length) or int(length) < 1:
        raise ResourceNotFoundError("offset has to be a whole number, 0 or more, and length one of 1 or more.")
    with path.open("rb") as file:
        file.seek(int(offset))
        return file.read(min(int(length), RANGE_BYTES))
