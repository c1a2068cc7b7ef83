"""Puts one server together: settings, store, service and MCP surface."""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from mcp import MCPError
from mcp.server import CacheHint, MCPServer, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError, ToolError, UnexpectedResourceError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult
from pydantic import AnyUrl

from .. import __version__
from ..config import Settings
from ..contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ..contract.texts import Language, say
from ..hardware import SystemMonitor
from ..jobs.admission import Admission
from ..jobs.errors import out_of_files
from ..jobs.image_refs import ReferenceReader, image_roots
from ..jobs.retention import sweep
from ..jobs.service import JobService, open_service
from ..jobs.store import JobStore
from ..media.fonts import FontCatalog
from ..supervisor.process import WORKER_COMMAND
from .context import AppContext
from .prompts import add_prompts, checked_prompt
from .resources import add_resources
from .responses import error_result, within_budget
from .subscriptions import Subscriptions
from .tools import TOOLS

logger = logging.getLogger(__name__)

IDLE_UNLOAD_S = 600.0
"""On stdio, where several hosts may each start a server for one GPU."""
INSTRUCTIONS = """\
Makes advertising images from a product photo. Flow: call generate with product_image (a file path, or an ad:// URI \
after an upload), bg_prompt (the scene, in English), text_content (the ad's words exactly as they shall read) and \
text_model_prompt (the look of the letters, in English). It answers at once; follow with status(wait_seconds=45) until \
completed, then show the preview and tell the person where the file is. To change something, call generate with \
resume_job_id and only the changed fields. pause_after_step lets the person approve a step first (approve_step). \
The product's pixels and the words are never altered. Errors say what to do next; `fix` is a ready call."""

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
"""What stays the same, and is the same for everyone, as long as a server runs."""
LISTS_FRESH_MS = 5 * 60_000


class AdServer(MCPServer[AppContext]):
    """`MCPServer` whose failures carry our error codes, and whose messages stay within the budget."""

    language: Language = "en"
    """Of what tools tell."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[AppContext, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            result = await super().call_tool(name, arguments, context)
        except ToolError as failure:
            result = error_result(self._explain(name, failure), self.language)
        return within_budget(result, self.language) if isinstance(result, CallToolResult) else result

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[AppContext, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        try:
            return await super().read_resource(uri, context)
        except UnexpectedResourceError as failure:
            if isinstance(cause := failure.__cause__, AdAgentError):
                raise ResourceNotFoundError(cause.info.message) from failure
            if (lack := out_of_files(failure)) is not None:
                raise MCPError(INTERNAL_ERROR, lack.message) from failure
            raise

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[AppContext, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        prompts = {prompt.name: prompt for prompt in await self.list_prompts()}
        checked_prompt(name, prompts)
        known = {argument.name: argument.required for argument in prompts[name].arguments or ()}
        needed = {argument for argument, is_required in known.items() if is_required}
        if not needed <= (arguments or {}).keys() <= known.keys():
            wanted = ", ".join(argument if argument in needed else f"{argument} (optional)" for argument in known)
            raise MCPError(INVALID_PARAMS, f"The arguments of {name} are: {wanted or 'none'}.")
        return await super().get_prompt(name, arguments, context)

    def _explain(self, name: str, failure: ToolError) -> ErrorInfo:
        cause = failure.__cause__
        if (lack := out_of_files(failure)) is not None:
            logger.warning("%s refused: no file descriptor left", name)
            return lack
        if isinstance(cause, AdAgentError):
            logger.info("%s refused: %s", name, cause.info.code)
            return cause.info
        if cause is None:  # the SDK's own word for a tool that does not exist
            names = [tool.name for tool in self._tool_manager.list_tools()]
            return AdAgentError(ErrorCode.NOT_FOUND, say("answers.no_tool", name=repr(name[:80]), tools=names)).info
        logger.error("%s failed", name, exc_info=cause)
        return AdAgentError(
            ErrorCode.ENGINE_FAILED, say("answers.tool_failed", name=name, reason=type(cause).__name__)
        ).info


@dataclass(frozen=True)
class App:
    """One running server."""

    server: AdServer
    context: AppContext

    @property
    def service(self) -> JobService:
        return self.context.service


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    is_remote: bool = False,
    command: Sequence[str] = WORKER_COMMAND,
) -> AsyncGenerator[App]:
    """A server with its worker, for the length of the block.

    Args:
        settings: all of them.
        is_remote: whether clients come over HTTP.
        command: how to start a worker.

    Raises:
        AdAgentError: the data folder cannot be written.
    """
    if not is_remote and settings.idle_unload_s is None:
        settings = settings.model_copy(update={"idle_unload_s": IDLE_UNLOAD_S})
    store = JobStore(settings.data_dir)
    await anyio.to_thread.run_sync(sweep, store)
    if (exposure := store.exposure()) is not None:
        logger.warning("%s", exposure.in_(settings.lang or "en"))
    fonts = FontCatalog(settings.font_dirs)
    reader = ReferenceReader(settings, store, image_roots(settings, store, remote=is_remote))
    admission = Admission(settings, store, reader, fonts)
    async with open_service(settings, store, admission, command) as service:
        subscriptions = Subscriptions()
        context = AppContext(service, store, fonts, SystemMonitor())
        server = AdServer(
            "ad-agent",
            title="Ad Agent",
            version=__version__,
            instructions=INSTRUCTIONS,
            tools=[row.made() for row in TOOLS],
            lifespan=lambda _: nullcontext(context),
            log_level="WARNING",
            subscriptions=subscriptions.bus,
            cache_hints={method: CacheHint(LISTS_FRESH_MS, "public") for method in LISTS},
            middleware=[_refuse_cursor],
        )
        server.language = context.language
        add_resources(server, context)
        add_prompts(server, context)
        subscriptions.attach(server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscriptions.follow, service)
            yield App(server, context)
            tasks.cancel_scope.cancel()


async def _refuse_cursor(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    if ctx.method in LISTS and (ctx.params or {}).get("cursor") is not None:
        raise MCPError(INVALID_PARAMS, "This list comes in one piece; ask without a cursor.")
    return await call_next(ctx)
