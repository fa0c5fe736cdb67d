"""Names become what dnsmasq can parse, or nothing."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.errors import InvalidNameError
from gfwtools.lists.hostname import to_ascii


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("中国.cn", "xn--fiqs8s.cn"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("☃.net", "xn--n3h.net"),
        ("i❤.ws", "xn--i-7iq.ws"),
        ("a_b.example", "a_b.example"),
        ("-.tumblr.com", "-.tumblr.com"),
        ("a" * 63 + ".com", "a" * 63 + ".com"),
    ],
)
def test_spellings_of_a_name_come_to_one(text: str, name: str) -> None:
    assert to_ascii(text) == name


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", ".a", "a" * 64 + ".com", ("a" * 49 + ".") * 5 + "abcd", "a b.com", "a\n.com", "a/b.com", "a#b",
     "a%b.com", "a\0b", "\ud800.com", "a" * 10_000_000],
)  # fmt: skip
def test_what_dnsmasq_could_not_parse_is_no_name(text: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        to_ascii(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@given(st.text(max_size=80))
def test_a_name_holds_no_character_of_another_meaning(text: str) -> None:
    try:
        name = to_ascii(text)
    except InvalidNameError:
        return
    assert re.fullmatch(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", name)
    assert len(name) <= 253
    assert to_ascii(name) == name
