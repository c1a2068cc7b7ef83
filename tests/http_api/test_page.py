"""What the page says is said in both its languages."""

from pathlib import Path

import numpy as np

import ad_agent_mcp.http_api
from ad_agent_mcp.pipeline.checks import wordless_checks


def test_every_check_has_its_name_in_both_languages():
    page = (Path(ad_agent_mcp.http_api.__file__).parent / "page.html").read_text("utf-8")
    names = [check.name for check in wordless_checks(np.zeros((16, 16, 3), np.uint8), None, None)]
    assert len(names) == 6
    assert {name: page.count(f" {name}: ") for name in names} == dict.fromkeys(names, 2)
