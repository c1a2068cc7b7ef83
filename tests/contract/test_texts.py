"""The catalogue: nothing untranslated, nothing unused, and every text given just the values that it shows."""

import ast
import json
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import ad_agent_mcp
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ad_agent_mcp.contract.notices import notice, shown_in
from ad_agent_mcp.contract.schemas import Notice
from ad_agent_mcp.contract.stages import Stage
from ad_agent_mcp.contract.texts import MAX_TEXT_CHARS, Text, catalogue, say

PACKAGE = Path(ad_agent_mcp.__file__).parent
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

SPEAKERS = {
    "AdAgentError": 1,
    "DataFolderError": 1,
    "UnreadableJobError": 1,
    "invalid": 0,
    "unavailable": 0,
    "notice": 1,
    "ErrorInfo": None,
    "Notice": None,
    "JobNotice": None,
}
"""What makes errors and notices, with the place of their words among its arguments."""
WORDS = ("message", "said", "text")
"""The names of those arguments."""


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path, node, getattr(node.func, "attr", getattr(node.func, "id", ""))


def is_written_out(node: ast.expr) -> bool:
    """Whether an expression has words in it, rather than in the catalogue."""
    match node:
        case ast.Constant(value=str(words)):
            return bool(words)
        case ast.JoinedStr():
            return True
        case ast.BinOp():
            return is_written_out(node.left) or is_written_out(node.right)
        case ast.IfExp():
            return is_written_out(node.body) or is_written_out(node.orelse)
        case ast.BoolOp():
            return any(map(is_written_out, node.values))
        case _:
            return False


def said() -> list[tuple[str, str, frozenset[str], bool]]:
    """Every use of `say`: where, which key (* for what is known later), its values, and whether there are more."""
    found: list[tuple[str, str, frozenset[str], bool]] = []
    for path, call, name in calls():
        if name != "say":
            continue
        values = frozenset(word.arg for word in call.keywords if word.arg is not None)
        has_more = any(word.arg is None for word in call.keywords)
        first = call.args[0]
        for key in [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]:
            match key:
                case ast.Constant(value=str(literal)):
                    found.append((f"{path}:{call.lineno}", literal, values, has_more))
                case ast.JoinedStr():
                    parts = (str(part.value) if isinstance(part, ast.Constant) else "*" for part in key.values)
                    found.append((f"{path}:{call.lineno}", "".join(parts), values, has_more))
                case _:
                    raise AssertionError(f"{path}:{call.lineno}: the key is not written where the text is said")
    return found


def placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}


def letters(words: str) -> str:
    return "".join(text for text, _, _, _ in string.Formatter().parse(words) if any(map(str.isalpha, text)))


@pytest.mark.parametrize("key", catalogue())
def test_a_text_says_the_same_in_both_languages(key: str):
    words = catalogue()[key]
    assert words.keys() == {"en", "ko"}
    assert placeholders(words["en"]) == placeholders(words["ko"])
    if letters(words["en"]):
        assert any("가" <= character <= "힣" for character in words["ko"])
    assert not any("가" <= character <= "힣" for character in letters(words["en"]))


def test_every_key_that_is_said_exists_and_every_key_there_is_said():
    used = {
        key
        for _, pattern, _, _ in said()
        for key in ([pattern] if "*" not in pattern else [key for key in catalogue() if Path(key).match(pattern)])
    }
    assert used - catalogue().keys() == set()
    assert catalogue().keys() - used == set()


def test_every_text_gets_the_values_that_it_shows_and_no_others():
    for where, pattern, values, has_more in said():
        for key in [pattern] if "*" not in pattern else [key for key in catalogue() if Path(key).match(pattern)]:
            shown = placeholders(catalogue()[key]["en"])
            assert values <= shown if has_more else values == shown, f"{where}: {key}"


def test_no_error_and_no_notice_has_words_of_its_own():
    for path, call, name in calls():
        if name not in SPEAKERS:
            continue
        given = [word.value for word in call.keywords if word.arg in WORDS]
        place = SPEAKERS[name]
        if place is not None:
            given += call.args[place : place + 1]
        assert not any(map(is_written_out, given)), f"{path}:{call.lineno}"


def test_what_is_refused_about_a_value_is_said_in_either_language():
    for path in ("contract/ad.py", "config.py", "media/decode.py", "media/jpeg.py", "media/png.py"):
        raised = [
            node.exc
            for node in ast.walk(TREES[Path(path)])
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        ]
        assert raised
        assert not any(ast.unparse(error).startswith("ValueError(") for error in raised), path


