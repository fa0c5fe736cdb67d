"""A regular expression gives a domain where it spells one out, and never one that it cannot match."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.lists.autoproxy import parse_line
from gfwtools.lists.locator import Locator, Reason, Target
from gfwtools.lists.suffixes import bundled


def locate(expression: str) -> Target:
    rule = parse_line(f"/{expression}/")
    assert rule is not None
    return Locator(bundled(), "host").locate(rule)


@pytest.mark.parametrize(
    ("expression", "domain"),
    [
        (r"\bexample\.com", "example.com"),
        (r"\bexample\.com\b", "example.com"),
        (r"^https?:\/\/(?:www\.)?example\.com\/", "example.com"),
        (r"(www)?example\.com", "example.com"),
        (r"[0-9]*example\.com", "example.com"),
        (r"w{0,3}example\.com", "example.com"),
        (r"www\.?example\.com", "example.com"),
        (r"^https?:\/\/\S+example\.com", "example.com"),
        (r"example[.]com", "example.com"),
        (r"example\.com[.]cn", "example.com.cn"),
        (r"\x2eexample\u002ecom", "example.com"),
        (r"EXAMPLE\.com\?q=", "example.com"),
        (r"^https?:\/\/cdn\d+\.example\.com", "example.com"),
        (r"\wb\.example\.com", "example.com"),
        (r"colou?rs\.example\.com", "example.com"),
    ],
)
def test_escapes_and_quantifiers_are_no_letters_of_the_domain(expression: str, domain: str) -> None:
    assert locate(expression).domains == (domain,)


@pytest.mark.parametrize(
    "expression",
    [
        r"colou?r\.net",
        r"^https?:\/\/[^\/]*\dporn\.com",
        r"goo+gle\.net",
        r"fo{2}bar\.org",
        r"\d\.com",
        r"\Bexample\.com",
        r"\dexample\.com",
        r"foo[0-9]bar\.com",
        r"(foo)bar\.com",
        r"foo-?bar\.com",
        r"example\.com?",
        r"example\.com+",
        r"example\.co[a-z]",
        r"example\.com(\.cn)",
        r"\1example\.com",
        r"\dgoogle\.(.*)",
        r"goo+gle\.(.*)",
    ],
)
def test_an_expression_that_cannot_match_the_domain_in_it_or_not_it_alone_is_dropped(expression: str) -> None:
    assert locate(expression).reason is Reason.REGEX


_parts = st.sampled_from(
    [
        "a",
        "b",
        "-",
        r"\.",
        ".",
        r"\d",
        r"\w",
        r"\S",
        "[ab]",
        "[^.]",
        "[.]",
        "+",
        "?",
        "*",
        "{2}",
        "(",
        ")",
        "(?:",
    ]
)
_before = ["", *("".join(letters) + "." for size in range(6) for letters in product("ab1-.", repeat=size))]


@given(st.lists(_parts, max_size=5), st.sampled_from(["", "^", r"\b", r"^https?:\/\/w*", r"^https?:\/\/[^\/]+"]))
def test_an_expression_matches_a_url_of_the_domain_that_it_gives(parts: list[str], scheme: str) -> None:
    expression = f"{scheme}{''.join(parts)}example\\.com"
    if re.search(r"[?*+}]\+", expression):
        return  # possessive in Python, no expression in ECMAScript
    try:
        pattern = re.compile(expression)
    except re.error:
        return
    for domain in locate(expression).domains:
        urls = (f"{start}{before}{domain}" for before in _before for start in ("http://", ""))  # "^example" is a host
        assert any(map(pattern.search, urls))
