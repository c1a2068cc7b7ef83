"""What a person at a shell is told where an agent is told of tools: commands and flags of ours, ready to type.

Knows nothing about jobs.
"""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..contract.errors import ErrorInfo, Fix

COMMAND = "ad-agent-mcp"
FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "--text": ("text_content", {"help": r"the ad's words; \n begins a new line"}),
    "--scene": ("bg_prompt", {"help": "the scene, in English (bg_prompt)"}),
    "--letters": ("text_model_prompt", {"help": "the look of the letters, in English (text_model_prompt)"}),
    "--font": ("font_name", {"help": "a font's name or its beginning; the command fonts lists them"}),
    "--position": ("text_position", {"choices": ("top", "center", "bottom", "auto")}),
    "--mode": ("composition_mode", {"choices": ("overlay", "blend", "behind")}),
    "--seed": ("seed", {"type": int}),
    "--resume": ("resume_job_id", {"metavar": "JOB", "help": "take results and settings from this job"}),
    "--start-step": ("start_step", {"type": int, "choices": (1, 2, 3)}),
}
"""The flags of `generate`, each with the field that it sets and how `argparse` reads it."""
_FLAG_OF = {field: flag for flag, (field, _) in FLAGS.items()}
_RESUME = r"(?:call )?generate(?:\(| with )resume_job_id ?= ?['\"]?([\w-]+)['\"]?\)?"
_PHRASES = (
    (re.compile(_RESUME, re.IGNORECASE), rf"`{COMMAND} generate --resume \1`"),
    (re.compile(r"\bcall generate\b", re.IGNORECASE), f"run `{COMMAND} generate`"),
    (re.compile(r"\bcall again\b"), "run the command again"),
    (re.compile(r"\bCall again\b"), "Run the command again"),
    (re.compile(r"\blist_jobs\b"), f"`{COMMAND} jobs list`"),
    (re.compile("`fonts`"), f"`{COMMAND} fonts`"),
    (re.compile(r"\bproduct_image\b"), "photo"),
    *((re.compile(rf"\b{field}\b"), flag) for field, flag in _FLAG_OF.items() if field != flag.removeprefix("--")),
)


def in_commands(message: str) -> str:
    """A message for agents with our commands and flags in place of tools and their fields."""
    for phrase, words in _PHRASES:
        message = phrase.sub(words, message)
    return message


def told(error: ErrorInfo) -> str:
    """What happened and the command that goes on, if there is one."""
    command = command_for(error.fix) if error.fix is not None else None
    return in_commands(error.message) + (f"\nNext: {command}" if command else "")


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
