"""The lines of lists in other formats than gfwlist's own: what each is read as, and what is told of those that are no
rule."""

from pathlib import Path

import pytest

from gfwtools.lists.compiler import Compiled, compile_lists
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import FORMATS, Listing, OtherFormat, looks_like, parse
from gfwtools.lists.locator import Locator
from gfwtools.lists.suffixes import bundled


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
def test_an_option_of_dnsmasq_without_a_domain_is_counted_and_blocks_nothing(line: str) -> None:
    listing = f"{line}\nserver=/example.com/8.8.8.8\n"
    assert compiled(listing, "dnsmasq").counts().dropped == {"name": 1}
    assert compiled(listing, "dnsmasq").cover.tunnelled == ["example.com"]
    assert details(line, "dnsmasq") == ["no valid host name (no server=/name/address)"]


@pytest.mark.parametrize("network", ["91.108.4.0/22", "8.0.0.0/8", "2001:67c:4e8::/48", "192.0.2.1/32"])
def test_a_network_in_a_fetched_list_of_domains_is_a_seed(network: str) -> None:
    found = compiled(f"{network}  # a messenger\nexample.com\n", "domains")
    assert [str(seed) for seed in found.seeds] == [network]
    assert found.counts() == (2, 2, 0, 0, {})


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/0",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "192.0.0.0/3",
        "127.0.0.0/8",
        "127.1.0.0/16",
        "169.254.0.0/15",
        "224.0.0.0/8",
        "255.255.255.0/24",
        "::/0",
        "::/96",
        "::/64",
        "2000::/3",
        "fe80::/64",
        "ff00::/12",
        "::ffff:127.0.0.0/104",
        "::ffff:0:0/90",
        "::7f00:0/100",
    ],
)
def test_a_network_in_a_fetched_list_with_an_address_that_is_no_sites_is_refused(network: str) -> None:
    found = compiled(f"{network}\n", "domains")
    assert found.counts().dropped == {"address": 1}
    assert not found.seeds


def test_a_network_in_gfwlists_own_format_is_a_seed_and_no_address_with_a_path() -> None:
    assert [str(seed) for seed in compiled("||91.108.4.0/22\n", "autoproxy").seeds] == ["91.108.4.0/22"]


@pytest.mark.parametrize(
    "line",
    [
        "regexp:^foo$",
        r"regexp:(^|\.)foo\.com$",
        "payload:",
        "keyword:163",
        "keyword:google",
        "full:www.example.net",
        "domain:example.net",
        "include:google",
        "example.net @cn",
        "- '+.example.net'",
        "+.example.net",
        "DOMAIN-SUFFIX,example.net",
        "a.example.net b.example.net",
        "0.0.0.0 example.net",
        "server=/example.net/8.8.8.8",
        '"example.net",',
        "-",
    ],
)
def test_a_line_of_another_format_among_plain_domains_is_dropped_whole(line: str) -> None:
    found = compiled(f"example.com\n{line}\n", "domains")
    assert found.cover.tunnelled == ["example.com"]
    assert found.counts().dropped == {"name": 1}


