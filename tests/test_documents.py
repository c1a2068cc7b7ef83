"""What README, its Korean twin and mcp.json say is what the product does."""

import ast
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ad_agent_mcp.commands.parser import parser
from ad_agent_mcp.config import ENV_PREFIX, Settings
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.schemas import LAYER_NAMES
from ad_agent_mcp.media.fonts import FontCatalog

from .documents import DOCUMENTS, ROOT, with_tables

README = (ROOT / "README.md").read_text("utf-8")
KOREAN = (ROOT / "README.ko.md").read_text("utf-8")
LONGEST_README = 400
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
both = pytest.mark.parametrize("document", [README, KOREAN], ids=["english", "korean"])


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def json_blocks() -> list[Any]:
    return [json.loads(block) for block in blocks(README, "json")]


def is_configuration(block: dict[str, Any]) -> bool:
    return bool({"mcpServers", "servers"} & set(block))


def commands(document: str) -> list[list[str]]:
    """Every command line of the document, in blocks and in running text, as words; variables before it left out."""
    lines = [line for block in blocks(document, "sh") for line in block.replace("\\\n", "").splitlines()]
    lines += re.findall(r"`((?:ad-agent-mcp|make) [^`]+)`", document)
    parts = [part for line in lines for part in re.split(r"&&|\|", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    return [[word for word in line if not word.startswith(ENV_PREFIX)] for line in words if line]


def third_party_imports() -> set[str]:
    """Top-level names of what the package imports anywhere, of neither Python nor itself."""
    imported: set[str] = set()
    for path in (ROOT / "ad_agent_mcp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    return imported - sys.stdlib_module_names - {"ad_agent_mcp"}


def canonical(requirement: str) -> str:
    """The name of the distribution in a requirement, as indexes spell it."""
    return re.sub("[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_whatever_the_package_imports_is_declared_and_pinned() -> None:
    declared = {canonical(line) for line in PROJECT["dependencies"]}
    declared |= {canonical(line) for extra in PROJECT["optional-dependencies"].values() for line in extra}
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line}
    found = importlib.metadata.packages_distributions()
    undeclared = [name for name in third_party_imports() if not declared & {canonical(one) for one in found[name]}]
    assert not undeclared
    assert declared <= pinned


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_are_what_the_code_says(document: Path) -> None:
    text = document.read_text("utf-8")
    assert text == with_tables(text), "run: make docs"


@both
def test_what_a_gpu_needs_is_installed_in_the_versions_that_were_tested(document: str) -> None:
    (line,) = [words for words in commands(document) if any("[diffusion]" in word for word in words)]
    assert line[line.index("-c") + 1] == "constraints.txt"
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    for name in ("torch", "diffusers", "transformers", "huggingface_hub"):
        assert re.search(rf"^{name}==", pinned, re.MULTILINE)


def test_the_tables_are_there() -> None:
    for heading, name in (("Tools", "`approve_step`"), ("Settings", "`AD_AGENT_LOG_LEVEL`")):
        assert name in README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_readme_stays_a_length_that_somebody_reads() -> None:
    assert len(README.splitlines()) <= LONGEST_README


@both
def test_every_variable_that_a_readme_names_exists(document: str) -> None:
    named = {name.removeprefix(ENV_PREFIX).lower() for name in re.findall(rf"{ENV_PREFIX}[A-Z_]+[A-Z]", document)}
    assert named <= {*Settings.model_fields, "keep"}


@both
def test_every_command_in_a_readme_is_one_that_there_is(document: str) -> None:
    named = commands(document)
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    ours = [line[1:] for line in named if Path(line[0]).name in PROJECT["scripts"]]
    assert len(ours) >= 5
    for line in ours:
        parser().parse_args(line)  # exits where it knows a word or a flag not
    made = [line[1] for line in named if line[0] == "make"]
    assert made
    assert set(made) <= set(targets)


def test_layers_and_fonts_are_counted_right() -> None:
    fonts = FontCatalog().fonts()
    names = f"`{' '.join(LAYER_NAMES)}`"
    assert names in (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert (len(fonts), sum(font.hangul for font in fonts)) == (10, 9), "README says: ten fonts, nine with Korean"


def test_the_arguments_in_readme_are_accepted() -> None:
    requests = [block for block in json_blocks() if not is_configuration(block)]
    assert len(requests) >= 2
    for arguments in requests:
        GenerateRequest.model_validate(arguments)
    section = README.split("\n## Make an ad\n")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)(?:: [^`]*)?`", section.split("| Arguments of")[1].split("\n\n")[0])
    assert set(named) - {"generate", "1", "2"} <= set(GenerateRequest.model_fields)


def test_client_configurations_name_the_installed_command() -> None:
    shipped = json.loads((ROOT / "mcp.json").read_text("utf-8"))
    configurations = [shipped, *(block for block in json_blocks() if is_configuration(block))]
    servers = [block.get("mcpServers", block.get("servers"))["ad-agent"] for block in configurations]
    started = [server["command"] for server in servers if "command" in server]
    assert len(started) >= 3
    assert set(started) <= set(PROJECT["scripts"])
    assert {server["url"].rpartition("/")[2] for server in servers if "url" in server} == {"mcp", "sse"}


def test_the_agent_in_readme_makes_an_ad(tmp_path: Path, pictures: Path) -> None:
    (program,) = blocks(README, "python")
    with Image.open(pictures / "bottle.png") as photo:
        photo.convert("RGB").save(tmp_path / "serum.jpg")
    ended = subprocess.run(
        [sys.executable, "-c", program.replace("/home/you/photos", str(tmp_path))],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.splitlines()[-1]).is_relative_to(tmp_path)


def without_comments(block: str) -> str:
    return re.sub(r"[ \t]+#.*", "", block)


@pytest.mark.parametrize("language", ["sh", "json", "python"])
def test_what_one_copies_from_the_korean_readme_is_what_the_english_one_has(language: str) -> None:
    english = {without_comments(block) for block in blocks(README, language)}
    korean = {without_comments(block) for block in blocks(KOREAN, language)}
    assert korean <= english
    assert korean


def test_the_two_readmes_lead_to_each_other_at_the_top() -> None:
    assert "(README.ko.md)" in "".join(README.splitlines()[:4])
    assert "(README.md)" in "".join(KOREAN.splitlines()[:4])


def anchors(document: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packaging/*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{document.name}: {target}"


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


def test_architecture_names_every_room_and_every_module_of_the_column_that_talks() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    package = ROOT / "ad_agent_mcp"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    talking = ("commands", "http_api", "mcp_api", "jobs", "supervisor", "models")
    modules = {path.name for room in talking for path in (package / room).glob("[a-z]*.py")}
    assert {name for name in rooms | modules if f"`{name}`" not in document} == set()


def test_every_file_that_architecture_names_exists() -> None:
    named = re.findall(r"`([\w./]+\.py)`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))
    files = [
        f"/{path.relative_to(ROOT)}"
        for top in ("ad_agent_mcp", "tests", "bench")
        for path in (ROOT / top).rglob("*.py")
    ]
    assert len(named) > 30
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []
