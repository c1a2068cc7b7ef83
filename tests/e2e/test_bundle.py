"""The bundle for desktop hosts, and the registry entry: what they say is what the server is, and the bundle serves."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from ad_agent_mcp.config import ENV_PREFIX, Settings

from .support import MODULES, SMALL, Place, call, connected, finish, needs_node, run_node

ROOT = Path(__file__).parent.parent.parent
PACKAGING = ROOT / "packaging"
MANIFEST = json.loads((PACKAGING / "mcpb" / "manifest.json").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MCPB = MODULES / "@anthropic-ai" / "mcpb" / "dist"


@needs_node
def test_the_bundle_tool_finds_the_manifest_valid(place: Place):
    assert "validation passes" in run_node(place, str(MCPB / "cli" / "cli.js"), "validate", str(PACKAGING / "mcpb"))


@pytest.mark.anyio
async def test_the_manifest_lists_the_tools_and_prompts_that_the_server_has(place: Place):
    async with connected("stdio", place) as client:
        tools = {tool.name: tool.description or "" for tool in (await client.list_tools()).tools}
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert [tool["name"] for tool in MANIFEST["tools"]] == list(tools)
        assert all(tools[tool["name"]].startswith(tool["description"]) for tool in MANIFEST["tools"])
        assert [prompt["name"] for prompt in MANIFEST["prompts"]] == list(prompts)
        for listed in MANIFEST["prompts"]:
            arguments = [argument.name for argument in prompts[listed["name"]].arguments or ()]
            assert listed["arguments"] == arguments
            filled = await client.get_prompt(listed["name"], {name: f"${{arguments.{name}}}" for name in arguments})
            assert listed["text"] == getattr(filled.messages[0].content, "text", None)


def test_what_a_person_sets_in_the_host_reaches_a_setting():
    environment = MANIFEST["server"]["mcp_config"]["env"]
    assert {name.removeprefix(ENV_PREFIX).lower() for name in environment} <= set(Settings.model_fields)
    used = re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(environment))
    assert sorted(used) == sorted(MANIFEST["user_config"])
    # Hosts put a list of folders only into arguments, never into a variable, and leave what has no default unfilled.
    assert not any(option.get("multiple") for option in MANIFEST["user_config"].values())
    assert all("default" in option for option in MANIFEST["user_config"].values())


def test_all_that_names_the_product_agrees():
    entry = json.loads((PACKAGING / "server.json").read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert entry["$schema"].endswith("/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[A-Za-z0-9.-]+/[A-Za-z0-9._-]+", entry["name"])
    assert entry["name"].partition("/")[2] == MANIFEST["name"] == PROJECT["name"]
    assert f"<!-- mcp-name: {entry['name']} -->" in readme
    assert 1 <= len(entry["description"]) <= 100
    assert entry["title"] == MANIFEST["display_name"]
    offered = [package["version"] for package in entry.get("packages", ())]
    assert {entry["version"], MANIFEST["version"], *offered} == {PROJECT["version"]}
    assert MANIFEST["license"] == PROJECT["license"]
    assert MANIFEST["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]


def hosts_command(place: Place, folder: Path) -> dict[str, Any]:
    """How a host starts the bundle in `folder` when nobody has set anything, by the bundle tool's own reckoning."""
    script = (
        f"import {{ getMcpConfigForManifest as reckon }} from {json.dumps((MCPB / 'node.js').as_uri())};"
        f"const manifest = {json.dumps(MANIFEST)};"
        f"const config = await reckon({{ manifest, extensionPath: {json.dumps(str(folder))}, systemDirs: {{}},"
        " userConfig: {}, pathSeparator: '/' });"
        "console.log(JSON.stringify(config));"
    )
    return json.loads(run_node(place, "--input-type=module", "-e", script))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundle as a host unpacks it."""
    subprocess.run(["make", "bundle", f"DIST={tmp_path}"], cwd=ROOT, check=True, capture_output=True, timeout=100)
    with zipfile.ZipFile(tmp_path / "ad-agent-mcp.mcpb") as bundle:
        assert not any("__pycache__" in name for name in bundle.namelist())
        bundle.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


@needs_node
@pytest.mark.anyio
async def test_the_packed_bundle_makes_an_ad_as_a_host_starts_it(place: Place, folder: Path):
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dependencies"] == PROJECT["dependencies"]
    assert "optional-dependencies" not in project["project"]
    assert "dependency-groups" not in project
    assert len(project["tool"]["uv"]["constraint-dependencies"]) > len(PROJECT["dependencies"])

    config = hosts_command(place, folder)
    assert config["command"] == "uv"
    assert config["args"] == ["run", "--directory", str(folder), MANIFEST["server"]["entry_point"]]
    assert "${" not in json.dumps(config)
    # What uv run does once it has installed the bundle: its Python, in its folder.
    own = {**place.environment(), **{name: value for name, value in config["env"].items() if value}}
    server = StdioServerParameters(
        command=sys.executable, args=config["args"][3:], cwd=folder, env={**own, "PYTHONPATH": str(folder)}
    )
    async with Client(server) as client:
        job = await call(client, "generate", product_image=place.photo, text_content="봄", **SMALL)
        assert (await finish(client, job["job_id"]))["status"] == "completed"
