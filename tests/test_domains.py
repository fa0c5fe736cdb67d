"""Each sentence of the semantics of a list: what a rule's host pattern comes to as a domain."""

import pytest

import gfwtools
from gfwtools.errors import InvalidNameError
from gfwtools.lists.answer import name_in
from gfwtools.lists.autoproxy import parse_line
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.formats import Listing, parse_domains
from gfwtools.lists.locator import Locator, Reason, Target
from gfwtools.lists.suffixes import bundled


def locate(line: str, granularity: str = "registrable") -> Target:
    rule = parse_line(line)
    assert rule is not None
    return Locator(bundled(), granularity).locate(rule)


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        ("||www.example.co.uk", "example.co.uk"),
        ("||example.com/path", "example.com"),
        ("|http://a.b.example.com/x", "example.com"),
        (".example.com", "example.com"),
        ("www.example.com/path", "example.com"),
        ("||neodb.social ", "neodb.social"),
        ("||example.com:80*", "example.com"),
        ("||example.com:8*0/x", "example.com"),
        ("|http://user@example.com/", "example.com"),
        ("|http://user:p@ss@www.example.com:80/x", "example.com"),
        ("||someone.github.io", "someone.github.io"),
        ("||中国.example.cn", "example.cn"),
    ],
)
def test_a_block_is_its_registrable_domain(line: str, domain: str) -> None:
    assert locate(line).domains == (domain,)


@pytest.mark.parametrize(
    ("line", "domain"),
    [("||www.example.co.uk", "www.example.co.uk"), ("|https://a.b.example.com/x", "a.b.example.com")],
)
def test_with_host_granularity_a_block_is_its_host(line: str, domain: str) -> None:
    assert locate(line, "host").domains == (domain,)
    assert not locate(line, "host").wider


@pytest.mark.parametrize(
    "name", ["github.io", "appspot.com", "googleapis.com", "workers.dev", "google", "goog", "gle", "gov.tw"]
)
@pytest.mark.parametrize("granularity", ["registrable", "host"])
def test_a_public_suffix_that_is_blocked_itself_is_kept_as_written(name: str, granularity: str) -> None:
    assert locate(f"||{name}", granularity) == Target((name,))


@pytest.mark.parametrize(
    "name",
    ["mp", "tw", "com", "net", "org", "edu", "gov", "info", "app", "dev", "com.cn", "co.uk", "xn--fiqs8s", "中国",
     "foo.ck", "xn--55qx5d.cn"],
)  # fmt: skip
@pytest.mark.parametrize("granularity", ["registrable", "host"])
def test_a_fetched_list_may_not_block_a_whole_suffix_of_a_registry(name: str, granularity: str) -> None:
    assert locate(f"||{name}", granularity).reason is Reason.TLD


@pytest.mark.parametrize("name", ["com.cn", "app", "lan", "use-application-dns.net"])
def test_the_users_own_list_may_block_what_a_fetched_one_may_not(name: str) -> None:
    assert gfwtools.compile("", deny=[name]).lookup(name).verdict == "tunnel"


@pytest.mark.parametrize("granularity", ["registrable", "host"])
def test_the_account_of_refused_suffixes_is_that_of_the_outcomes(granularity: str) -> None:
    text = "||com.cn\n||a.com\n||use-application-dns.net\n||foo.ck\n||xn--fiqs8s\n||google\n||printer.lan\n||co.uk\n"
    compiled = compile_lists(Listing("list", text), granularity=granularity)
    assert {*compiled.policy.blocks} == {"a.com", "google"}
    assert compiled.counts().dropped == {"tld": 4, "reserved": 2}
    assert [outcome.status.value for outcome in compiled.outcomes()].count("dropped") == 6


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        ("||cdn*.i-scmp.com", "i-scmp.com"),
        ("|http://*.pimg.tw/", "pimg.tw"),
        ("||s3-ap-*.amazonaws.com", "amazonaws.com"),
        ("|https://fbcdn*.akamaihd.net/", "akamaihd.net"),
        ("|https://ss*.4sqi.net", "4sqi.net"),
        ("|http://*2.bahamut.com.tw", "bahamut.com.tw"),
        ("||a.*.b.example.com", "example.com"),
        ("hk*.nextmedia.com", "nextmedia.com"),
    ],
)
def test_a_label_with_a_wildcard_is_widened_to_its_parent(line: str, domain: str) -> None:
    found = locate(line)
    assert found.domains == (domain,)
    assert found.wider


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        ("*site.com", "site.com"),
        ("||*site.com", "site.com"),
        ("*://*.site.com/*", "site.com"),
        ("*://site.com/*", "site.com"),
        ("://site.com", "site.com"),
        ("//site.com/x", "site.com"),
        ("|*://www.site.co.uk/x", "site.co.uk"),
    ],
)
def test_a_wildcard_before_a_whole_host_means_that_host(line: str, domain: str) -> None:
    assert locate(line).domains == (domain,)


