"""The settings' own rules."""

import pytest
from pydantic import ValidationError

from ad_agent_mcp.config import Settings, shell_language
from ad_agent_mcp.contract.texts import TextError


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": ""}, "ko"),
    ],
)
def test_a_shell_is_spoken_to_in_the_language_of_its_locale(variables: dict[str, str], language: str):
    assert shell_language(variables) == language


def test_the_language_of_the_settings_reaches_the_worker(settings: Settings):
    assert settings.lang is None
    assert "AD_AGENT_LANG" not in settings.to_environment()
    assert settings.model_copy(update={"lang": "ko"}).to_environment()["AD_AGENT_LANG"] == "ko"


def test_what_is_wrong_with_a_setting_is_said_in_either_language():
    with pytest.raises(ValidationError) as caught:
        Settings(token="short")
    (fault,) = caught.value.errors()
    error = fault["ctx"]["error"]
    assert isinstance(error, TextError)
    assert "16 characters" in error.text.en
    assert "16자" in error.text.in_("ko")
