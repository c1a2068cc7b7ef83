"""The tools: each a function of a few lines over `JobService`, and a row in `TOOLS`.

A function's docstring is what an agent reads, so it is short.
"""

import base64
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Annotated, Any, NamedTuple

import anyio
from anyio.to_thread import run_sync
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import (
    Elicit,
    ElicitationResult,
    Resolve,
    build_resolver_plans,
    find_resolved_parameters,
)
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import BaseModel

from ..contract.call import GenerateRequest
from ..contract.errors import AdAgentError, ErrorCode, Fix
from ..contract.schemas import JobState
from ..contract.texts import Text, say
from ..hardware import SystemMetrics
from ..jobs.job import Job
from ..jobs.lookup import ANY, FINISHED, UNFINISHED, WAITING, Latest, which_job
from ..jobs.service import JobService
from ..media.fonts import FontInfo
from ..media.preview import encode_fitting, encode_preview, size_of
from .context import AppContext, HealthReport
from .responses import ENVELOPE_BYTES, MAX_MESSAGE_BYTES, MAX_PICTURE_BYTES, data_result, picture, status_result
from .tool_arguments import (
    Answer,
    ApproveArguments,
    ImageArguments,
    IncludeImages,
    ListArguments,
    Nothing,
    StatusArguments,
    StopArguments,
)
from .tool_schema import ToolMetadata, input_schema, output_schema
from .views import RESULTS, JobStatus, dump, job_row, progress_text, row_text

AppCall = Context[AppContext, Any]
"""One call of a tool; its lifespan's context is the server's `AppContext`."""


class FontList(BaseModel):
    """The fonts."""

    fonts: list[FontInfo]


class JobList(BaseModel):
    """Stored jobs, newest first."""

    jobs: list[dict[str, Any]]
    total: int


class ImageReport(BaseModel):
    """What a picture is."""

    job_id: str
    name: str
    width: int
    height: int
    bytes: int
    uri: str
    file: str


async def generate(arguments: GenerateRequest, ctx: AppCall) -> CallToolResult:
    """Make an ad from a product photo: cut the product out, paint a scene, set the words, compose.
    Answers at once with a job_id; follow it with `status`. One job runs at a time.
    Write prompts in English (translate the user's words); text_content stays exactly as the user wants it read.
    To change a finished ad, pass resume_job_id with only the fields that change."""
    until = anyio.current_time() + arguments.wait_seconds
    service = _app(ctx).service
    job = await service.generate(arguments)
    if arguments.wait_seconds:
        rest_s = max(0.0, until - anyio.current_time())
        job = await service.wait(job.id, rest_s, on_change=_progress_of(ctx))
    return await _with_pictures(job, ctx, None)


async def status(arguments: StatusArguments, ctx: AppCall) -> CallToolResult:
    """Progress, result and checks of a job. With wait_seconds it waits for the job to finish."""
    service, job_id = _app(ctx).service, await _meant(arguments.job_id, ANY, ctx)
    if arguments.wait_seconds:
        job = await service.wait(job_id, arguments.wait_seconds, on_change=_progress_of(ctx))
    else:
        job = await service.find_fresh(job_id)
    return await _with_pictures(job, ctx, arguments.include_images)


async def stop(arguments: StopArguments, ctx: AppCall) -> CallToolResult:
    """Stop a job. Finished steps are kept and can be resumed; a finished job is left as it is."""
    app = _app(ctx)
    job = await app.service.stop(await _meant(arguments.job_id, UNFINISHED, ctx), force=arguments.force)
    return await _told(job, ctx)


async def ask_person(arguments: ApproveArguments, ctx: AppCall) -> Answer | Elicit[Answer]:
    """The decision, if the call brings it or nobody can be asked; else the question."""
    if arguments.action is not None:
        return Answer(action=arguments.action)
    if not _can_ask(ctx):
        return Answer(action="approve")
    job = await _app(ctx).service.find_fresh(await _meant(arguments.job_id, WAITING, ctx))
    if job.waiting_for is None:
        return Answer(action="approve")  # refused in the tool, in its own words
    question = say("answers.go_on", step=job.last_finished, job_id=job.id)
    return Elicit(question.in_(_app(ctx).language), Answer)


async def approve_step(
    arguments: ApproveArguments, ctx: AppCall, answer: Annotated[ElicitationResult[Answer], Resolve(ask_person)]
) -> CallToolResult:
    """Continue a job that pause_after_step holds: approve, redo the step with changes, or stop."""
    app, job_id = _app(ctx), await _meant(arguments.job_id, WAITING, ctx)
    if answer.action != "accept":
        job = await app.service.find_fresh(job_id)
        return await _told(job, ctx, say("answers.undecided"))
    job = await app.service.approve(
        job_id,
        action=answer.data.action,
        changes=arguments.changes,
        by="person" if arguments.action is None and _can_ask(ctx) else "client",
    )
    return await _told(job, ctx)


