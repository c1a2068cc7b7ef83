"""Words that were damaged on their way, and words that only look so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ad_agent_mcp.contract.call import GenerateRequest
from ad_agent_mcp.contract.words import mended


@pytest.mark.parametrize(
    ("came", "meant"),
    [
        (r"여름\n세일", "여름\n세일"),
        (r"여름 \r\n 세일", "여름\n세일"),
        (r"여름\\n세일", "여름\n세일"),
        (r"SUMMER\tSALE", "SUMMER SALE"),
        (r"\uc5ec\ub984 \ud83c\udf1f", "여름 🌟"),
        (r"caf\xe9", "café"),
        (r"\xeb\xb4\x84", "봄"),
        (r"say \"hi\"", 'say "hi"'),
        ("29,900\\", "29,900₩"),
        ("단돈 \\9,900", "단돈 ₩9,900"),
        ("29,900\\부터", "29,900₩부터"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("3 &lt; 5", "3 < 5"),
        ("&amp;lt;3", "<3"),
        ("&#8361;29,900 &#x20a9;9", "₩29,900 ₩9"),
        ("봄&nbsp;세일", "봄 세일"),
        ("봄<br>세일<BR />끝", "봄\n세일\n끝"),
        ("<b>봄</b> <span style='color:red'>세일</span>", "봄 세일"),
        ("<h1>봄</h1><p>세일</p>", "봄\n세일"),
        ("**봄**을 담은 __NEW__ `세럼`", "봄을 담은 NEW 세럼"),
        ("## 봄 세일", "봄 세일"),
        ("~~39,000원~~ 29,000원", "39,000원 29,000원"),
        ("[자세히](https://shop.example/a)", "자세히"),
        ("%EB%B4%84%20SALE", "봄 SALE"),
        ("\ufeff봄", "봄"),
        ('["봄 세일", "50%"]', "봄 세일\n50%"),
        (r'["봄\n세일", "\ub05d"]', "봄\n세일\n끝"),
    ],
)
def test_damage_of_the_way_is_mended_and_told(came: str, meant: str):
    words = mended(came)
    assert words.text == meant
    assert words.mended
    assert mended(meant)[:2] == (meant, None)


@pytest.mark.parametrize(
    "text",
    [
        "3 < 5",
        "I <3 you",
        "A&B",
        "AT&T, R&D, Q&A",
        "1+1",
        "#1",
        "# 1위",
        "#여름 #세일",
        "50% * 2",
        "2 ** 3",
        "5* 호텔",
        "*한정 수량",
        "*한정 수량 *오늘만",
        "_월 _일",
        "[봄, 여름]",
        '["봄]',
        "김**님, 이**님의 후기",
        "__월 __일",
        "- 3kg",
        "100%20대",
        "<여름> <NEW>",
        "[특가] 봄",
        "none of it",
        "NULL 카페",
        "café Größe 20 °C",
        "뭐? 진짜?",
        "봄\n세일",
        '"봄"',
        "짠 한 잔",
    ],
)
def test_words_that_are_plausible_stay_without_a_word(text: str):
    assert mended(text) == (text, None, None)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("C:\\news\\today", "backslash"),
        ("1 \\ 2", "backslash"),
        ("{name}님, 안녕하세요", "placeholder"),
        ("%s님", "placeholder"),
        ("[object Object]", "nothing"),
        ("undefined원", "nothing"),
        ("&foo; 봄", "entity"),
        ("사이즈 <S>", "tag"),
        ("<b>봄", "tag"),
        ("봄 <", "lone <"),
        ("신규**회원**만", "Markdown"),
        ("*봄* 세일", "Markdown"),
        ("오늘만 _특가_", "Markdown"),
        ('{"text": "봄"}', "JSON"),
        ("占쏙옙 세일", "lost"),
        ("ï¿½ï¿½ SALE", "lost"),
        ("?? ???", "question marks"),
        ("ë´„ 세일", "봄"),
        ("cafÃ©", "café"),
        ("º½ ¼¼ÀÏ", "봄"),
    ],
)
def test_what_only_looks_like_damage_is_kept_and_told(text: str, hint: str):
    words = mended(text)
    assert words.text == text
    assert hint in str(words.suspicious)


@pytest.mark.parametrize(
    "text",
    ["null", " None ", "undefined", "\u3164", "\u200b\u200d", "\u2800\ufe0f", "\u115f\u1160", "\uffa0", "&nbsp;"],
)
def test_words_that_show_nothing_are_no_words_and_that_is_told(text: str):
    words = mended(text)
    assert words.text is None
    assert words.mended


@pytest.mark.parametrize("text", ["", " \n ", "\u00a0"])
def test_blanks_need_no_word_about_them(text: str):
    assert mended(text) == (None, None, None)


@given(st.text(alphabet="봄 a\\nu0x41&;<>br/*_`#~[](){}%amplt\n", max_size=30))
def test_mending_twice_is_mending_once(text: str):
    once = mended(text).text
    assert once is None or mended(once).text == once


@pytest.mark.parametrize("text", ["봄\ufffd세일", r"봄\ufffd", "봄&#65533;"])
def test_lost_characters_are_refused(text: str):
    with pytest.raises(ValidationError, match="U\\+FFFD"):
        GenerateRequest(text_content=text)


def test_the_length_is_that_of_the_words_as_they_will_be_set():
    assert GenerateRequest(text_content="&amp;" * 150).text_content is not None
