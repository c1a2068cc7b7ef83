"""The command line: flags over settings, exit codes. Without a command it serves over stdio."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from ..config import ENV_PREFIX, Settings, misspelt_variables, shell_language
from ..contract.arguments import Fault, problem
from ..contract.errors import AdAgentError, ErrorCode, invalid
from ..contract.notices import shown_in
from ..contract.texts import TextError, say
from ..files import fill_standard_streams, raise_file_limit
from ..logs import configure_logging, unblocked_stderr
from .parser import parser
from .shell import FLAGS, in_commands, shown, told

if TYPE_CHECKING:
    from ..jobs.store import JobStore

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
LONGEST_PATH = 4096
_NOT_USAGE = (ErrorCode.MODEL_UNAVAILABLE, ErrorCode.STORAGE_FULL)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        0 when it worked, 1 when it did not, 2 when the flags or settings are wrong, 130 after Ctrl-C, 141 when nobody
        reads the output any more.
    """
    try:
        options = _parsed(arguments)
        settings = Settings()
        configure_logging(settings.log_level, settings.log_format, process="server")
        for name in misspelt_variables(os.environ):
            logger.warning("%s is no setting of ad-agent-mcp and has no effect; README lists them", name)
        code = _COMMANDS[options.command or "serve"](settings, options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has enough, as `head` does
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return EXIT_BROKEN_PIPE
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = f"{ENV_PREFIX}{detail['loc'][0]}".upper() if detail["loc"] else "settings"
            print(f"{name}: {_fault(detail)}", file=sys.stderr)
        return EXIT_USAGE
    except AdAgentError as error:
        print(f"ad-agent-mcp: {told(error.info)}", file=sys.stderr)
        return EXIT_FAILED if error.info.code in _NOT_USAGE else EXIT_USAGE
    except PermissionError as error:
        known = {"path": error.filename, "reason": error.strerror}
        if sys.platform == "win32":
            lack = say("commands.no_permission", **known)
        else:
            lack = say("commands.no_permission_chown", **known, user=os.getuid())
        print(f"ad-agent-mcp: {shown(lack)}", file=sys.stderr)
        return EXIT_USAGE
    except (OSError, ValueError) as error:
        print(f"ad-agent-mcp: {shown(say('doctor.plain', told=error))}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _fault(detail: Fault) -> str:
    """What is wrong with a setting; pydantic's own words are English."""
    said = detail.get("ctx", {}).get("error")
    if isinstance(said, TextError):
        return shown(said.text)
    return detail["msg"].removeprefix("Value error, ") if shell_language() == "en" else shown(problem(detail))


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; what help and version print is flushed here, where it is known what a broken pipe means."""
    try:
        return parser().parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()
        raise


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    import anyio

    if settings.require_gpu:
        from .doctor import require_gpu

        require_gpu(settings)
    fill_standard_streams()
    raise_file_limit()
    with unblocked_stderr():
        if options.command == "serve" and options.transport == "http":
            from functools import partial

            from ..http_api.server import serve_http

            anyio.run(partial(serve_http, settings, host=options.host, port=options.port))
        else:
            from ..mcp_api.stdio import serve_stdio

            anyio.run(serve_stdio, settings)
    return 0


def _demo(settings: Settings, options: argparse.Namespace) -> int:
    from .generate import run_demo

    return run_demo(options.out)


def _generate(settings: Settings, options: argparse.Namespace) -> int:
    from ..jobs.store import JobStore
    from .generate import make_ad

    request: Any = json.loads(options.request.read_text("utf-8")) if options.request else {}
    if not isinstance(request, dict):
        raise invalid(say("commands.request_no_object", path=options.request))
    request = cast(dict[str, Any], request)
    roots = _picture_roots(request, options.request.absolute().parent) if options.request else list[Path]()
    given = {flag: getattr(options, flag.removeprefix("--").replace("-", "_")) for flag in FLAGS}
    typed = {FLAGS[flag][0]: value for flag, value in given.items() if value is not None}
    if options.size is not None:
        typed["width"], typed["height"] = options.size
    for assignment in options.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise invalid(say("commands.set_without_value", given=assignment))
        typed[name] = value
        with suppress(ValueError):  # JSON where it is some, else text
            typed[name] = json.loads(value)
    if options.photo is not None:
        typed["product_image"] = str(options.photo)
    roots += _picture_roots(typed, Path.cwd())
    JobStore(settings.data_dir)  # refuses before a server is started
    allowed = os.pathsep.join(dict.fromkeys(map(str, (*settings.image_roots, *roots))))
    return make_ad({**request, **typed}, options.out, settings={f"{ENV_PREFIX}IMAGE_ROOTS": allowed})


def _picture_roots(request: dict[str, Any], base: Path) -> list[Path]:
    """The folders of the pictures that `request` names, for who types a path may read it.

    Args:
        request: paths in it become absolute, where there is such a file.
        base: what they are relative to.
    """
    from ..contract.fields import GENERATE
    from ..jobs.near_files import spellings

    roots: list[Path] = []
    for name in (name for name, row in GENERATE.items() if row.is_picture):
        reference = request.get(name)
        if not isinstance(reference, str) or len(reference) > LONGEST_PATH or re.match("ad:|data:|https?:", reference):
            continue
        roots.append((base / reference).parent)  # where the server looks for names that are nearly right
        for text in spellings(reference):
            with suppress(OSError, ValueError, RuntimeError):
                if (path := (base / Path(text).expanduser()).resolve()).is_file():
                    request[name], roots[-1] = str(path), path.parent
                    break
    return roots


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from .doctor import run_doctor

    return run_doctor(settings)


def _models(settings: Settings, options: argparse.Namespace) -> int:
    from . import models

    match options.action:
        case "fetch":
            return models.fetch_models(settings, options.preset, options.source or ())
        case "prepare":
            return models.prepare_models(settings, options.preset, options.component)
        case _:
            return models.list_models(settings, options.preset)


def _fonts(settings: Settings, options: argparse.Namespace) -> int:
    from ..media.fonts import FontCatalog

    fonts = FontCatalog(settings.font_dirs).fonts()
    width = max((len(font.name) for font in fonts), default=0)
    for font in fonts:
        about = f"{font.family} {font.style}"
        about = shown(say("commands.font_with_hangul", font=about)) if font.hangul else about
        print(f"{font.name:<{width}}  {about}")
    return 0


def _jobs(settings: Settings, options: argparse.Namespace) -> int:
    from ..jobs.retention import prune
    from ..jobs.store import JobStore

    store = JobStore(settings.data_dir)
    match options.action:
        case "show":
            print(store.load(options.job).model_dump_json(indent=2, by_alias=True))
        case "rm":
            if store.shown(options.job).id in store.active_jobs():
                raise invalid(say("commands.job_not_over", job=options.job))
            store.remove(options.job)
        case "gc":
            print(shown(say("commands.jobs_removed", count=len(prune(store, settings)))))
        case _:
            _list_jobs(store)
    return 0


def _list_jobs(store: "JobStore") -> None:
    from rich.cells import set_cell_size

    from ..mcp_api.views import job_row

    for job_id in store.job_ids():
        try:
            row = job_row(store.load(job_id))
        except AdAgentError as error:
            print(f"{job_id}  {in_commands(shown_in(shell_language(), error.info).message)}")
            continue
        made = datetime.fromisoformat(row["created_at"]).astimezone()  # the clock on the person's wall
        words = (row["text_content"] or "").replace("\n", " ")
        state = set_cell_size(shown(say(f"jobs.state_{row['status']}")), 9)
        print(f"{job_id}  {made:%Y-%m-%d %H:%M}  {state}  {row['progress_percent']:>3} %  {words}")


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..media.fonts import FontCatalog
    from ..pipeline.verify import job_folder, rendering_trouble, verify_job

    folder = job_folder(options.job, settings.data_dir)
    results = verify_job(folder, FontCatalog(settings.font_dirs))
    heads = [shown(say(f"commands.head_{name}")) for name in ("check", "result", "value", "limit", "fix")]
    table = Table(*heads, title=escape(str(folder)))
    words = {True: say("commands.passed"), False: say("commands.failed"), None: say("commands.not_applicable")}
    for check in results:
        fix = "" if check.fix is None else f"{check.fix.tool} {check.fix.arguments}"
        value, limit = ("" if number is None else f"{number:g}" for number in (check.value, check.limit))
        table.add_row(check.name, shown(words[check.passed]), value, limit, escape(fix))
    Console().print(table)
    trouble = rendering_trouble(folder)
    if trouble is not None:
        Console().print(f"{shown(words[False])}: {shown(trouble)}", soft_wrap=True, markup=False)
    return EXIT_FAILED if trouble or any(check.passed is False for check in results) else 0


_COMMANDS = {
    "serve": _serve,
    "demo": _demo,
    "generate": _generate,
    "doctor": _doctor,
    "fonts": _fonts,
    "models": _models,
    "jobs": _jobs,
    "verify": _verify,
}
"""What runs each command."""