async def get_image(arguments: ImageArguments, ctx: AppCall) -> CallToolResult:
    """One picture of a job: product, cutout, background, shadow, step1, step2 (letters) or final."""
    app, name = _app(ctx), arguments.name
    job = await app.service.find_fresh(await _meant(arguments.job_id, FINISHED, ctx))
    path = await run_sync(app.store.layer, job.id, name)
    if path is None:
        raise AdAgentError(
            ErrorCode.NOT_FOUND,
            say(
                "answers.no_picture",
                job_id=job.id,
                name=repr(name),
                state=say(f"jobs.state_{job.status}"),
                percent=int(job.percent),
            ),
            job_id=job.id,
            field="name",
            fix=Fix(tool="status", arguments={"job_id": job.id}),
        )
    data = await run_sync(
        lambda: encode_fitting(
            path, max_side=arguments.max_side, picture_format=arguments.format, max_bytes=MAX_PICTURE_BYTES
        )
    )
    width, height = size_of(data)
    report = ImageReport(
        job_id=job.id,
        name=name,
        width=width,
        height=height,
        bytes=len(data),
        uri=f"ad://jobs/{job.id}/{name}.png",
        file=app.locator(ctx)(job.id, name),
    )
    told = say("answers.picture", name=name, job_id=job.id, width=width, height=height, file=report.file)
    result = data_result(report, told.in_(app.language))
    return result.model_copy(update={"content": [*result.content, picture(data, arguments.format)]})


async def list_jobs(arguments: ListArguments, ctx: AppCall) -> CallToolResult:
    """Stored jobs, newest first."""
    service, language = _app(ctx).service, _app(ctx).language
    await service.adopt_ghosts()
    jobs, total = await run_sync(_list, service, arguments.limit, arguments.status)
    rows = [job_row(job, language) for job in jobs]
    text = "\n".join(row_text(row, language) for row in rows) or say("answers.no_jobs").in_(language)
    return data_result(JobList(jobs=rows, total=total), text)


async def health(arguments: Nothing, ctx: AppCall) -> CallToolResult:
    """Whether the server can work: engine, GPU, worker, warnings."""
    language = _app(ctx).language
    report = await _app(ctx).health(language)
    engine = f"{report.engine}{f' ({report.preset})' if report.preset not in (None, report.engine) else ''}"
    state, worker = say(f"answers.health_{report.status}"), say(f"answers.worker_{report.worker}")
    text = say("answers.health", status=state, engine=engine, worker=worker).in_(language)
    return data_result(report, f"{text} {' '.join(report.warnings)}")


async def fonts(arguments: Nothing, ctx: AppCall) -> CallToolResult:
    """Fonts that font_name may name, and whether they have Hangul."""
    listed = await run_sync(_app(ctx).fonts.fonts)
    language = _app(ctx).language
    names = (say("answers.with_hangul", name=font.name).in_(language) if font.hangul else font.name for font in listed)
    return data_result(FontList(fonts=listed), "\n".join(names))


async def resources(arguments: Nothing, ctx: AppCall) -> CallToolResult:
    """CPU, RAM and GPU use of the machine now."""
    metrics = await run_sync(_app(ctx).monitor.sample)
    told = [
        say("answers.machine", cpu=metrics.cpu_percent, used=metrics.ram_used_gb, total=metrics.ram_total_gb),
        *(
            say("answers.gpu", name=gpu.name, used=gpu.vram_used_mb, total=gpu.vram_total_mb)
            for gpu in metrics.gpu_info
        ),
    ]
    return data_result(metrics, ", ".join(text.in_(_app(ctx).language) for text in told))


class ToolRow(NamedTuple):
    """One tool, named as its function.

    Attributes:
        function: gets `arguments` and the call.
        title: for people.
        arguments: the model of its arguments.
        result: the model of its structured result.
        annotations: what it does to the world.
        published: what the output schema names of the result; all where none are given.
    """

    function: Callable[..., Awaitable[CallToolResult]]
    title: str
    arguments: type[BaseModel]
    result: type[BaseModel]
    annotations: ToolAnnotations
    published: tuple[str, ...] = ()

    def made(self) -> Tool:
        """The tool as the SDK takes it."""
        function, name = self.function, self.function.__name__
        schema = output_schema(self.result, self.published)
        resolved = find_resolved_parameters(function)
        return Tool(
            fn=function,
            name=name,
            title=self.title,
            description=" ".join((function.__doc__ or "").split()),
            parameters=input_schema(self.arguments),
            fn_metadata=ToolMetadata(
                arg_model=ArgModelBase, output_schema=schema, tool_name=name, arguments=self.arguments
            ),
            is_async=True,
            context_kwarg="ctx",
            resolved_params=resolved,
            resolver_plans=build_resolver_plans(resolved, {"arguments"}),
            annotations=self.annotations,
        )


