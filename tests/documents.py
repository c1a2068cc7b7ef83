"""The tables of README.md and docs/reference.md, made of the settings and of what clients read of the server.

`python -m tests.documents` (or `make docs`) writes them anew, each between its two comments.
"""

import json
import re
from collections.abc import Iterable
from enum import Enum, EnumType
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ad_agent_mcp.config import ENV_PREFIX, Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.notices import NOTICES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "reference.md")
SURFACE = ROOT / "tests" / "e2e" / "surface.json"
NO_EFFECT = "†"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(document: str) -> str:
    """`document` with every table as it should be now."""
    surface = json.loads(SURFACE.read_text("utf-8"))
    tables = {
        "tools": _tools(surface["tools"]),
        "fields": _fields(surface["tools"]),
        "prompts": _prompts(surface["prompts"]),
        "resources": _resources([*surface["resources"], *surface["resource_templates"]]),
        "settings": _settings(),
        "notices": _table(("Code", "When"), ((f"`{code}`", when) for code, when in NOTICES.items())),
    }
    return TABLE.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", document)


def unread_settings() -> set[str]:
    """Settings that no code of the package asks for."""
    package = ROOT / "ad_agent_mcp"
    code = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py") if path.name != "config.py")
    read = set(re.findall(r"settings\.(\w+)", code))
    return set(Settings.model_fields) - read - ({"token", "token_file"} if "bearer_token" in read else set())


def _tools(tools: list[dict[str, Any]]) -> str:
    names = {tool["name"]: ", ".join(f"`{name}`" for name in tool["inputSchema"]["properties"]) for tool in tools}
    names["generate"] = "below"
    return _table(
        ("Tool", "Arguments", "What it does"),
        ((f"`{tool['name']}`", names[tool["name"]], _first_sentence(tool["description"])) for tool in tools),
    )


def _fields(tools: list[dict[str, Any]]) -> str:
    properties = next(tool for tool in tools if tool["name"] == "generate")["inputSchema"]["properties"]
    rows = (
        (f"`{name}`", _values(field), _default(field), field.get("description", ""))
        for name, field in ((name, properties[name]) for name in GenerateRequest.model_fields)
    )
    return _table(("Field", "Values", "Default", "Meaning"), rows)


def _prompts(prompts: list[dict[str, Any]]) -> str:
    return _table(
        ("Prompt", "Arguments", "What it is for"),
        (
            (f"`{prompt['name']}`", ", ".join(f"`{one['name']}`" for one in prompt["arguments"]), prompt["description"])
            for prompt in prompts
        ),
    )


def _resources(resources: list[dict[str, Any]]) -> str:
    rows = ((f"`{one.get('uri') or one['uriTemplate']}`", one["description"]) for one in resources)
    return _table(("Resource", "What it is"), rows)


def _settings() -> str:
    unread = unread_settings()
    rows: list[tuple[str, str, str]] = []
    for name, field in Settings.model_fields.items():
        meaning = field.description or ""
        choices = _choices(field.annotation)
        if choices and "`" not in meaning:
            meaning = f"{meaning}: {', '.join(f'`{choice}`' for choice in choices)}"
        if field.default_factory is not None:
            default = "the user's data folder; on Linux `~/.local/share/ad-agent-mcp`"
        else:
            default = _shown(field.default)
        rows.append((f"`{ENV_PREFIX}{name.upper()}`", default, meaning + f" {NO_EFFECT}" * (name in unread)))
    return _table(("Variable", "Default", "Meaning"), rows)


def _choices(annotation: Any) -> tuple[str, ...]:
    if isinstance(annotation, EnumType):
        return tuple(str(choice.value) for choice in annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _shown(value: object) -> str:
    match value:
        case None | () | "":
            return "unset"
        case bool():
            return f"`{int(value)}`"
        case Enum():
            return f"`{value.value}`"
        case _:
            return f"`{value}`"


def _values(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"] if value is not None)
    if "minimum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    kind = field["type"] if isinstance(field["type"], str) else field["type"][0]
    return {"array": "4 whole numbers", "boolean": "`true`, `false`", "string": "text"}[kind]


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, "") else f"`{json.dumps(default).strip(chr(34))}`"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(with_tables(document.read_text("utf-8")), "utf-8")
