"""Prompts a person can start from, and completions for what has names: fonts, jobs, layers."""

from collections.abc import Collection
from typing import Any

import anyio.to_thread
from mcp import MCPError
from mcp.server import MCPServer
from mcp.types import (
    INVALID_PARAMS,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from ..contract.schemas import LAYER_NAMES
from .context import AppContext

MAX_COMPLETIONS = 100


def checked_prompt(name: str, known: Collection[str]) -> None:
    """Refuse a prompt that does not exist.

    Raises:
        MCPError: `name` is none of the `known`.
    """
    if name not in known:
        raise MCPError(INVALID_PARAMS, f"There is no prompt {name[:80]!r}. Prompts: {', '.join(known)}.")


def add_prompts(server: MCPServer[Any], app: AppContext) -> None:
    """Register the prompts and completions of one server."""

    @server.prompt(title="Make an ad")
    async def ad_brief(  # pyright: ignore[reportUnusedFunction]
        product_image: str, words: str = "", scene: str = "", font_name: str = ""
    ) -> str:
        """From a product photo and a few words to a finished ad."""
        asked = [f"the product photo {product_image}"]
        asked += [f"the words {words!r}, exactly as they stand" if words else "words that you propose to me first"]
        asked += [
            f"this scene: {scene}" if scene else "a scene that suits the product and that you propose to me first"
        ]
        asked += [f"the font {font_name}"] if font_name else []
        return (
            f"Make me an advertising image with {'; '.join(asked)}. Write bg_prompt and text_model_prompt in English; "
            "never translate or respell text_content. Call generate with pause_after_step 1, follow it with status, "
            "show me the scene, and go on with approve_step when I agree. At the end show me the ad, tell me where "
            "the file is, and which checks failed, if any, with what you suggest."
        )

    @server.prompt(title="Change an ad")
    async def revise_ad(job_id: str, change: str) -> str:  # pyright: ignore[reportUnusedFunction]
        """Change one thing about a finished ad and keep the rest."""
        return (
            f"Change the ad of job {job_id}: {change}. First call status for its parameters. Then call generate with "
            f"resume_job_id {job_id} and only the fields that have to change (words: text_content; look of the "
            "letters: text_model_prompt; place: text_position, composition_mode; scene: bg_prompt). Follow it with "
            "status and show me the result beside what changed."
        )

    @server.completion()
    async def complete(  # pyright: ignore[reportUnusedFunction]
        reference: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        if isinstance(reference, PromptReference):
            checked_prompt(reference.name, [prompt.name for prompt in await server.list_prompts()])
        match argument.name:
            case "font_name":
                known = [font.name for font in await anyio.to_thread.run_sync(app.fonts.fonts)]
            case "job_id":
                known = await anyio.to_thread.run_sync(app.store.job_ids)
            case "name":
                known = list(LAYER_NAMES)
            case _:
                return None
        typed = argument.value.lower()
        fitting = [name for name in known if typed in name.lower()]
        return Completion(values=fitting[:MAX_COMPLETIONS], total=len(fitting), has_more=len(fitting) > MAX_COMPLETIONS)