_MAKES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_OF_STATUS = ("job_id", "status", "final_result")
"""A model reads the rest in the result itself."""
TOOLS = (
    ToolRow(generate, "Make an ad", GenerateRequest, JobStatus, _MAKES, _OF_STATUS),
    ToolRow(status, "Job status", StatusArguments, JobStatus, _READS, _OF_STATUS),
    ToolRow(stop, "Stop a job", StopArguments, JobStatus, _STOPS, _OF_STATUS),
    ToolRow(approve_step, "Approve a step", ApproveArguments, JobStatus, _MAKES, _OF_STATUS),
    ToolRow(get_image, "Get a picture", ImageArguments, ImageReport, _READS),
    ToolRow(list_jobs, "List jobs", ListArguments, JobList, _READS),
    ToolRow(fonts, "List fonts", Nothing, FontList, _READS),
    ToolRow(resources, "System resources", Nothing, SystemMetrics, _READS),
    ToolRow(health, "Server health", Nothing, HealthReport, _READS),
)


def _app(ctx: AppCall) -> AppContext:
    return ctx.request_context.lifespan_context


async def _meant(job_id: str | None, latest: Latest, ctx: AppCall) -> str:
    app = _app(ctx)
    return await run_sync(which_job, job_id, app.store, latest, app.service.find_all)


def _can_ask(ctx: AppCall) -> bool:
    """Whether the client can put a question to its person."""
    capabilities = ctx.client_capabilities
    return capabilities is not None and capabilities.elicitation is not None


def _progress_of(ctx: AppCall) -> Callable[[Job], Awaitable[None]]:
    """Reports a job's progress to a waiting client; every report is a little more than the one before."""
    last = -1.0

    async def report(job: Job) -> None:
        nonlocal last
        last = max(last + 0.001, job.percent)
        await ctx.report_progress(min(last, 100.0), 100.0, progress_text(job, _app(ctx).language))

    return report


async def _told(job: Job, ctx: AppCall, note: Text | str = "") -> CallToolResult:
    return status_result(await _app(ctx).status_of(job, ctx), _app(ctx).language, note=note)


async def _with_pictures(job: Job, ctx: AppCall, include: IncludeImages | None) -> CallToolResult:
    app = _app(ctx)
    status = await app.status_of(job, ctx)
    names = [name for name in RESULTS.values() if status.files.get(name)]
    wanted = include or ("preview" if job.status is JobState.COMPLETED or job.waiting_for else "none")
    if wanted == "none" or not names:
        return status_result(status, app.language)
    shown = await run_sync(app.store.layer, job.id, names[-1])
    try:
        preview = await run_sync(encode_preview, shown) if shown else None
    except AdAgentError as error:  # what the job came to is told all the same
        return status_result(status, app.language, note=error.text or error.info.message)
    if wanted == "preview":
        told = say("answers.preview", name=names[-1])
        return status_result(status, app.language, preview=preview, note=told)
    images: dict[str, str | None] = dict.fromkeys(RESULTS.values())
    share = (MAX_MESSAGE_BYTES - ENVELOPE_BYTES - len(status.model_dump_json().encode())) * 3 // 4 // len(names)
    for name in names:
        path = await run_sync(app.store.layer, job.id, name)
        if path is not None:
            data = await run_sync(
                lambda path=path: encode_fitting(path, max_side=None, picture_format="jpeg", max_bytes=share)
            )
            images[name] = base64.b64encode(data).decode()
    full = status_result(status, app.language)
    return full.model_copy(update={"structured_content": {**dump(status), "images": images}})


def _list(service: JobService, limit: int, state: JobState | None) -> tuple[list[Job], int]:
    """The newest jobs, `limit` at most, those in `state` if one is named; and how many there are of all."""
    ids = service.store.job_ids()
    over = service.store.over
    among = ids if state is None or state.is_terminal else sorted(service.store.active_jobs(), reverse=True)
    found = service.find_all(job_id for job_id in among if state in (None, over.get(job_id, state)))
    return list(islice((job for job in found if state in (None, job.status)), limit)), len(ids)
