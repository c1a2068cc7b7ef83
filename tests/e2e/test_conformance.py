"""The protocol's own conformance suites against our HTTP server, in both eras."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import MODULES, Place, http_server, needs_node, run_node

HERE = Path(__file__).parent
SERVER_WITH_FIXTURES = [sys.executable, "-P", str(HERE / "conformance_server.py")]

pytestmark = needs_node


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Place:
    return Place(tmp_path_factory.mktemp("conformance") / "data", pictures)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    with http_server(place, command=SERVER_WITH_FIXTURES) as url:
        yield f"{url}/mcp"


@pytest.mark.parametrize(
    ("suite", "choice", "checks"),
    [
        ("conformance", ("--suite", "all"), 40),
        ("conformance-next", ("--requirements", "2025-11-25"), 75),
        ("conformance-next", ("--requirements", "2026-07-28"), 150),
    ],
)
def test_the_suite_finds_only_what_we_left_out_on_purpose(
    suite: str, choice: tuple[str, str], checks: int, place: Place, url: str, tmp_path: Path
):
    """It ends with an error both for a new failure and for an expected one that is none any more."""
    program = str(MODULES / suite / "dist" / "index.js")
    expected = ("--expected-failures", str(HERE / "conformance_expected.yaml"))
    printed = run_node(place, program, "server", "--url", url, *choice, *expected, "-o", str(tmp_path))
    passed = re.search(r"Total: (\d+) passed", printed)
    assert passed is not None, printed[-3000:]
    assert int(passed[1]) >= checks, printed[-3000:]
