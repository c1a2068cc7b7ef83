"""The command line speaks the language of its locale."""

import re
from pathlib import Path

import pytest
from PIL import Image

from ad_agent_mcp.commands.shell import in_commands
from ad_agent_mcp.contract.texts import catalogue, say

from .test_cli import run

HANGUL = re.compile("[가-힣]")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.effect_noise((300, 300), 80).convert("RGB").save(path)
    return path


def test_a_korean_locale_gets_korean_help(tmp_path: Path):
    told = run("generate", "--help", data=tmp_path, LANG="ko_KR.UTF-8", LC_ALL="").stdout
    assert told.startswith("사용법: ad-agent-mcp generate")
    assert all(HANGUL.search(line) for line in told.splitlines() if re.match(r"  -?\S.*  \S", line) and "[" not in line)
    assert not re.search("usage|options:|arguments:|show this", told)


def test_the_setting_wins_over_the_locale(tmp_path: Path):
    korean = run("generate", "--seed", "x", data=tmp_path, LC_ALL="en_US.UTF-8", AD_AGENT_LANG="ko")
    assert korean.returncode == 2
    assert "오류: --seed 인수: 값이 잘못되었습니다" in korean.stderr
    english = run("generate", "--seed", "x", data=tmp_path, LC_ALL="ko_KR.UTF-8", AD_AGENT_LANG="en")
    assert "error: argument --seed: invalid int value" in english.stderr


def test_a_wrong_setting_is_told_in_korean(tmp_path: Path):
    told = run("fonts", data=tmp_path, LC_ALL="ko_KR.UTF-8", AD_AGENT_KEEP_JOBS="0", AD_AGENT_TOKEN="short").stderr
    assert "AD_AGENT_KEEP_JOBS: 1 이상이어야 합니다" in told
    told = run("fonts", data=tmp_path, LC_ALL="ko_KR.UTF-8", AD_AGENT_TOKEN="short").stderr
    assert "AD_AGENT_TOKEN이 너무 짧습니다" in told


def test_doctor_finds_in_korean(tmp_path: Path):
    told = run("doctor", data=tmp_path, LC_ALL="ko_KR.UTF-8").stdout
    rows = [line for line in told.splitlines() if "│" in line]
    assert len(rows) > 8
    assert all(HANGUL.search(line) for line in rows if line.startswith(" ") and "ad-agent-mcp" not in line[:14])


def test_the_server_that_generate_starts_speaks_as_the_shell_does(tmp_path: Path, photo: Path):
    out = str(tmp_path / "out")
    refused = run("generate", "--out", out, data=tmp_path / "data", LC_ALL="ko_KR.UTF-8")
    assert refused.returncode == 1
    assert refused.stdout.startswith("광고를 만들지 못했습니다. photo가 없습니다. ")
    done = run("generate", str(photo), "--mode", "behind", "--out", out, data=tmp_path / "data", LC_ALL="ko_KR.UTF-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1단계 배경" in done.stdout
    assert "참고: 문구가 없어 --mode를 쓰지 않았습니다." in done.stdout.replace("composition_mode", "--mode")
    assert "완성했습니다(작업 " in done.stdout


def test_a_korean_particle_hides_no_tool_or_field():
    told = say("jobs.cut_off", what="", job_id="'abc'").in_("ko")
    assert "`ad-agent-mcp generate --resume abc`를 실행하세요" in in_commands(told)
    assert in_commands(say("jobs.none_finished").in_("ko")) == say("jobs.none_finished").in_("ko")
    assert "`ad-agent-mcp jobs list`에서" in in_commands(say("jobs.none_unfinished").in_("ko"))
    assert "`ad-agent-mcp generate`를 실행하세요" in in_commands(say("jobs.none_yet").in_("ko"))


@pytest.mark.parametrize("key", [key for key, words in catalogue().items() if "list_jobs" in words["en"]])
def test_no_name_of_a_tool_is_left_in_what_a_korean_reads(key: str):
    assert "list_jobs" not in in_commands(catalogue()[key]["ko"])