@pytest.mark.parametrize(
    ("line", "domain"), [("hk.*yahoo.com", "yahoo.com"), (".googlw.*president.gov.tw", "president.gov.tw")]
)
def test_what_ends_a_label_with_a_wildcard_is_kept_before_an_icann_suffix(line: str, domain: str) -> None:
    found = locate(line)
    assert found.domains == (domain,)
    assert found.wider


@pytest.mark.parametrize(
    "line", ["|http:/www.site.com", "||http:/www.site.com/x", "https:/www.site.com", "|http*:/www.site.com|"]
)
def test_a_scheme_with_one_slash_is_a_scheme(line: str) -> None:
    assert locate(line).domains == ("site.com",)


@pytest.mark.parametrize(
    ("line", "network"),
    [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("||203.0.114.0/24^", "203.0.114.0/24"),
        ("||203.0.114.0/24$third-party", "203.0.114.0/24"),
        ("|198.51.100.0/255.255.255.0", "198.51.100.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("||[2001:db8:1::]/48^", "2001:db8:1::/48"),
        ("@@||203.0.113.0/25", "203.0.113.0/25"),
        ("|http://203.0.113.0/24", "203.0.113.0/32"),
        ("||203.0.113.0/2024", "203.0.113.0/32"),
        ("||203.0.113.0/24/x", "203.0.113.0/32"),
    ],
)
def test_a_network_is_a_network_and_behind_a_scheme_an_address_with_a_path(line: str, network: str) -> None:
    assert str(locate(line).network) == network


def test_an_exception_for_a_network_of_one_kind_of_request_is_narrow() -> None:
    assert locate("@@||203.0.113.0/24$image").reason is Reason.NARROW


@pytest.mark.parametrize("label", ["-", "-a", "a-", "x.-", "x.-.b", "a-.b", "-x.b"])
@pytest.mark.parametrize("before", ["||", "|http://", "@@||"])
def test_a_label_that_begins_or_ends_with_a_hyphen_is_reported(label: str, before: str) -> None:
    found = locate(f"{before}{label}.com")
    assert found.reason is Reason.NAME
    assert "hyphen" in found.detail


@pytest.mark.parametrize("line", ["||google/a", "|http://google/", "||google:80", "||facebook", "|google", "||-"])
def test_a_name_without_a_dot_that_may_be_a_word_is_no_domain(line: str) -> None:
    assert not locate(line).domains


@pytest.mark.parametrize("line", ["||google", "||google^", "||google/", "||Google ", "@@||台灣", "@@||google"])
def test_a_name_without_a_dot_is_a_domain_where_the_line_can_mean_nothing_else(line: str) -> None:
    assert locate(line).domains


def test_with_host_granularity_a_wildcard_is_widened_no_further_than_its_parent() -> None:
    assert locate("||cdn*.img.example.com", "host").domains == ("img.example.com",)


@pytest.mark.parametrize("line", ["||*.com", "||x*.co.uk", "|http://*.gov.tw/", "*co.uk", "||hk.*-cdn.com", "hk*x.com"])
def test_widening_never_reaches_an_icann_suffix(line: str) -> None:
    assert locate(line).reason is Reason.SUFFIX


@pytest.mark.parametrize("line", ["||*.github.io", "|https://x*.blogspot.com"])
def test_widening_stops_at_a_private_suffix(line: str) -> None:
    assert locate(line).domains == (line.rpartition("*.")[2] if "*." in line else "blogspot.com",)


@pytest.mark.parametrize("line", ["google.*", ".google.*/complete/search", ".google.*%E6%B1%9F", "||*.google.*"])
def test_an_open_top_level_domain_stands_for_the_known_domains_of_the_name(line: str) -> None:
    domains = locate(line).domains
    assert {"google.com", "google.co.uk", "google.com.hk"} <= set(domains)
    assert all(domain.startswith("google.") for domain in domains)


def test_labels_before_the_name_are_kept_with_host_granularity() -> None:
    assert "groups.google.com" in locate("groups.google.*group", "host").domains


def test_a_regex_on_blogspot_stands_for_its_known_domains() -> None:
    domains = locate(r"/^https?:\/\/[^\/]+blogspot\.(.*)/").domains
    assert {"blogspot.com", "blogspot.co.uk"} <= set(domains)


@pytest.mark.parametrize(
    ("line", "domain"),
    [
        (r"/^https?:\/\/[^\/]+facebook\.com/", "facebook.com"),
        (r"/^https?:\/\/([^\/]+\.)?twitter\.com\/.*\.html/", "twitter.com"),
        (r"/^https?:\/\/(?=.*?(2x3|ni5))[a-z0-9.-]+\.xn--ngstr-lra8j\.com$/", "xn--ngstr-lra8j.com"),
        (r"/example\.co\.uk/", "example.co.uk"),
    ],
)
def test_a_regex_with_one_literal_domain_gives_that_domain(line: str, domain: str) -> None:
    assert locate(line).domains == (domain,)


@pytest.mark.parametrize(
    "line",
    [
        r"/^https?:\/\/(a|b)\.com/",
        r"/a\.com|b\.com/",
        r"/[a-z]+/",
        r"/a\.com?/",
        r"/(((/",
        r"/\.com/",
        r"/a\.co\.uk.*b\.com/",
    ],
)
def test_any_other_regex_is_reported(line: str) -> None:
    assert locate(line).reason is Reason.REGEX


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("docs.google.com*View*id", "docs.google.com"),
        (".bbc.co.uk*chinese", "bbc.co.uk"),
        ("tcno.net*doc*tor", "tcno.net"),
    ],
)
def test_a_wildcard_that_begins_in_the_path_leaves_the_host_as_it_is(line: str, host: str) -> None:
    assert locate(line, "host").domains == (host,)


