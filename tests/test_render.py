"""Generated files: the same policy gives the same bytes, dnsmasq and ipset accept them, and no text of others gets in."""

import re
from ipaddress import ip_network

from dnsmasq_files import body, dnsmasq_accepts
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import read_conf
from strategies import HOSTILE, domains, hostile_text, lists

import gfwtools
from gfwtools.config.checks import parse_upstream
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.formats import FORMATS, Listing
from gfwtools.lists.policy import Cover
from gfwtools.render import dnsmasq, ipset, nftables, plain
from gfwtools.render.backends import TEXTS

POLICY = PolicyConfig()
COVER = Cover(["a.com", "b.app"], ["*.b.app", "x.a.com"])
ONE = Cover(["a.com"], [])


def test_a_domain_is_a_server_and_a_set_line_and_an_exception_both_the_other_way() -> None:
    assert body(dnsmasq.paired(COVER, POLICY, unset=["y.b.app"])) == [
        "server=/a.com/8.8.8.8#53",
        "ipset=/a.com/gfwlist,gfwlist6",
        "server=/b.app/8.8.8.8#53",
        "ipset=/b.app/gfwlist,gfwlist6",
        "server=/*.b.app/#",
        "ipset=/*.b.app/gfwlist_direct",
        "server=/x.a.com/#",
        "ipset=/x.a.com/gfwlist_direct",
        "ipset=/y.b.app/gfwlist_direct",
    ]


def test_every_upstream_has_a_line_of_its_own() -> None:
    policy = PolicyConfig(upstream=(parse_upstream("8.8.8.8"), parse_upstream("2001:4860:4860::8888#5353")))
    assert body(dnsmasq.paired(ONE, policy)) == [
        "server=/a.com/8.8.8.8#53",
        "server=/a.com/2001:4860:4860::8888#5353",
        "ipset=/a.com/gfwlist,gfwlist6",
    ]


def test_nftset_names_both_families_on_one_line() -> None:
    lines = body(dnsmasq.paired(ONE, POLICY, sets=nftables.set_names(POLICY)))
    assert lines[1] == "nftset=/a.com/4#inet#gfwtools#gfwlist4,6#inet#gfwtools#gfwlist6"


def test_the_header_has_the_lists_date_and_a_digest_and_no_clock() -> None:
    text = dnsmasq.paired(COVER, POLICY, list_date="Thu, 06 Aug 2026 08:35:22 +0000")
    assert "# list: Thu, 06 Aug 2026 08:35:22 +0000\n" in text
    assert re.search(r"^# digest: [0-9a-f]{16}$", text, re.MULTILINE)
    assert text == dnsmasq.paired(COVER, POLICY, list_date="Thu, 06 Aug 2026 08:35:22 +0000")


def test_a_list_that_only_moves_its_lines_changes_nothing_but_the_order_of_nothing() -> None:
    lines = ["||a.com", "||b.com", "@@||x.a.com", "||c.org"]
    one, other = ("\n".join(lines), "\n".join(reversed(lines)))
    assert dnsmasq.paired(gfwtools.compile(one).cover(), POLICY) == dnsmasq.paired(
        gfwtools.compile(other).cover(), POLICY
    )


@given(st.lists(st.sampled_from(HOSTILE)).map("".join))
def test_a_hostile_date_adds_no_line(date: str) -> None:
    text = dnsmasq.paired(Cover([], []), POLICY, list_date=date)
    assert len(text.splitlines()) == 4
    assert all(line.startswith("# ") for line in text.splitlines())


SEED_LINE = re.compile(r"(create|add) gfwlist(6|_direct)? [0-9a-z:./ ]+ -exist")


@settings(max_examples=400, deadline=None)
@given(hostile_text, hostile_text, hostile_text, st.sampled_from(sorted(FORMATS)))
def test_no_text_of_a_list_puts_a_line_a_slash_or_a_hash_into_a_file(
    text: str, allow: str, deny: str, format: str
) -> None:
    compiled = compile_lists(
        Listing("x", text, format), allow=[Listing("a", allow, "domains")], deny=[Listing("d", deny, "domains")]
    )
    name = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
    conf = read_conf(dnsmasq.paired(compiled.cover, POLICY))
    assert all(name.fullmatch(pattern) for table in conf.values() for pattern in table)
    assert set(conf["server"].values()) <= {"8.8.8.8#53", "#"}
    assert set(conf["ipset"].values()) <= {"gfwlist,gfwlist6", "gfwlist_direct"}
    seeds = compiled.policy.seeds()
    assert all(SEED_LINE.fullmatch(line) for line in body(ipset.seed(POLICY, seeds)))
    assert all(re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", line) for line in body(plain.domains(compiled.cover)))


def test_ten_megabytes_on_one_line_are_one_dropped_rule() -> None:
    compiled = compile_lists(Listing("x", "||ok.com\n||" + "a" * 10_000_000 + "\n@@" + "." * 10_000_000))
    assert compiled.cover.tunnelled == ["ok.com"]
    assert compiled.counts().dropped == {"name": 1, "keyword": 1} or sum(compiled.counts().dropped.values()) == 2


@settings(max_examples=15, deadline=None)
@given(lists, domains, hostile_text)
def test_dnsmasq_accepts_what_any_list_comes_to(tmp_path_factory, text: str, allow: list[str], deny: str) -> None:  # type: ignore[no-untyped-def]
    lists = {"allow": [Listing("a", "\n".join(allow), "domains")], "deny": [Listing("d", deny, "domains")]}
    policy = compile_lists(Listing("x", text), **lists).policy
    path = tmp_path_factory.mktemp("conf") / "gfwlist.conf"
    for text in TEXTS.values():
        path.write_text(dnsmasq.paired(policy.cover(), POLICY, sets=text.names(POLICY)))
        dnsmasq_accepts(path)


def test_the_ipset_seed_holds_resolvers_ip_rules_and_seeds_of_both_families() -> None:
    policy = PolicyConfig(
        upstream=(parse_upstream("8.8.8.8"), parse_upstream("2001:4860:4860::8888")),
        seeds=(ip_network("91.108.4.0/22"),),
    )
    adds = [line for line in body(ipset.seed(policy, [ip_network("85.17.73.31")])) if line.startswith("add")]
    assert adds == [
        "add gfwlist 8.8.8.8 -exist",
        "add gfwlist 85.17.73.31 -exist",
        "add gfwlist 91.108.4.0/22 -exist",
        "add gfwlist6 2001:4860:4860::8888 -exist",
    ]


def test_the_nftables_seed_is_apart_from_the_set_that_dnsmasq_fills() -> None:
    text = nftables.seed(POLICY, [ip_network("85.17.73.31")])
    assert "add element inet gfwtools gfwlist_seed4 { 8.8.8.8/32, 85.17.73.31/32 }" in text
    assert "add set inet gfwtools gfwlist4 { type ipv4_addr; }" in text
    assert "flush set inet gfwtools gfwlist4" not in text
