"""What callers send who have not read the schema: understood, or refused with the call they meant."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ad_agent_mcp.contract.arguments import read_arguments
from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.errors import AdAgentError, ErrorCode, ErrorInfo
from ad_agent_mcp.contract.fields import GENERATE, HINTS, OTHER_TOOLS
from ad_agent_mcp.mcp_api.tool_arguments import (
    ApproveArguments,
    ImageArguments,
    ListArguments,
    Nothing,
    StatusArguments,
)

PHOTO = "bottle.png"
SMALL_PICTURE = base64.b64encode(bytes(6000)).decode()


def read(**arguments: Any) -> GenerateRequest:
    return read_arguments("generate", GenerateRequest, arguments)


def refusal(tool: str = "generate", model: type = GenerateRequest, /, **arguments: Any) -> ErrorInfo:
    with pytest.raises(AdAgentError) as caught:
        read_arguments(tool, model, arguments)
    assert caught.value.info.code is ErrorCode.INVALID_REQUEST
    return caught.value.info


def fixed(tool: str = "generate", model: type = GenerateRequest, /, **arguments: Any) -> dict[str, Any] | None:
    fix = refusal(tool, model, **arguments).fix
    if fix is None:
        return None
    assert fix.tool == tool
    read_arguments(tool, model, fix.arguments)
    return fix.arguments


def test_every_argument_of_generate_has_its_row_and_no_alias_is_a_name_or_stands_twice():
    assert list(GENERATE) == list(GenerateRequest.model_fields)
    aliases = [alias for row in GENERATE.values() for alias in row.aliases] + list(HINTS)
    assert len(aliases) == len(set(aliases))
    assert GENERATE.keys().isdisjoint(aliases)
    known = {
        name
        for model in (StatusArguments, ApproveArguments, ImageArguments, ListArguments)
        for name in model.model_fields
    }
    assert OTHER_TOOLS.keys() - {"force"} <= known


@pytest.mark.parametrize("unset", [None, ""])
@pytest.mark.parametrize("name", GENERATE)
def test_null_and_empty_text_mean_not_set_for_every_argument(name: str, unset: object):
    request = read(**{name: unset})
    assert request == GenerateRequest()
    assert name not in request.model_fields_set


def test_a_strict_client_may_send_null_for_all_that_it_leaves_unset():
    request = read(**(dict.fromkeys(GENERATE) | {"product_image": PHOTO}))
    assert request.model_fields_set == {"product_image"}
    assert read_arguments("status", StatusArguments, dict.fromkeys(StatusArguments.model_fields)) == StatusArguments()


@pytest.mark.parametrize("word", ["null", "None", "undefined"])
def test_the_word_for_nothing_is_no_value_except_in_prose(word: str):
    assert read(seed=word, composition_mode=word, resume_job_id=word).model_fields_set == set()
    assert read(bg_prompt=word).bg_prompt == word


def test_none_stays_a_choice_where_it_is_one():
    assert read_arguments("status", StatusArguments, {"include_images": "none"}).include_images == "none"


def test_a_tool_that_takes_nothing_ignores_what_it_is_sent():
    assert read_arguments("health", Nothing, {"random_string": "x", "dummy": None}) == Nothing()


@pytest.mark.parametrize(
    ("given_words", "words"),
    [(2024, "2024"), (1.5, "1.5"), (["봄 세일", 50], "봄 세일\n50"), (["한 줄"], "한 줄"), ("[50]", "[50]")],
)
def test_words_may_come_as_a_number_or_as_lines(given_words: object, words: str):
    assert read(text_content=given_words).text_content == words


@pytest.mark.parametrize("no_words", [True, {"text": "a"}, [["a"]], [None]])
def test_what_is_neither_words_nor_number_nor_lines_is_refused(no_words: object):
    assert refusal(text_content=no_words).field == "text_content"


@pytest.mark.parametrize(
    ("alias", "value", "meant"),
    [
        ("headline", "봄", {"text_content": "봄"}),
        ("text", "봄", {"text_content": "봄"}),
        ("productImage", PHOTO, {"product_image": PHOTO}),
        ("photo", PHOTO, {"product_image": PHOTO}),
        ("widht", 512, {"width": 512}),
        ("steps", 4, {"num_inference_steps": 4}),
        ("size", "1080x1350", {"width": 1080, "height": 1350}),
        ("size", [1080, 1350], {"width": 1080, "height": 1350}),
        ("size", {"width": 1080, "height": 1350}, {"width": 1080, "height": 1350}),
        ("size", 512, {"width": 512, "height": 512}),
        ("aspect_ratio", "4:5", {"width": 1024, "height": 1280}),
        ("aspect_ratio", "16:9", {"width": 1820, "height": 1024}),
        ("aspectRatio", "1.91:1", {"width": 1956, "height": 1024}),
        ("aspect_ratio", "1:4", {"width": 512, "height": 2048}),
        ("timeout", 300, {"wait_seconds": 50}),
        ("font", "BMJua/BMJUA_ttf.ttf", {"font_name": "BMJua/BMJUA_ttf.ttf"}),
    ],
)
def test_a_callers_own_word_leads_to_the_call_that_was_meant(alias: str, value: object, meant: dict[str, Any]):
    assert fixed(seed=1, **{alias: value}) == {"seed": 1, **meant}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text_color", "#ff0000"),
        ("logo_image", "logo.png"),
        ("num_images", 4),
        ("prompt", "a serum on wood"),
        ("webhook", "x"),
        ("zzzz", 1),
        ("size", "large"),
        ("width_and_height", "0x0"),
        ("aspect_ratio", "0:1"),
        ("headline", "x" * 201),
    ],
)
def test_what_may_mean_something_else_gets_no_ready_call(name: str, value: object):
    error = refusal(**{name: value})
    assert error.field == name
    assert error.fix is None


def test_an_alias_beside_what_it_stands_for_gets_no_ready_call():
    assert fixed(text_content="a", headline="b") is None


def test_a_ready_call_repeats_no_picture():
    assert fixed(product_image=SMALL_PICTURE, headline="봄") is None


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("text_position", "Top", "top"),
        ("text_position", "bottom-left", "bottom"),
        ("text_position", "centre", "center"),
        ("text_position", "top center", "top"),
        ("text_position", "Center-Bottom", "bottom"),
        ("text_position", "middle", "center"),
        ("composition_mode", "BLEND", "blend"),
        ("width", "1080px", 1080),
        ("height", "1,080 px", 1080),
        ("wait_seconds", 300, 50),
        ("wait_seconds", "60s", 50),
        ("wait_seconds", 12.5, 12),
        ("strength", "60%", 0.6),
        ("pause_after_step", "1", 1),
        ("product_box", {"x": 1, "y": 2, "w": 30, "h": 40}, [1, 2, 30, 40]),
        ("product_box", {"x1": 1, "y1": 2, "x2": 30, "y2": 40}, [1, 2, 29, 38]),
        ("product_box", {"left": 1, "top": 2, "right": 30, "bottom": 40}, [1, 2, 29, 38]),
        ("product_box", "1, 2, 30, 40", [1, 2, 30, 40]),
        ("product_image", [PHOTO], PHOTO),
    ],
)
def test_a_value_that_is_plain_to_read_comes_back_as_a_ready_call(name: str, value: object, meant: object):
    assert fixed(**{name: value}) == {name: meant}


def test_minus_one_as_a_seed_means_any():
    assert fixed(seed=-1, width=512) == {"width": 512}


@pytest.mark.parametrize("no", [0, "none", "No"])
def test_no_pause_means_none(no: object):
    assert fixed(pause_after_step=no, width=512) == {"width": 512}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text_position", "left"),
        ("text_position", "top or bottom"),
        ("text_position", "top or center"),
        ("composition_mode", "under"),
        ("width", 4096),
        ("width", "wide"),
        ("strength", 1.5),
        ("seed", -7),
        ("product_box", [0.1, 0.2, 0.5, 0.5]),
        ("product_box", [1, 2, 3]),
    ],
)
def test_a_value_that_could_mean_two_things_gets_no_ready_call(name: str, value: object):
    error = refusal(**{name: value})
    assert error.field == name
    assert error.fix is None


def test_all_that_is_wrong_is_mended_in_one_ready_call_or_none_is_offered():
    assert fixed(width="512px", text_position="TOP") == {"width": 512, "text_position": "top"}
    assert fixed(width="512px", text_position="left") is None
    assert fixed(headline="봄", width="512px") == {"text_content": "봄", "width": 512}


def test_the_other_tools_understand_too():
    assert fixed("get_image", ImageArguments, max_side=4000) == {"max_side": 2048}
    assert fixed("get_image", ImageArguments, name="final.png") == {"name": "final"}
    assert fixed("get_image", ImageArguments, format=".png") == {"format": "png"}
    assert fixed("list_jobs", ListArguments, status="finished") == {"status": "completed"}
    assert fixed("list_jobs", ListArguments, status="All", limit=3) == {"limit": 3}
    assert fixed("get_image", ImageArguments, format="jpg") == {"format": "jpeg"}
    assert fixed("get_image", ImageArguments, layer="cutout") == {"name": "cutout"}
    assert fixed("list_jobs", ListArguments, status="Completed") == {"status": "completed"}
    assert fixed("status", StatusArguments, jobId="x") == {"job_id": "x"}


def test_refusals_are_in_our_own_words():
    for arguments in ({"width": "abc"}, {"seed": [1]}, {"product_lock": "maybe"}, {"product_image": {}}, {"width": 1}):
        message = refusal(**arguments).message
        assert "should be" in message
        for jargon in ("input", "parse", "valid ", "instance", "type=", "pydantic"):
            assert jargon not in message.lower()


WORDS = st.text('a봄1 .x-[{"', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*GENERATE, "headline", "size", "zzz"]), VALUES, max_size=4))
def test_whatever_is_sent_is_understood_or_refused_with_a_call_that_works(arguments: dict[str, Any]):
    try:
        read_arguments("generate", GenerateRequest, arguments)
    except AdAgentError as error:
        info = error.info
    else:
        return
    assert info.code is ErrorCode.INVALID_REQUEST
    assert len(info.message) < 2500
    if info.fix is not None:
        read_arguments("generate", GenerateRequest, info.fix.arguments)