@pytest.mark.parametrize("line", ["keyword", "/search?q=cache", "index.php", "q=freedom", "%2Fsearch", "search*falun"])
def test_a_keyword_of_urls_is_no_dns_rule(line: str) -> None:
    assert locate(line).reason is Reason.KEYWORD


@pytest.mark.parametrize(
    ("line", "network"),
    [
        ("|http://85.17.73.31/", "85.17.73.31/32"),
        ("67.220.91.18", "67.220.91.18/32"),
        ("||85.17.73.31:8080/x", "85.17.73.31/32"),
        ("|http://[2607:f8b0::1]/", "2607:f8b0::1/128"),
    ],
)
def test_an_ip_rule_is_an_address_for_the_seed(line: str, network: str) -> None:
    found = locate(line)
    assert str(found.network) == network
    assert not found.domains


@pytest.mark.parametrize(
    "line", ["||127.0.0.1", "||0.0.0.0", "||255.255.255.255", "||169.254.1.1", "||224.0.0.1", "|http://[::1]/",
     "||10.0.0.0/8", "||192.168.1.1", "||172.16.0.0/12", "||100.64.0.0/10", "||240.0.0.1", "|http://[fd00::1]/",
     "|http://[::ffff:10.0.0.1]/"]
)  # fmt: skip
def test_an_address_that_can_be_no_sites_is_refused(line: str) -> None:
    assert locate(line).reason is Reason.ADDRESS


@pytest.mark.parametrize(
    "line", ["||1.2.3.400", "||1.2.3", "||a b.com", "||a..com", "||-\x00.com", "||" + "a" * 64 + ".com"]
)
def test_what_is_neither_a_name_nor_an_address_is_reported(line: str) -> None:
    assert locate(line).reason is Reason.NAME


@pytest.mark.parametrize("name", ["example.com..", "*.example.co.uk..", "*.co.uk.."])
def test_a_name_with_an_empty_label_at_its_end_is_reported_as_check_domain_does(name: str) -> None:
    found = locate(f"||{name}")
    assert found.reason is Reason.NAME
    assert "an empty label" in found.detail
    with pytest.raises(InvalidNameError, match="an empty label"):
        name_in(name)


def test_an_exception_stays_at_host_level() -> None:
    assert locate("@@||www.gstatic.com") == Target(("www.gstatic.com",))


@pytest.mark.parametrize(
    "line",
    ["@@||example.com/path", "@@|https://example.com", "@@||example.com:443", r"@@/^https?:\/\/x\.com/", "@@||*v6.facebook.com",
     "@@||www.google.*"],
)  # fmt: skip
def test_an_exception_for_less_than_a_host_is_reported_and_not_applied(line: str) -> None:
    found = locate(line)
    assert found.reason is Reason.NARROW
    assert not found.domains


def test_an_exception_may_free_what_is_under_a_name_and_not_the_name() -> None:
    assert locate("@@||*.tokenplus.app") == Target(("tokenplus.app",), under=True)


