"""Started as a user without a home, or with a data folder of somebody else's."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HOMELESS = """
import os, pwd, sys
def nobody(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
"""
STRANGER = """
import os, sys
import anyio._backends._asyncio
import ad_agent_mcp.mcp_api.stdio, ad_agent_mcp.jobs.retention
if os.getuid() == 0:
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
"""
MAIN = """
from ad_agent_mcp.commands.cli import run
sys.exit(run(sys.argv[1:]))
"""
NOTHING_OF_A_HOME = {"HOME", "PWD", "USER", "LOGNAME"}


def run(program: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AD_AGENT_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", program + MAIN, *arguments],
        env={**{name: value for name, value in kept.items() if name not in NOTHING_OF_A_HOME}, **settings},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "relative"}], ids=["unset", "empty", "relative"])
@pytest.mark.parametrize("command", [("serve",), ("doctor",), ("jobs", "list"), ("fonts",)], ids=lambda words: words[0])
def test_without_a_home_the_data_folder_is_enough(command: tuple[str, ...], home: dict[str, str], tmp_path: Path):
    done = run(HOMELESS, *command, AD_AGENT_DATA_DIR=str(tmp_path / "data"), **home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_home_an_ad_is_made(tmp_path: Path, pictures: Path):
    words = ("generate", str(pictures / "bottle.png"), "--size", "320x300", "--out", str(tmp_path / "out"))
    done = run(HOMELESS, *words, AD_AGENT_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "final.png").is_file()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "AD_AGENT_DATA_DIR"),
        ({"AD_AGENT_DATA_DIR": "/nowhere", "AD_AGENT_OUTPUT_DIR": "~/ads"}, "AD_AGENT_OUTPUT_DIR"),
    ],
)
def test_without_a_home_the_setting_to_make_is_named(settings: dict[str, str], named: str, tmp_path: Path):
    refused = run(HOMELESS, "jobs", "list", **settings)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(Path.cwd().glob("~*"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user reaches, which those under pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("command", [("serve",), ("jobs", "gc")], ids=lambda words: words[0])
@pytest.mark.parametrize("closed", [".", "locks", "jobs"])
def test_a_data_folder_of_somebody_else_is_told_with_the_remedy(
    command: tuple[str, ...], closed: str, open_folder: Path
):
    data = open_folder / "data"
    for name in (".", "jobs", "active", "steps", "assets", "locks", "inbox"):
        (data / name).mkdir(exist_ok=True)
        (data / name).chmod(0o777)
    (data / closed).chmod(0o555)
    refused = run(STRANGER, *command, AD_AGENT_DATA_DIR=str(data), HOME=str(open_folder))
    assert refused.returncode == 2, refused.stderr
    user = 12345 if os.getuid() == 0 else os.getuid()
    for words in (str(data / closed), f"chown -R {user}", "AD_AGENT_DATA_DIR", f"id {user}"):
        assert words in refused.stderr
    assert "Traceback" not in refused.stderr
