"""A line becomes a rule: its host pattern, its anchor, and whether it means the whole host."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import lists

from gfwtools.lists.autoproxy import parse, parse_line, rules_in, scan, scan_about
from gfwtools.lists.locator import Locator
from gfwtools.lists.rule import Anchor
from gfwtools.lists.suffixes import bundled

HOST, URL, LOOSE, REGEX = Anchor.HOST, Anchor.URL, Anchor.LOOSE, Anchor.REGEX


@pytest.mark.parametrize(
    ("line", "exception", "host", "anchor", "whole"),
    [
        ("||example.com", False, "example.com", HOST, True),
        ("||Example.COM/", False, "example.com", HOST, True),
        ("||example.com^", False, "example.com", HOST, True),
        ("||example.com/path?x", False, "example.com", HOST, False),
        ("||example.com:8080/", False, "example.com", HOST, False),
        ("||http://example.com", False, "example.com", HOST, False),
        ("||.example.com", False, "example.com", HOST, True),
        ("|http://example.com/", False, "example.com", URL, False),
        ("|https://*.example.com|", False, "*.example.com", URL, False),
        ("|http://[2001:db8::1]:80/x", False, "[2001:db8::1]", URL, False),
        (".example.com", False, "example.com", LOOSE, True),
        ("example.com/a/b", False, "example.com", LOOSE, False),
        ("http://example.com", False, "example.com", LOOSE, False),
        ("keyword", False, "keyword", LOOSE, True),
        ("google.*/search", False, "google.*", LOOSE, False),
        ("@@||example.com", True, "example.com", HOST, True),
        ("@@||*.example.com", True, "*.example.com", HOST, True),
        ("@@|https://example.com", True, "example.com", URL, False),
        ("@@||example.com/path", True, "example.com", HOST, False),
        (r"/^https?:\/\/x\.com/", False, r"^https?:\/\/x\.com", REGEX, False),
        (r"@@/x\.com/", True, r"x\.com", REGEX, False),
        ("||neodb.social \t", False, "neodb.social", HOST, True),
        ("\ufeff||example.com", False, "example.com", HOST, True),
    ],
)
def test_a_line_gives_its_rule(line: str, exception: bool, host: str, anchor: Anchor, whole: bool) -> None:
    rule = parse_line(line, 7)
    assert rule is not None
    assert (rule.line, rule.exception, rule.host, rule.anchor, rule.whole) == (7, exception, host, anchor, whole)


@pytest.mark.parametrize("line", ["", "   ", "! comment", "!||example.com", "[AutoProxy 0.2.9]", "[Adblock Plus 2.0]"])
def test_blanks_comments_and_the_header_are_no_rules(line: str) -> None:
    assert parse_line(line) is None


def test_line_numbers_are_those_of_the_file() -> None:
    text = "[AutoProxy 0.2.9]\n! one\n\n||a.com\n\n@@||b.com\n"
    assert [(rule.line, rule.text) for rule in parse(text)] == [(4, "||a.com"), (6, "@@||b.com")]


@given(st.lists(st.text(max_size=40)))
def test_parsing_never_fails_and_the_quick_way_agrees_with_the_long_one(lines: list[str]) -> None:
    text = "\n".join(lines)
    slow = [rules_in(line, number) for number, line in enumerate(text.split("\n"), 1)]
    assert list(parse(text)) == [rule for rules in slow for rule in rules]


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("||a.com^ ||b.com^", [(False, "a.com"), (False, "b.com")]),
        ("||a.com\t@@||www.a.com", [(False, "a.com"), (True, "www.a.com")]),
        ("|http://a.com/x y |http://b.com", [(False, "a.com"), (False, "b.com")]),
        ("a.com\u3000||b.com ||c.com", [(False, "a.com"), (False, "b.com"), (False, "c.com")]),
        ("||a.com # as b.com and ||c.com", [(False, "a.com")]),
        ("@@||a.com ! for now", [(True, "a.com")]),
        ("||a.com ||b.com # not ||c.com", [(False, "a.com"), (False, "b.com")]),
    ],
)
def test_each_rule_of_a_line_is_read(line: str, rules: list[tuple[bool, str]]) -> None:
    found = rules_in(line, 7)
    assert [(rule.exception, rule.host) for rule in found] == rules
    assert {(rule.line, rule.text) for rule in found} == {(7, line)}


@pytest.mark.parametrize("line", ["||a.com^ b.com^", "||a.com b.com", "||a.com/ b.com", "a.com b.com"])
def test_a_line_with_a_second_host_that_is_no_rule_is_dropped_whole(line: str) -> None:
    (rule,) = rules_in(line)
    assert rule.anchor is Anchor.NONE


@given(lists, st.sampled_from(["registrable", "host"]), st.integers(1, 9))
def test_a_scan_gives_the_name_of_a_plain_block_and_the_rule_of_every_other_line(
    text: str, granularity: str, batch: int
) -> None:
    locator = Locator(bundled(), granularity)
    rules = {rule.line: rule for rule in parse(text)}
    others = []
    with patch("gfwtools.lists.rule.BATCH", batch):
        for names, lines, part in scan(text):
            others += part
            for name, line, domain in zip(names, lines, locator.domains(names), strict=True):
                rule = rules.pop(line)
                assert (rule.host, rule.anchor, rule.exception, rule.whole) == (name, Anchor.HOST, False, True)
                target = locator.locate(rule)
                if reason := locator.refused([domain]).get(domain):
                    assert (target.domains, target.reason) == ((), reason)
                else:
                    assert (target.domains, target.reason, target.wider) == ((domain,), None, domain != name)
    assert others == list(rules.values())


def test_a_scan_finds_the_lines_that_are_plain_blocks() -> None:
    long = f"||{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"
    text = f"||a.com\n||printer.local\n{long}\n{long}d\n||1.2.3.4\n||A.com\n||a.com/\n||a..com\n||com"
    ((names, lines, _),) = scan(text)
    assert list(zip(names, lines, strict=True)) == [("a.com", 1), (long[2:], 3)]


@pytest.mark.parametrize(
    "line",
    [
        "||google",
        "||google/a.path",
        "|http://google:80/",
        "@@||google^",
        "||.google.",
        " ||GOOGLE",
        "||blog.google ",
        "||a.blog.google",
        "||Blog.Google",
        "blog.g*",
        "|http://b.blog.google/x",
        r"/^https?:\/\/blog\.google\//",
        "||ｂlog.google",
    ],
)
def test_a_rule_that_may_be_about_a_domain_is_read(line: str) -> None:
    names, _, rules = scan_about(line, "blog.google")
    assert len([*names, *rules]) == 1


@pytest.mark.parametrize("line", ["||b.google", "||blog.google.com", "|http://b.google/blog.html", "@@||google.com"])
def test_a_rule_that_is_about_another_domain_is_passed_over(line: str) -> None:
    assert scan_about(line, "blog.google") == ([], [], [])


@pytest.mark.parametrize("character", ["a", ".", "*", "|", "@", "/", "\\", "(", "[", "^", ":", " ", "-", "%", "中"])
def test_a_line_of_250000_characters_takes_no_longer_than_it_is_long(character: str) -> None:
    # A regular expression that backtracks would run for many minutes here, and the suite would not end.
    from gfwtools.lists.compiler import compile_lists
    from gfwtools.lists.formats import Listing

    for line in (character * 250_000, f"||{character * 250_000}", f"/{character * 250_000}/"):
        assert compile_lists(Listing("x", line)).read <= 1
