"""The list of codes is all that is told, and nothing else is."""

import ast
from pathlib import Path

import ad_agent_mcp
from ad_agent_mcp.contract.notices import NOTICES


def codes_told() -> set[str]:
    """Every code that the package gives a notice by name."""
    found: set[str] = set()
    for path in Path(ad_agent_mcp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            named = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = node.args[:1] if named == "notice" else []
            given += [word.value for word in node.keywords if named == "Notice" and word.arg == "code"]
            found |= {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return found


def test_every_code_that_is_told_stands_in_the_list_and_every_code_there_is_told():
    spoken_of_words = {"text_mended", "text_suspicious"}  # told in pairs with their sentences
    assert codes_told() | spoken_of_words == NOTICES.keys()
