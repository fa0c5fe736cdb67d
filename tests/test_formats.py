"""The lines of lists in other formats than gfwlist's own: what each is read as, and what is told of those that are no
rule."""

import pytest

from gfwtools.compiler import Compiled, compile_lists
from gfwtools.formats import Listing


def compiled(text: str, format: str) -> Compiled:
    return compile_lists(Listing("x", text, format))


def details(text: str, format: str) -> list[str]:
    return [outcome.detail for outcome in compiled(text, format).outcomes()]


@pytest.mark.parametrize(
    "comment", [" # see https://good.org/why", "\t# a bank: keep direct", " #", "  # one # two", " #/good.org/"]
)
def test_a_comment_behind_a_line_of_dnsmasq_conf_says_nothing(comment: str) -> None:
    text = f"server=/example.com/free.net/8.8.8.8{comment}\nserver=/www.free.net/#{comment}\n"
    cover = compiled(text, "dnsmasq").cover
    assert cover.tunnelled == ["example.com", "free.net"]
    assert cover.freed == ["www.free.net"]


def test_a_server_that_is_nothing_but_a_comment_frees_no_name() -> None:
    # dnsmasq: "using only locally-known addresses", as for `server=/example.com/`.
    assert compiled("server=/example.com/ #\n", "dnsmasq").cover.tunnelled == ["example.com"]


def test_local_of_dnsmasq_conf_frees_a_name_as_server_does_and_address_does_not() -> None:
    text = "server=/a.com/b.com/8.8.8.8\nlocal=/www.a.com/#\naddress=/www.b.com/#\n"
    assert compiled(text, "dnsmasq").cover == (["a.com", "b.com"], ["www.a.com"])


def test_a_leading_dot_in_dnsmasq_conf_means_nothing() -> None:
    cover = compiled("server=/.example.com/8.8.8.8\nserver=/.www.example.com/#\n", "dnsmasq").cover
    assert cover == (["example.com"], ["www.example.com"])


@pytest.mark.parametrize(
    "line", ["no-resolv", "no-resolv # not here", "cache-size=1000", "example.com", "server=8.8.8.8"]
)
def test_an_option_of_dnsmasq_conf_that_names_no_domain_is_counted_and_blocks_nothing(line: str) -> None:
    listing = f"{line}\nserver=/example.com/8.8.8.8\n"
    assert compiled(listing, "dnsmasq").counts().dropped == {"name": 1}
    assert compiled(listing, "dnsmasq").cover.tunnelled == ["example.com"]
    assert details(line, "dnsmasq") == ["no valid host name (no server=/name/address)"]
