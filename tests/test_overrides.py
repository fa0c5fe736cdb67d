"""Which lines of the user's decide a listed name in place of ours."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from trees import Tree, host

from gfwtools.dnsmasq import own_lines
from gfwtools.dnsmasq.conf import Line
from gfwtools.dnsmasq.overrides import Asked, Listed, Override, changing, in_conf, in_hosts, words
from gfwtools.system.commands import System

LISTED = Listed({"gfwlist": ["x.example", "deep.under.example", "google"]}, ["free.x.example", "*.half.x.example"])
ASKED = {"gfwlist": Asked(frozenset({"8.8.8.8#53", "2001:db8::1#53"}), "ipset", frozenset({"gfwlist", "gfwlist6"}))}


def found(text: str, *, before: int | None = 0) -> list[Override]:
    name, _, value = text.partition("=")
    return list(in_conf([Line(name, value, "/etc/own.conf", 7)], before, LISTED, ASKED))


OVERRIDING = [
    "server=/x.example/192.0.2.53",
    "server=/x.example/192.0.2.53#5353",
    "server=/free.example/X.Example./192.0.2.53",
    "server=/x.example/#",
    "server=/x.example/8.8.8.8#5353",
    "server=/x.example/8.8.8.8@eth0",
    "server=/www.x.example/192.0.2.53",
    "server=/*.x.example/192.0.2.53",
    "server=/*w.x.example/192.0.2.53",
    "server=/www.google/192.0.2.53",
    "local=/www.x.example/",
    "local=/*.x.example/",
    "address=/x.example/192.0.2.66",
    "address=/x.example/::1",
    "ipset=/www.x.example/other",
    "ipset=/www.x.example/gfwlist",
    "domain=www.x.example,192.0.2.0/24,local",
    "host-record=free.example,www.x.example,192.0.2.66,60",
    "cname=x.example,other.example",
    "cname=*.x.example,other.example,60",
    "interface-name=www.x.example,eth0",
    "dynamic-host=www.x.example,0.0.0.8,eth0",
    "auth-zone=x.example",
    "auth-zone=www.x.example,192.0.2.0/24",
]
HARMLESS = [
    "server=192.0.2.53",
    "server=//192.0.2.53",
    "server=/#/192.0.2.53",
    "server=/example/192.0.2.53",
    "server=/under.example/192.0.2.53",
    "server=/other.example/192.0.2.53",
    "server=/notx.example/192.0.2.53",
    "server=/free.x.example/192.0.2.53",
    "server=/a.free.x.example/192.0.2.53",
    "server=/a.half.x.example/192.0.2.53",
    "server=/*x.example/192.0.2.53",
    "server=/x.example/8.8.8.8",
    "server=/x.example/2001:0db8::1",
    "server=/www.x.example/8.8.8.8#53",
    "local=/x.example/",
    "address=/x.example/",
    "address=/#/192.0.2.66",
    "ipset=/#/other",
    "ipset=/x.example/other",
    "ipset=/*.x.example/other",
    "ipset=/www.x.example/other,gfwlist,gfwlist6",
    "nftset=/www.x.example/4#inet#own#other",
    "domain=x.example",
    "domain=www.x.example",
    "host-record=other.example,192.0.2.66",
    "cname=other.example,x.example",
]


@pytest.mark.parametrize("line", OVERRIDING)
def test_a_line_that_decides_a_listed_name_is_an_override(line: str) -> None:
    (override,) = found(line)
    assert (override.place, override.text, override.policy) == ("/etc/own.conf line 7", line, "gfwlist")
    assert not override.is_block


@pytest.mark.parametrize("line", HARMLESS)
def test_a_line_that_decides_no_listed_name_is_none(line: str) -> None:
    assert found(line) == []


def test_of_two_set_lines_for_one_domain_the_first_one_counts() -> None:
    line = "ipset=/x.example/other"
    assert [override.text for override in found(line, before=1)] == [line]
    assert found("ipset=/x.example/gfwlist,gfwlist6", before=1) == []


def test_where_ours_name_no_domain_a_line_without_a_server_decides_as_well() -> None:
    assert len(found("local=/x.example/", before=None)) == 1


@pytest.mark.parametrize(
    ("line", "is_block"),
    [
        ("address=/ads.x.example/0.0.0.0", True),
        ("address=/ads.x.example/#", True),
        ("address=/ads.x.example/", True),
        ("host-record=ads.x.example,::", True),
        ("address=/x.example/0.0.0.0", False),
        ("address=/ads.x.example/192.0.2.66", False),
    ],
)
def test_a_name_without_an_address_below_a_listed_domain_is_blocked_by_the_user(line: str, is_block: bool) -> None:
    assert [override.is_block for override in found(line)] == [is_block]


def test_a_hosts_file_decides_the_names_in_it_and_none_below() -> None:
    text = "127.0.0.1 localhost # x.example\n192.0.2.66\tother.example WWW.x.example\n0.0.0.0 ads.x.example\n"
    overrides = list(in_hosts("/etc/hosts", text, LISTED))
    assert [(o.domain, o.number, o.is_block) for o in overrides] == [
        ("www.x.example", 2, False),
        ("ads.x.example", 3, True),
    ]
    assert LISTED.decides(overrides[0], "www.x.example")
    assert not LISTED.decides(overrides[0], "a.www.x.example")


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("server=/www.x.example/192.0.2.53", "www.x.example", True),
        ("server=/www.x.example/192.0.2.53", "a.www.x.example", True),
        ("server=/www.x.example/192.0.2.53", "x.example", False),
        ("server=/www.x.example/192.0.2.53", "notwww.x.example", False),
        ("server=/*.x.example/192.0.2.53", "x.example", False),
        ("server=/*.x.example/192.0.2.53", "www.x.example", True),
        ("server=/*w.x.example/192.0.2.53", "www.x.example", True),
        ("server=/x.example/192.0.2.53", "a.free.x.example", False),
    ],
)
def test_an_override_decides_the_names_that_dnsmasq_would_match(line: str, name: str, expected: bool) -> None:
    assert LISTED.decides(found(line)[0], name) == expected


# ---------------------------------------------------------------- the files

LISTS: Tree = {
    "var/lib/gfwtools/gfwlist.domains": "x.example\n",
    "var/lib/gfwtools/gfwlist.direct": "free.x.example\n",
    "etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d/,*.conf\n",
    "etc/dnsmasq.d/gfwlist.conf": "server=/x.example/8.8.8.8#53\nipset=/x.example/gfwlist,gfwlist6\n",
}
LINE = "\n# mine\nserver=/x.example/192.0.2.53\n"
PLACES: list[tuple[Tree, str]] = [
    ({"etc/dnsmasq.d/own.conf": LINE}, "/etc/dnsmasq.d/own.conf line 3"),
    ({"etc/dnsmasq.d/a.conf": "servers-file=/etc/own\n", "etc/own": LINE}, "/etc/own line 3"),
    ({"etc/dnsmasq.d/a.conf": "conf-file=/etc/own\n", "etc/own": LINE}, "/etc/own line 3"),
    ({"etc/dnsmasq.d/a.conf": "conf-dir=/etc/own,.bak\n", "etc/own/b": LINE, "etc/own/b.bak": LINE}, "/etc/own/b line 3"),
    ({"etc/hosts": "\n192.0.2.66 x.example\n"}, "/etc/hosts line 2"),
    ({"etc/dnsmasq.d/a.conf": "addn-hosts=/etc/own\n", "etc/own/b": "192.0.2.66 x.example\n"}, "/etc/own/b line 1"),
    ({"etc/dnsmasq.d/a.conf": "hostsdir=/etc/own\n", "etc/own/b": "192.0.2.66 x.example\n"}, "/etc/own/b line 1"),
    ({"etc/dnsmasq.d/a.conf": "ipset=/x.example/other\n"}, "/etc/dnsmasq.d/a.conf line 1"),
]  # fmt: skip


def places(tmp_path: Path, tree: Tree) -> list[str]:
    config = host(tmp_path, {**LISTS, **tree}, '[host]\nbackend = "iptables"\n')
    return [override.place for override in own_lines.find(config, System())]


@pytest.mark.parametrize(("tree", "place"), PLACES)
def test_every_file_that_dnsmasq_reads_is_looked_through(tmp_path: Path, tree: Tree, place: str) -> None:
    assert places(tmp_path, tree) == [place]


def test_files_that_dnsmasq_does_not_read_do_not_count(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.d/own": LINE, "etc/dnsmasq.d/own.conf.bak": LINE, "etc/dnsmasq.d/own.conf~": LINE}
    assert places(tmp_path, tree) == []


def test_a_set_line_that_is_read_after_ours_does_not_count(tmp_path: Path) -> None:
    assert places(tmp_path, {"etc/dnsmasq.d/z.conf": "ipset=/x.example/other\n"}) == []


def test_a_file_with_many_lines_is_named_with_their_numbers(tmp_path: Path) -> None:
    lines = "server=/x.example/192.0.2.53\n" * 5 + "\nserver=/www.x.example/192.0.2.53\n"
    config = host(tmp_path, {**LISTS, "etc/dnsmasq.d/own.conf": lines}, '[host]\nbackend = "iptables"\n')
    overrides = own_lines.find(config, System())
    assert words(overrides).endswith("; and /etc/dnsmasq.d/own.conf line 4-5, 7")
    assert own_lines.remedy(config, overrides).startswith("remove these lines from /etc/dnsmasq.d/own.conf, then: ")


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("alias=203.0.113.7,192.0.2.66", True),
        ("alias=203.0.113.0,192.0.2.0,255.255.255.0", True),
        ("alias=203.0.113.1-203.0.113.9,192.0.2.1,255.255.255.0", True),
        ("alias=203.0.113.8,192.0.2.66", False),
        ("bogus-nxdomain=203.0.113.0/24", True),
        ("bogus-nxdomain=192.0.2.66", False),
        ("ignore-address=203.0.113.7", True),
        ("ignore-address=2001:db8::/32", False),
        ("filter-A", True),
        ("filter-rr=TXT,A", True),
        ("filter-rr=AAAA", False),
    ],
)
def test_a_line_that_changes_the_answer_of_the_clean_resolver_is_found(line: str, changes: bool) -> None:
    name, _, value = line.partition("=")
    lines = [Line(name, value, "/etc/own.conf", 7)]
    found = [override.place for override in changing(lines, "x.example", "gfwlist", [ip_address("203.0.113.7")])]
    assert found == (["/etc/own.conf line 7"] if changes else [])


def test_a_short_name_of_a_hosts_file_gets_the_domain_of_the_host() -> None:
    text = "192.0.2.66 nas www\n"
    assert list(in_hosts("/etc/hosts", text, LISTED)) == []
    found = list(in_hosts("/etc/hosts", text, LISTED, "x.example"))
    assert [override.domain for override in found] == ["nas.x.example", "www.x.example"]
