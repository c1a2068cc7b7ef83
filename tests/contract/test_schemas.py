"""The request's shape: what it takes, what it refuses, what it makes of words."""

import math
import unicodedata

import pytest
from pydantic import ValidationError

from ad_agent_mcp.contract.call import GenerateRequest


def test_defaults_are_the_contract():
    request = GenerateRequest()
    assert (request.start_step, request.width, request.height, request.product_lock) == (1, 1024, 1024, True)
    assert request.font_name == "NanumSquare/NanumSquareB.ttf"
    assert (request.strength, request.guidance_scale, request.composition_strength) == (0.6, 3.5, 0.4)
    assert request.composition_steps == 28
    assert (request.composition_mode, request.text_position) == ("overlay", "top")
    assert request.bg_negative_prompt == "blurry, low quality, distorted"
    assert request.negative_prompt == "floor, ground, dirt, debris, ugly, low quality"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strength", math.nan),
        ("guidance_scale", math.inf),
        ("strength", 1.01),
        ("width", 255),
        ("height", 2049),
        ("seed", -1),
        ("seed", 2**32),
        ("start_step", 4),
        ("wait_seconds", 51),
        ("pause_after_step", 3),
        ("composition_mode", "under"),
        ("text_content", "x" * 201),
        ("text_content", "a\x00b"),
        ("text_content", "a\x1b[31mb"),
        ("text_content", "\u202eevil"),
        ("product_box", (0, 0, 0, 5)),
        ("bg_prompt", "x" * 2001),
    ],
)
def test_what_is_out_of_range_is_refused(field: str, value: object):
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate({field: value})


@pytest.mark.parametrize("blank", [None, "", "   ", "\n \t"])
def test_blank_words_are_none(blank: str | None):
    assert GenerateRequest(text_content=blank).text_content is None


def test_words_become_canonical_and_keep_their_line_breaks():
    decomposed = unicodedata.normalize("NFD", "한글")
    assert GenerateRequest(text_content=f"{decomposed}\r\n50%").text_content == "한글\n50%"