def test_every_stage_is_told_of():
    assert {f"stages.{stage}" for stage in Stage} == {key for key in catalogue() if key.startswith("stages.")}


def test_the_catalogue_is_not_read_before_something_is_said():
    files = "import json; from ad_agent_mcp.mcp_api.server import *; from ad_agent_mcp.contract import texts"
    program = f"{files}; print(json.dumps(texts.catalogue.cache_info().currsize))"
    assert run(program) == "0"


def run(program: str) -> str:
    import subprocess
    import sys

    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_text_in_a_text_is_in_its_language_and_a_list_is_joined_as_that_language_does():
    told = say("models.diffusion_but", obstacle=say("models.no_compiler", compilers=["gcc", "clang"]))
    assert told.en == "AD_AGENT_ENGINE=diffusion, but gcc or clang is not found"
    assert "gcc 또는 clang" in told.in_("ko")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("장면", "장면을 장면이 장면으로"),
        ("배경", "배경을 배경이 배경으로"),
        ("글자", "글자를 글자가 글자로"),
        ("레일", "레일을 레일이 레일로"),
        ("'product_image'", "'product_image'를 'product_image'가 'product_image'로"),
        ("model", "model을 model이 model로"),
        ("URL", "URL을 URL이 URL로"),
        ("PNG", "PNG를 PNG가 PNG로"),
        ("photo.png", "photo.png을 photo.png이 photo.png으로"),
        ("29,900", "29,900을 29,900이 29,900으로"),
        ("7", "7을 7이 7로"),
        ("4", "4를 4가 4로"),
        ("50%", "50%를 50%가 50%로"),
        ("'봄'", "'봄'을 '봄'이 '봄'으로"),
    ],
)
def test_a_particle_fits_the_end_of_its_word(word: str, told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalogue(), "test.particles", {"ko": "{word:을/를} {word:이/가} {word:으로/로}"})  # type: ignore[arg-type]
    assert Text(key="test.particles", values={"word": word}).in_("ko") == told


def test_what_is_stored_is_shown_in_either_language_and_clients_see_no_more_of_it():
    stored = notice("copy_failed", say("jobs.copy_failed", folder="/ads", reason="No space left on device"))
    again = Notice.model_validate_json(stored.model_dump_json())
    assert again == stored
    assert shown_in("en", again).message == stored.message == str(again.text)
    assert "/ads 폴더에 복사하지 못했습니다" in shown_in("ko", again).message
    for language in ("en", "ko"):
        assert shown_in(language, again).model_dump().keys() - {"text"} == {"code", "message"}
        assert json.loads(shown_in(language, again).model_dump_json()).keys() == {"code", "message"}


def test_equal_notices_are_told_once():
    told = [notice("copy_failed", say("jobs.copy_failed", folder=folder, reason="full")) for folder in "aab"]
    assert list(dict.fromkeys(told)) == [told[0], told[2]]


def test_the_schema_of_what_clients_see_has_no_trace_of_it():
    for kind in (ErrorInfo, Notice):
        for mode in ("validation", "serialization"):
            assert "text" not in kind.model_json_schema(mode=mode)["properties"]


@pytest.mark.parametrize(
    "stored",
    [
        '{"code": "busy", "message": "as it was"}',
        '{"code": "busy", "message": "as it was", "text": {"key": "jobs.from_the_future", "values": {}}}',
        '{"code": "busy", "message": "as it was", "text": {"key": "jobs.no_such_job", "values": {"other": 1}}}',
        '{"code": "busy", "message": "as it was", "text": {"key": "jobs.contended", "values": {"holder": "a", '
        '"waited": "long", "seconds": 5}}}',
    ],
)
def test_what_another_version_stored_is_shown_as_it_was(stored: str):
    assert shown_in("ko", ErrorInfo.model_validate_json(stored)).message == "as it was"


def test_a_library_that_says_megabytes_is_cut_in_what_is_stored():
    error = AdAgentError(ErrorCode.INVALID_REQUEST, say("media.damaged", reason=ValueError("x" * 1_000_000)))
    assert len(error.info.model_dump_json()) < 3 * MAX_TEXT_CHARS
    assert len(shown_in("ko", error.info).message) <= MAX_TEXT_CHARS + 100
    assert shown_in("en", error.info).message == error.info.message
