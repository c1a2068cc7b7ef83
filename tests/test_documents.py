"""What README and mcp.json say is what the product does."""

import ast
import json
import re
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any

import anyio
import pytest

from ad_agent_mcp.config import ENV_PREFIX, Settings
from ad_agent_mcp.contract.schemas import LAYER_NAMES, GenerateRequest
from ad_agent_mcp.server.app import open_app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
NO_EFFECT = "†"
DATA_FOLDER = "the user's data folder; on Linux `~/.local/share/ad-agent-mcp`"


def shown_default(name: str) -> str:
    """A setting's default as README has to show it."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return DATA_FOLDER
    match field.default:
        case None | ():
            return "unset"
        case bool() as switch:
            return f"`{int(switch)}`"
        case Enum() as choice:
            return f"`{choice.value}`"
        case value:
            return f"`{value}`"


def settings_rows() -> dict[str, tuple[str, str]]:
    """Default and description of every setting in README's table, by the variable's name."""
    rows = re.findall(rf"^\| `({ENV_PREFIX}\w+)`[^|]*\| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    return {name: (default, description) for name, default, description in rows}


def json_blocks() -> list[Any]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)]


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_readme_lists_every_setting_and_no_other() -> None:
    assert list(settings_rows()) == [f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_readme_shows_the_default_of(name: str) -> None:
    assert settings_rows()[f"{ENV_PREFIX}{name.upper()}"][0] == shown_default(name)


def test_readme_marks_exactly_the_settings_that_nothing_reads() -> None:
    package = ROOT / "ad_agent_mcp"
    code = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py") if path.name != "config.py")
    through_property = {"token", "token_file"} if "settings.bearer_token" in code else set()
    unread = {name for name in Settings.model_fields if not re.search(rf"settings\.{name}\b", code)}
    marked = {name.removeprefix(ENV_PREFIX).lower() for name, (_, text) in settings_rows().items() if NO_EFFECT in text}
    assert marked == unread - through_property


def test_every_variable_that_readme_names_exists() -> None:
    named = {name.removeprefix(ENV_PREFIX).lower() for name in re.findall(rf"{ENV_PREFIX}[A-Z_]+", README)}
    assert named <= set(Settings.model_fields)


async def _surface(settings: Settings) -> tuple[set[str], set[str]]:
    async with open_app(settings) as app:
        with anyio.fail_after(30):
            while (await app.desk.health()).worker != "ready":
                await anyio.sleep(0.02)
        tools = {tool.name for tool in await app.server.list_tools()}
        templates = {template.uri_template for template in await app.server.list_resource_templates()}
        return tools, templates | {str(resource.uri) for resource in await app.server.list_resources()}


def test_readme_lists_every_tool_and_resource_and_no_other(settings: Settings) -> None:
    tools, resources = anyio.run(_surface, settings)
    rows = re.findall(r"^\| (`.*?) \|", section("Tools and resources"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    assert named == tools | resources
    assert f"`{' '.join(LAYER_NAMES)}`" in section("Tools and resources")


def test_the_arguments_in_readme_are_accepted() -> None:
    requests = [block for block in json_blocks() if not {"mcpServers", "servers"} & set(block)]
    assert len(requests) >= 2
    for arguments in requests:
        GenerateRequest.model_validate(arguments)
    named = re.findall(r"`(\w+)(?:: [^`]*)?`", section("Make an ad").split("| Arguments of")[1].split("\n\n")[0])
    assert set(named) - {"generate", "1", "2"} <= set(GenerateRequest.model_fields)


def test_client_configurations_name_the_installed_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    shipped = json.loads((ROOT / "mcp.json").read_text("utf-8"))
    blocks = [shipped, *(block for block in json_blocks() if {"mcpServers", "servers"} & set(block))]
    servers = [block.get("mcpServers", block.get("servers"))["ad-agent"] for block in blocks]
    commands = [server["command"] for server in servers if "command" in server]
    assert len(commands) >= 3
    assert set(commands) <= set(scripts)
    assert {server["url"].rpartition("/")[2] for server in servers if "url" in server} == {"mcp", "sse"}


def test_relative_links_in_the_documents_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            if not re.match(r"[a-z]+:|#", target):
                assert (document.parent / target.partition("#")[0]).exists(), f"{document.name}: {target}"


def test_the_example_picture_is_small() -> None:
    assert (ROOT / "docs" / "example.jpg").stat().st_size <= 400 * 1024


def test_every_threat_names_a_test_that_exists() -> None:
    threats = (ROOT / "docs" / "security.md").read_text("utf-8").split("\n## Threats\n")[1].split("\n## ")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for path, test in named:
            module = ast.parse((ROOT / path).read_text("utf-8"))
            functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert test in functions, f"{path}::{test}"
