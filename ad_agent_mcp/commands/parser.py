"""The flags of every command, and what help says of them in the shell's language."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..config import ENV_PREFIX, shell_language
from ..contract.texts import catalogue, say
from .shell import FLAGS, shown


def _size(text: str) -> tuple[int, int]:
    width, times, height = text.lower().partition("x")
    if not times:
        raise argparse.ArgumentTypeError(shown(say("commands.size_form")))
    return int(width), int(height)


COMMANDS = ("serve", "demo", "generate", "doctor", "fonts", "models", "jobs", "verify")


class _Parser(argparse.ArgumentParser):
    """Says what `argparse` has to say in the shell's language."""

    def format_usage(self) -> str:
        return _spoken(super().format_usage())

    def format_help(self) -> str:
        return _spoken(super().format_help())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and _spoken(message))


def _spoken(message: str) -> str:
    """What `argparse` says, in the shell's language."""
    for key, words in catalogue().items() if shell_language() != "en" else ():
        if key.startswith("argparse."):
            reworded = partial(_reworded, key.removeprefix("argparse."))
            message = re.sub(_as_pattern(words["en"]), reworded, message)
    return message


def _as_pattern(words: str) -> str:
    """A regular expression for a text of the catalogue, with a group for each placeholder."""
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(words))


def _reworded(name: str, found: re.Match[str]) -> str:
    return shown(say(f"argparse.{name}", **found.groupdict()))


def parser() -> argparse.ArgumentParser:
    """What reads the command line."""
    made = _Parser(
        prog="ad-agent-mcp",
        description=shown(say("help.what")),
        epilog=shown(say("help.settings", prefix=ENV_PREFIX)),
    )
    made.add_argument("--version", action="version", version=__version__)
    rows = made.add_subparsers(dest="command", metavar="COMMAND")
    added = {name: rows.add_parser(name, help=shown(say(f"help.command_{name}"))) for name in COMMANDS}
    flag = added["serve"].add_argument
    flag("--transport", choices=("stdio", "http"), default="stdio", help=shown(say("help.transport")))
    flag("--host", default="127.0.0.1", help=shown(say("help.host")))
    flag("--port", type=int, default=8000)
    added["demo"].add_argument("--out", type=Path, default=Path("out/demo"), help=shown(say("help.demo_out")))
    _add_flags_of_generate(added["generate"])
    _add_models(added["models"])
    jobs = added["jobs"].add_subparsers(dest="action", metavar="ACTION")
    jobs.add_parser("list", help=shown(say("help.jobs_list")))
    jobs.add_parser("gc", help=shown(say("help.jobs_gc")))
    for action, text in (("show", say("help.jobs_show")), ("rm", say("help.jobs_rm"))):
        jobs.add_parser(action, help=shown(text)).add_argument("job")
    added["verify"].add_argument("job", help=shown(say("help.verify_job")))
    return made


def _add_flags_of_generate(generate: argparse.ArgumentParser) -> None:
    flag = generate.add_argument
    flag("photo", type=Path, nargs="?", help=shown(say("help.photo")))
    for name, (_, text, options) in FLAGS.items():
        flag(name, help=text and shown(text), **options)
    flag("--size", type=_size, metavar="WxH", help=shown(say("help.size")))
    flag("--request", type=Path, metavar="FILE", help=shown(say("help.request")))
    flag("--set", action="append", default=[], metavar="FIELD=VALUE", help=shown(say("help.set")))
    flag("--out", type=Path, default=Path("out"), help=shown(say("help.out")))


def _add_models(models: argparse.ArgumentParser) -> None:
    actions = models.add_subparsers(dest="action", metavar="ACTION", required=True)
    preset = argparse.ArgumentParser(add_help=False)
    preset.add_argument("--preset", help=shown(say("help.preset")))
    actions.add_parser("list", parents=[preset], help=shown(say("help.models_list")))
    about = shown(say("help.models_fetch"))
    fetch = actions.add_parser("fetch", parents=[preset], help=about, epilog=shown(say("help.gated")))
    fetch.add_argument("--source", action="append", help=shown(say("help.source")))
    prepare = actions.add_parser("prepare", parents=[preset], help=shown(say("help.models_prepare")))
    prepare.add_argument("component", nargs="*", help=shown(say("help.components")))