@pytest.mark.parametrize(
    "line", ["||2606:4700::1%x add gfwlist 0.0.0.0/1", "|http://[2606:4700::1%25eth0]/", "||fe80::1%a"]
)
def test_an_address_with_a_scope_is_no_address_for_a_seed(line: str) -> None:
    # Python's ipaddress takes any text at all behind the "%".
    assert locate(line).network is None


def test_an_expression_of_two_whole_urls_is_reported_and_not_half_applied() -> None:
    assert locate(r"/^https?:\/\/example\.com|^https?:\/\/example\.net/").reason is Reason.REGEX


def test_an_alternative_in_the_path_does_not_hide_the_host() -> None:
    assert locate(r"/^https?:\/\/example\.com\/(a|b)/").domains == ("example.com",)


@pytest.mark.parametrize("line", ["@@||cn", "@@||com", "@@||*.gov.cn"])
def test_an_exception_may_free_a_whole_suffix(line: str) -> None:
    assert locate(line).domains


def test_a_domain_with_nothing_but_suffixes_below_is_not_reached_by_widening() -> None:
    assert locate("||*.kawasaki.jp").reason is Reason.SUFFIX


@pytest.mark.parametrize(
    "line",
    ["||localhost", "||printer.local", "||localhost.localdomain", "||1.168.192.in-addr.arpa", "||router.home.arpa",
     "||nas.lan", "||box.home", "||db.internal", "||a.corp", "||a.test", "||x.gfwtools.invalid", "||a.alt", "||a.onion",
     "||use-application-dns.net", "||www.use-application-dns.net", "|http://nas.lan/x", "||*.nas.lan"],
)  # fmt: skip
def test_names_of_this_host_or_its_lan_are_not_sent_to_a_resolver_far_away(line: str) -> None:
    assert locate(line).reason is Reason.RESERVED


@pytest.mark.parametrize("name", ["lan", "home", "arpa", "internal", "wpad"])
def test_a_list_of_domains_may_not_block_a_name_of_the_lan(name: str) -> None:
    (rule,) = parse_domains(name)
    assert Locator(bundled()).locate(rule).reason is Reason.RESERVED
    assert Locator(bundled(), trusted=True).locate(rule).domains == (name,)


@pytest.mark.parametrize(
    "line",
    [
        "||1.2.3.4\u200b",
        "||１２７．０．０．１",
        "||127\u30020\u30020\u30021",
        "|http://85.17.73.31\u200b/",
        "||*.1.2.3.4",
        "@@||1.2.3.4\u00ad",
        "||1.2.3.4..",
    ],
)
def test_an_address_that_unicode_or_a_wildcard_dresses_up_is_never_a_name(line: str) -> None:
    target = locate(line)
    assert target.domains == ()
    assert target.reason is Reason.NAME


def test_an_address_with_a_trailing_dot_is_an_address() -> None:
    assert str(locate("||85.17.73.31.").network) == "85.17.73.31/32"


@pytest.mark.parametrize(
    "mark", ["##", "#@#", "#?#", "#@?#", "#$#", "#@$#", "#$?#", "#@$?#", "#%#", "#@%#", "$$", "$@$"]
)
def test_a_rule_to_hide_a_part_of_a_page_blocks_no_host(mark: str) -> None:
    assert locate(f"example.com{mark}.ad").reason is Reason.KEYWORD


def test_options_of_adblock_narrow_no_block_and_make_an_exception_narrow() -> None:
    assert locate("||example.com$third-party").domains == ("example.com",)
    assert locate("@@||example.com$third-party").reason is Reason.NARROW


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:224.0.0.1", "::ffff:0.0.0.0", "::127.0.0.1"])
def test_an_ipv4_address_that_is_no_sites_is_refused_in_its_ipv6_forms(address: str) -> None:
    compiled = compile_lists(Listing("x", f"||[{address}]\n"))
    assert compiled.counts().dropped == {"address": 1}


def test_a_network_with_a_netmask_in_a_users_list_is_that_network() -> None:
    compiled = compile_lists(Listing("x", ""), deny=[Listing("deny", "1.2.0.0/255.255.0.0\n", "domains")])
    assert "1.2.0.0/16" in str(compiled.seeds)


@pytest.mark.parametrize("suffix", ["公司.cn", "xn--55qx5d.cn", "co\u00ad.uk"])
def test_a_wildcard_below_a_suffix_is_dropped_however_the_suffix_is_written(suffix: str) -> None:
    assert compile_lists(Listing("x", f"||*.{suffix}\n")).counts().dropped == {"suffix": 1}
