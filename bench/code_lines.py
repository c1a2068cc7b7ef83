"""How much code there is: lines of the package that are neither blank nor comment nor docstring.

`python -m bench.code_lines [FOLDER]` prints them room by room, and what is longer than it should be.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

from rich.console import Console

MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(source: str) -> int:
    """Lines of `source` with code on them."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def long_functions(source: str) -> list[tuple[str, int]]:
    """Names and lengths of functions that are longer than `MAX_FUNCTION_LINES`, their docstring left out."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append((node.name, length))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("ad_agent_mcp"))
    folder = parser.parse_args().folder
    console = Console()
    rooms: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text("utf-8")
        rooms[path.relative_to(folder).parts[0]] += code_lines(source)
        if (lines := source.count("\n")) > MAX_FILE_LINES:
            console.print(f"{path}: {lines} lines")
        for name, length in long_functions(source):
            console.print(f"{path}: {name} has {length} lines")
    for room, count in rooms.most_common():
        console.print(f"{count:6} {room}")
    console.print(f"{rooms.total():6} together")


if __name__ == "__main__":
    main()
