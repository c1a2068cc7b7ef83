"""What a person at a shell is told, in their language, and with our commands and flags where agents are told of tools.

Knows nothing about jobs.
"""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..config import shell_language
from ..contract.errors import ErrorInfo, Fix
from ..contract.notices import shown_in
from ..contract.texts import Text, say

COMMAND = "ad-agent-mcp"
FLAGS: dict[str, tuple[str, Text | None, dict[str, Any]]] = {
    "--text": ("text_content", say("help.text"), {}),
    "--scene": ("bg_prompt", say("help.scene"), {}),
    "--letters": ("text_model_prompt", say("help.letters"), {}),
    "--font": ("font_name", say("help.font"), {}),
    "--position": ("text_position", None, {"choices": ("top", "center", "bottom", "auto")}),
    "--mode": ("composition_mode", None, {"choices": ("overlay", "blend", "behind")}),
    "--seed": ("seed", None, {"type": int}),
    "--resume": ("resume_job_id", say("help.resume"), {"metavar": "JOB"}),
    "--start-step": ("start_step", None, {"type": int, "choices": (1, 2, 3)}),
}
"""The flags of `generate`, each with the field that it sets, what help says of it, and how `argparse` reads it."""
_FLAG_OF = {field: flag for flag, (field, _, _) in FLAGS.items()}
_RESUME = r"(?i:(?:call )?generate(?:\(| with )resume_job_id ?= ?['\"]?([\w-]+)['\"]?\)?)"
_PHRASES = (
    (_RESUME, rf"`{COMMAND} generate --resume \1`"),
    (r"(?i:\bcall generate\b)", f"run `{COMMAND} generate`"),
    (r"\bgenerate(?=를 실행)", f"`{COMMAND} generate`"),
    (r"\bcall again\b", "run the command again"),
    (r"\bCall again\b", "Run the command again"),
    (r"\blist_jobs\b", f"`{COMMAND} jobs list`"),
    ("`fonts`", f"`{COMMAND} fonts`"),
    (r"\bproduct_image\b", "photo"),
    *((rf"\b{field}\b", flag) for field, flag in _FLAG_OF.items() if field != flag.removeprefix("--")),
)


def in_commands(message: str) -> str:
    """A message for agents with our commands and flags in place of tools and their fields."""
    for phrase, words in _PHRASES:
        message = re.sub(phrase, words, message, flags=re.ASCII)  # a Korean particle does not go on with a word
    return message


def shown(text: Text) -> str:
    """A text in the shell's language."""
    return text.in_(shell_language())


def told(error: ErrorInfo) -> str:
    """What happened and the command that goes on, if there is one."""
    message = in_commands(shown_in(shell_language(), error).message)
    command = command_for(error.fix) if error.fix is not None else None
    return shown(say("commands.next", told=message, command=command)) if command else message


def command_for(fix: Fix) -> str | None:
    """The command that does what the tool call `fix` does, or None where there is none."""
    match fix.tool:
        case "generate":
            return shlex.join([COMMAND, "generate", *_as_flags(fix.arguments)])
        case "list_jobs":
            return f"{COMMAND} jobs list"
        case "status" if "job_id" in fix.arguments:
            return shlex.join([COMMAND, "jobs", "show", str(fix.arguments["job_id"])])
        case "fonts" | "health":
            return f"{COMMAND} {'fonts' if fix.tool == 'fonts' else 'doctor'}"
        case _:
            return None


def _as_flags(arguments: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for field, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if field == "product_image":
            words.insert(0, text)
        elif field in _FLAG_OF:
            words.append(f"{_FLAG_OF[field]}={text}" if text.startswith("-") else _FLAG_OF[field])
            words += [] if text.startswith("-") else [text]
        elif field != "wait_seconds":
            words += ["--set", f"{field}={text}"]
    return words