LISTS = {
    "autoproxy": "[AutoProxy 0.2.9]\n! a comment\n||example.com\n@@||www.example.com\n|http://a.example.net/x\n.example.org\n",
    "domains": "# a comment\nexample.com\nwww.example.net  # why\n.example.org\n203.0.113.0/24\n",
    "hosts": "# a comment\n127.0.0.1 localhost\n::1 localhost\n0.0.0.0 example.com www.example.com\n0 example.net\n",
    "dnsmasq": "# a comment\nserver=/example.com/8.8.8.8\naddress=/example.net/0.0.0.0\nipset=/example.org/gfw\n",
}
OTHERS = {
    "v2fly": "# a comment\nexample.com\nfull:www.example.com\ninclude:google @cn\nregexp:^a[0-9]+$\n",
    "v2fly ": "example.com\nexample.net @ads\nexample.org @cn @!ads # why\n",
    "Clash": "payload:\n  - '+.example.com'\n  - example.net\n",
    "Clash ": "# text\n+.example.com\n+.example.net\n",
    "Clash  ": "payload:\n  - DOMAIN-SUFFIX,example.com\n  - IP-CIDR,203.0.113.0/24,no-resolve\n",
    "Surge": "// a comment\nDOMAIN-SUFFIX,example.com\nDOMAIN,www.example.net\nIP-CIDR,203.0.113.0/24\n",
    "sing-box": '{"version":3,"rules":[{"domain_suffix":["example.com"],"ip_cidr":["203.0.113.0/24"]}]}',
    "sing-box ": '{\n  "rules": [\n    {"domain": ["example.com"]}\n  ],\n  "version": 1\n}\n',
    "sing-box  ": "SRS\3\0\0binary",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("written", LISTS)
def test_a_list_in_a_format_that_can_be_read_is_named_where_another_was_said(written: str, format: str) -> None:
    found = looks_like(LISTS[written], format)
    if format == written or (format, written) == ("autoproxy", "domains"):  # a name alone is a rule of AutoProxy's
        assert found is None
    else:
        assert found == OtherFormat(f"it looks like {written}, not {format}", written)
        assert found.remedy == f'write format = "{written}"'


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("written", OTHERS)
def test_a_list_in_a_format_that_cannot_be_read_is_named(written: str, format: str) -> None:
    found = looks_like(OTHERS[written], format)
    assert found
    assert written.strip() in found.what
    assert found.what.endswith("gfwtools cannot read")
    assert found.remedy == "give one in autoproxy, domains, hosts or dnsmasq"


def test_the_base64_of_gfwlist_is_named_where_another_format_was_said() -> None:
    found = looks_like("W0F1dG9Qcm94eSAwLjIuOV0KISBD\n", "domains")
    assert found
    assert found.format == "autoproxy"


@pytest.mark.parametrize(
    "stray", ["full:www.example.com", "payload:", "DOMAIN-SUFFIX,example.org", "0.0.0.0 example.org"]
)
@pytest.mark.parametrize("format", ["autoproxy", "domains"])
def test_a_stray_line_of_another_format_refuses_no_list(stray: str, format: str) -> None:
    assert looks_like(f"example.com\n{stray}\nexample.net\n", format) is None


def test_a_real_list_is_never_taken_for_one_in_another_format(real_lists: list[Path]) -> None:
    for path in real_lists:
        assert looks_like(decode(path.read_bytes()).text, "autoproxy") is None
    for path in real_lists[0].parent.glob("*.china.conf"):
        assert looks_like(path.read_text(), "dnsmasq") is None
    for path in real_lists[0].parent.glob("chnroutes-*.txt"):
        assert looks_like(path.read_text(), "domains") is None


@pytest.mark.parametrize("mark", ["##", "#@#", "#?#", "#$#"])
def test_among_plain_domains_a_rule_to_hide_a_part_of_a_page_is_dropped(mark: str) -> None:
    assert compiled(f"example.com{mark}.ad\n", "domains").counts().dropped == {"keyword": 1}
    assert compiled(f"example.com {mark} why\n", "domains").cover.tunnelled == ["example.com"]


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("b.com", "no address before the name"),
        ("d.com www.e.com", "no address before the name"),
        ("dead.beef c.com", "no address before the name"),
        ("0.0.0.0 # nothing", "no name behind the address"),
    ],
)
def test_a_line_of_hosts_without_an_address_or_a_name_is_counted_and_blocks_nothing(line: str, missing: str) -> None:
    listing = f"{line}\n0.0.0.0 example.com  # one\n::1%lo0\texample.net\n0 example.org\n# no line\n"
    assert compiled(listing, "hosts").counts() == (4, 3, 0, 0, {"name": 1})
    assert compiled(listing, "hosts").cover.tunnelled == ["example.com", "example.net", "example.org"]
    assert details(line, "hosts") == [f"no valid host name ({missing})"]


def test_the_names_of_the_host_itself_in_a_hosts_file_are_never_blocked() -> None:
    head = (
        "127.0.0.1 localhost localhost.localdomain local\n255.255.255.255 broadcasthost\n::1 ip6-localhost ip6-loopback\n"
        "fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
        "ff02::3 ip6-allhosts\n0.0.0.0 0.0.0.0\n0.0.0.0 x.ip6-allnodes\n"
    )
    found = compiled(head, "hosts")
    assert found.cover.tunnelled == []
    assert not found.seeds


@pytest.mark.parametrize("text", ["corp\nlan\n", b"corp\nlan\n", "W0F1dG9Q\nlan\n"])
def test_only_gfwlists_own_format_is_in_base64_as_well(text: str | bytes) -> None:
    assert len(parse(text, "domains")) == 2


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("domains", "a.com\nB.com\nprinter.lan\n*.c.com # x\n1.2.3.0/24\n\ufeffd.com\nword\n||e.com^\na.com.\n"),
        ("hosts", "0 a.com\n0.0.0.0\tb.com\n::1 c.com\n0 d.com e.com # x\n0 F.com\nx g.com\n0\n"),
        (
            "dnsmasq",
            "server=/a.com/1\nserver=/b.com/#\nipset=/c.com/x,y\nserver=/d.com/e.com/1\nport=1\nlocal=/f.com/\n",
        ),
    ],
)
def test_a_scan_gives_the_names_that_the_rules_give(format: str, text: str) -> None:
    locator, listing = Locator(bundled()), Listing("list", text, format)
    found: list[tuple[int, tuple[str, ...]]] = []
    for names, lines, rules in listing.scan():
        found += [(line, (name,)) for line, name in zip(lines, locator.domains(names), strict=True)]
        found += [(rule.line, locator.locate(rule).domains) for rule in rules]
    assert sorted(found) == [(rule.line, locator.locate(rule).domains) for rule in listing.rules()]


@pytest.mark.parametrize("format", FORMATS)
def test_a_question_about_a_name_keeps_no_rule_about_others(format: str) -> None:
    line = {"hosts": "0 {}", "dnsmasq": "server=/{}/1"}.get(format, "{}")
    text = "".join(line.format(name) + "\n" for name in ("a.com", "X.ORG", "b.a.com", "com", "org", "c.org"))
    names, _, rules = Listing("list", text, format).scan_about("a.com")
    assert {*names, *(rule.host for rule in rules)} == {"a.com", "b.a.com", "com"}
