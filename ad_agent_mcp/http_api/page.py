"""The dashboard of development mode: one page, the state it polls, small pictures, and what its buttons do.

The page itself holds no data, so it is served without a token; everything that it fetches needs one.
"""

import base64
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..contract.arguments import invalid_arguments
from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.schemas import LAYER_NAMES
from ..contract.texts import Language, say
from ..hardware import SystemMetrics
from ..jobs.job import Job
from ..mcp_api.server import App
from ..mcp_api.tool_arguments import ApproveArguments, StopArguments
from ..mcp_api.views import dump, job_status
from ..media.preview import encode_fitting
from .request_body import read_body

PAGE_PATH = "/dashboard"
SAMPLE_EVERY_S = 2.0
HISTORY_S = 300
MAX_PICTURE_BYTES = 400_000
MAX_ARGUMENTS_BYTES = 100_000
_M = TypeVar("_M", bound=BaseModel)


class _StateQuery(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 24
    since: float = 0.0
    known: str = ""


class _PictureQuery(BaseModel):
    max_side: Annotated[int, Field(ge=16, le=1024)] = 320


class Dashboard:
    """The routes of the page; owns the machine's last minutes."""

    def __init__(self, app: App) -> None:
        self._context = app.context
        self._over: dict[Language, dict[str, dict[str, Any]]] = {}
        """Jobs that are over, as they are shown: they do not change, and the page asks every second."""
        self._history: deque[tuple[float, SystemMetrics]] = deque(maxlen=int(HISTORY_S / SAMPLE_EVERY_S))

    @asynccontextmanager
    async def recording(self) -> AsyncGenerator[None]:
        """Samples the machine while the block lasts."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._record)
            yield
            tasks.cancel_scope.cancel()

    async def _record(self) -> None:
        while True:
            self._history.append((time.monotonic(), await anyio.to_thread.run_sync(self._context.monitor.sample)))
            await anyio.sleep(SAMPLE_EVERY_S)

    def routes(self) -> list[Route]:
        html = (Path(__file__).parent / "page.html").read_text("utf-8")
        html = html.replace("{language}", self._context.service.settings.lang or "", 1)
        policy = (
            f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
            "img-src 'self' blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
        )
        headers = {"content-security-policy": policy, "cache-control": "no-cache"}

        async def page(request: Request) -> Response:
            return Response(html, media_type="text/html", headers=headers)

        return [
            Route(PAGE_PATH, page, methods=["GET"]),
            Route(f"{PAGE_PATH}/state", self.state, methods=["GET"]),
            Route(f"{PAGE_PATH}/jobs/{{job_id}}/stop", self.stop, methods=["POST"]),
            Route(f"{PAGE_PATH}/jobs/{{job_id}}/approve", self.approve, methods=["POST"]),
            Route(f"{PAGE_PATH}/pictures/{{job_id}}/{{name}}.webp", self.picture, methods=["GET"]),
        ]

    async def state(self, request: Request) -> Response:
        """Server, machine, jobs. Samples and finished jobs that the page has already are left out."""
        query = _checked(_StateQuery, dict(request.query_params))
        language: Language = request.scope["language"]
        await self._context.service.adopt_ghosts()
        active, over, total = await anyio.to_thread.run_sync(self._jobs, query.limit, language)
        version = hashlib.sha256(JSONResponse(over).body).hexdigest()[:16]
        return JSONResponse(
            {
                "server": (await self._context.health(language)).model_dump(mode="json"),
                "samples": [{"at": at, **sample.model_dump()} for at, sample in self._history if at > query.since],
                "active": active,
                "over": over if version != query.known else None,
                "version": version,
                "total": total,
            }
        )

    async def stop(self, request: Request) -> Response:
        """What the tool `stop` does."""
        given = _checked(StopArguments, await _body(request))
        job = await self._context.service.stop(request.path_params["job_id"], force=given.force)
        return await self._answer(job, request)

    async def approve(self, request: Request) -> Response:
        """What the tool `approve_step` does, decided by a person."""
        given = _checked(ApproveArguments, await _body(request))
        action = given.action or "approve"
        job = await self._context.service.approve(
            request.path_params["job_id"], action=action, changes=given.changes, by="person"
        )
        return await self._answer(job, request)

    async def picture(self, request: Request) -> Response:
        """One layer as a small WebP with alpha; the photo as it was given while there is no product layer."""
        max_side = _checked(_PictureQuery, dict(request.query_params)).max_side
        path = await anyio.to_thread.run_sync(lambda: self._context.store.picture(**request.path_params))
        version = await anyio.to_thread.run_sync(_version, path) if path is not None else None
        if path is None or version is None:
            raise AdAgentError(ErrorCode.NOT_FOUND, say("http.no_picture"))
        headers = {"cache-control": "private, no-cache", "etag": f'"{version}-{max_side}"'}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        data = await anyio.to_thread.run_sync(
            lambda: encode_fitting(path, max_side=max_side, picture_format="webp", max_bytes=MAX_PICTURE_BYTES)
        )
        return Response(data, media_type="image/webp", headers=headers)

    def _jobs(self, limit: int, language: Language) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
        """All jobs that are not over and the newest that are, newest first; and how many there are."""
        ids = self._context.store.job_ids()
        wanted = sorted({*ids[:limit], *self._context.store.active_jobs()}, reverse=True)
        known = self._over.get(language, {})
        found = list(self._context.service.find_all(job_id for job_id in wanted if job_id not in known))
        known = known | {job.id: self._shown(job, language) for job in found if job.status.is_terminal}
        self._over[language] = over = {job_id: known[job_id] for job_id in wanted if job_id in known}
        active = [self._shown(job, language) for job in found if not job.status.is_terminal]
        return active, list(over.values()), len(ids)

    def _shown(self, job: Job, language: Language) -> dict[str, Any]:
        store = self._context.store
        status = job_status(job, store=store, locate=_located, metrics=None, language=language)
        layers = {name: path for name in LAYER_NAMES if (path := store.picture(job.id, name)) is not None}
        versions = {name: version for name, path in layers.items() if (version := _version(path)) is not None}
        return {**dump(status), "steps": job.steps, "layers": versions}

    async def _answer(self, job: Job, request: Request) -> Response:
        return JSONResponse(await anyio.to_thread.run_sync(self._shown, job, request.scope["language"]))


def _located(job_id: str, name: str) -> str:
    return f"/files/{job_id}/{name}.png"


def _hash(html: str, tag: str) -> str:
    """The CSP source of the page's one `tag`."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


async def _body(request: Request) -> dict[str, Any]:
    """The arguments of a button. A form of another page cannot send this content type."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise invalid(say("http.not_json"))
    content = await read_body(request, max_bytes=MAX_ARGUMENTS_BYTES)
    try:
        return {**json.loads(content), "job_id": request.path_params["job_id"]}
    except (ValueError, TypeError, RecursionError) as error:
        raise invalid(say("http.no_object")) from error


def _checked(model: type[_M], given: dict[str, Any]) -> _M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid_arguments(error) from error


def _version(path: Path) -> str | None:
    """What changes with the file; None when it is removed this very moment."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
