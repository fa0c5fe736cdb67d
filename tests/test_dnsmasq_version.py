"""What a version of dnsmasq cannot do is said."""

import pytest
from recorder import Recorder

from gfwtools.config.load import loads
from gfwtools.dnsmasq.version import shortcomings, version_of


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Dnsmasq version 2.90  Copyright (c) 2000-2024 Simon Kelley\n", (2, 90)),
        ("dnsmasq version 2.89-1ubuntu\n", (2, 89)),
        ("something else\n", None),
    ],
)
def test_the_version_is_in_dnsmasqs_own_words(text: str, version: tuple[int, int] | None) -> None:
    assert version_of(Recorder({("dnsmasq", "--version"): text})) == version


@pytest.mark.parametrize("layout", ["paired", "split"])
def test_an_old_dnsmasq_is_named_with_what_it_lets_through(layout: str) -> None:
    (said,) = shortcomings(loads(f'[dns]\nlayout = "{layout}"\n'), (2, 89))
    assert said.startswith("dnsmasq 2.89: it lets HTTPS records through")
    assert said.endswith("; install dnsmasq 2.90 or later")
    assert ("private addresses" in said) is (layout == "split")


@pytest.mark.parametrize(
    ("text", "version"), [("", (2, 90)), ("", (3, 0)), ("", None), ("[dns]\nhttps_records = true\n", (2, 85))]
)
def test_nothing_is_said_where_nothing_is_lost_or_it_is_wanted(text: str, version: tuple[int, int] | None) -> None:
    assert shortcomings(loads(text), version) == []
