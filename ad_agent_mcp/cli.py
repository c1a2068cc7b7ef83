"""The command line: flags over settings, exit codes. Without a command it serves over stdio."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from . import __version__
from .config import ENV_PREFIX, Settings, misspelt_variables
from .contract.errors import AdAgentError
from .logs import configure_logging

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        0 when it worked, 1 when it did not, 2 when the flags or settings are wrong.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = Settings()
        configure_logging(settings.log_level, process="server")
        for name in misspelt_variables(os.environ):
            logger.warning("%s is no setting of ad-agent-mcp and has no effect; README lists them", name)
        if options.command == "demo":
            from .demo import run_demo

            return run_demo(options.out)
        if options.command == "verify":
            return _verify(settings, options.job)
        return _serve(settings, options)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = f"{ENV_PREFIX}{detail['loc'][0]}".upper() if detail["loc"] else "settings"
            print(f"{name}: {detail['msg'].removeprefix('Value error, ')}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    except (AdAgentError, OSError, ValueError) as error:
        print(f"ad-agent-mcp: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_FAILED


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    import anyio

    if options.command == "serve" and options.transport == "http":
        from functools import partial

        from .server.http import serve_http

        anyio.run(partial(serve_http, settings, host=options.host, port=options.port))
    else:
        from .server.stdio import serve_stdio

        anyio.run(serve_stdio, settings)
    return 0


def _verify(settings: Settings, name: str) -> int:
    from rich.console import Console
    from rich.table import Table

    from .imaging.fonts import FontCatalog
    from .pipeline.verify import job_folder, verify_job

    folder = job_folder(name, settings.data_dir)
    results = verify_job(folder, FontCatalog.with_user_folders(settings.font_dirs))
    table = Table("check", "result", "value", "limit", "fix", title=str(folder))
    words = {True: "pass", False: "FAIL", None: "not applicable"}
    for check in results:
        fix = "" if check.fix is None else f"{check.fix.tool} {check.fix.arguments}"
        value, limit = ("" if number is None else f"{number:g}" for number in (check.value, check.limit))
        table.add_row(check.name, words[check.passed], value, limit, fix)
    Console().print(table)
    return EXIT_FAILED if any(check.passed is False for check in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ad-agent-mcp",
        description="Advertising images over MCP. Without a command: serve over stdio.",
        epilog=f"Settings are environment variables ({ENV_PREFIX}...); README lists them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the MCP server")
    serve.add_argument("--transport", choices=("stdio", "http"), default="stdio", help="http serves /mcp and /sse")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; beyond loopback a token is needed")
    serve.add_argument("--port", type=int, default=8000)
    demo = commands.add_parser("demo", help="make an ad from the example photo through the real server")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the three pictures")
    verify = commands.add_parser("verify", help="check a finished ad again, from its files as they are")
    verify.add_argument("job", help="a job's folder, a file in it, or a job's id")
    return parser
