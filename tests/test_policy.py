"""The policy's meaning, and that its smallest encoding means the same."""

from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import longest, read_conf, verdict
from strategies import domains, lists, names

import gfwtools
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.answer import answer
from gfwtools.lists.compiler import Status, compile_lists
from gfwtools.lists.formats import Listing
from gfwtools.lists.policy import Policy
from gfwtools.render import dnsmasq

granularities = st.sampled_from(["registrable", "host"])


def lookup(name: str, text: str, **lists: object) -> tuple[str, str | None, str]:
    return tuple(gfwtools.compile(text, **lists).lookup(name))  # type: ignore[arg-type, return-value]


def test_a_block_covers_what_is_under_it_and_nothing_beside_it() -> None:
    assert lookup("www.google.com", "||google.com") == ("tunnel", "google.com", "list")
    assert lookup("notgoogle.com", "||google.com") == ("direct", None, "none")


def test_an_exception_wins_over_every_block_it_covers_and_frees_nothing_else() -> None:
    text = "||gstatic.com\n||deep.www.gstatic.com\n@@||www.gstatic.com"
    for granularity in ("registrable", "host"):
        policy = gfwtools.compile(text, granularity=granularity)
        assert policy.lookup("www.gstatic.com").verdict == "direct"
        assert policy.lookup("deep.www.gstatic.com").verdict == "direct"
        assert policy.lookup("gstatic.com").verdict == "tunnel"
        assert policy.lookup("fonts.gstatic.com").verdict == "tunnel"


def test_an_exception_with_a_star_frees_what_is_under_the_name_and_not_the_name() -> None:
    policy = gfwtools.compile("||tokenplus.app\n@@||*.tokenplus.app")
    assert policy.lookup("tokenplus.app").verdict == "tunnel"
    assert policy.lookup("www.tokenplus.app") == ("direct", "*.tokenplus.app", "exception")


def test_the_users_lists_win_over_the_fetched_one() -> None:
    assert lookup("a.com", "||a.com", allow=["a.com"]) == ("direct", "a.com", "allow")
    assert lookup("www.b.com", "@@||www.b.com", deny=["b.com"]) == ("tunnel", "b.com", "deny")


def test_between_allow_and_deny_the_longer_domain_wins_and_deny_on_the_same() -> None:
    policy = gfwtools.compile("", allow=["b.com", "x.a.com"], deny=["a.com", "www.b.com", "b.com"])
    assert policy.lookup("x.a.com").verdict == "direct"
    assert policy.lookup("y.a.com").verdict == "tunnel"
    assert policy.lookup("www.b.com").verdict == "tunnel"
    assert policy.lookup("b.com").verdict == "tunnel"


def test_a_domain_that_is_both_allowed_and_denied_is_told() -> None:
    lists = {"allow": [Listing("allow.txt", "b.com", "domains")], "deny": [Listing("deny.txt", "\nb.com", "domains")]}
    problems = compile_lists(Listing("x", ""), **lists).problems
    assert [str(problem) for problem in problems] == ["allow.txt: line 1: b.com is in deny.txt line 2 too; deny wins"]


def test_an_empty_allow_list_excludes_nothing_and_a_domain_only_itself() -> None:
    assert lookup("reddit.com", "||reddit.com", allow=[]) == ("tunnel", "reddit.com", "list")
    assert lookup("reddit.com", "||reddit.com", allow=["t.co"]) == ("tunnel", "reddit.com", "list")
    assert lookup("reddit.com", "||reddit.com", allow=["", "# comment", "t.co # why"])[0] == "tunnel"


def test_the_users_deny_list_may_block_a_top_level_domain() -> None:
    assert lookup("example.mp", "", deny=["mp"])[0] == "tunnel"


def test_addresses_in_the_users_lists_go_to_the_seed_or_stay_out_of_it() -> None:
    policy = gfwtools.compile(
        "|http://85.17.73.31/\n|http://67.220.91.18/", deny=["91.108.4.0/22"], allow=["85.17.73.31"]
    )
    assert [str(network) for network in policy.seeds()] == ["67.220.91.18/32", "91.108.4.0/22"]


def _everything_near(policy: Policy) -> set[str]:
    """Every name that a list has, its ancestors, and names below."""
    listed = {*policy.blocks, *policy.exceptions, *policy.under, *policy.deny, *policy.allow}
    near = {"example.org", "com"}
    for name in listed:
        labels = name.split(".")
        near |= {".".join(labels[index:]) for index in range(len(labels))}
        near |= {f"zz.{name}", f"y.zz.{name}", f"zz{name}"}
    return {name for name in near if len(name) < 250}


@settings(max_examples=400, deadline=None)
@given(lists, domains, domains, granularities, st.lists(names, max_size=10))
def test_the_longest_suffix_match_over_the_file_is_the_policy(
    text: str, allow: list[str], deny: list[str], granularity: str, more: list[str]
) -> None:
    policy = gfwtools.compile(text, allow=allow, deny=deny, granularity=granularity)
    cover = policy.cover()
    conf = read_conf(dnsmasq.paired(cover, PolicyConfig(), unset=policy.unset(cover)))
    for name in {*_everything_near(policy), *more}:
        assert verdict(name, conf) == policy.lookup(name).verdict, name
        # Whatever is asked of the clean resolver goes into the set, and nothing else, but for names that only a
        # wildcard frees: of those dnsmasq knows none in a set line.
        match = policy.lookup(name)
        in_set = longest(name, conf["ipset"], wildcards=False) == "gfwlist,gfwlist6"
        by_wildcard = match.reason == "exception" and str(match.matched).startswith("*.")
        assert in_set == (match.verdict == "tunnel") or by_wildcard, name


@pytest.mark.parametrize(("allow", "more"), [(["www.example.com"], ""), ([], "@@||www.example.com\n")])
def test_what_is_freed_by_name_has_a_set_line_below_a_wildcard_that_frees_it_too(allow: list[str], more: str) -> None:
    policy = gfwtools.compile(f"||example.com\n@@||*.example.com\n{more}", allow=allow)
    cover = policy.cover()
    conf = read_conf(dnsmasq.paired(cover, PolicyConfig(), unset=policy.unset(cover)))
    assert conf["ipset"]["www.example.com"] == "gfwlist_direct"
    assert policy.unset(policy.cover()) == ["www.example.com"]
    outcome = list(compile_lists(Listing("x", f"||example.com\n@@||*.example.com\n{more}")).outcomes())[-1]
    assert outcome.status is Status.APPLIED


def test_below_a_wildcard_that_frees_nothing_no_name_needs_a_set_line() -> None:
    policy = gfwtools.compile("@@||*.example.com\n@@||www.example.com")
    assert policy.unset(policy.cover()) == []
    nested = "||example.com\n@@||*.example.com\n@@||a.example.com\n@@||*.a.example.com\n@@||b.a.example.com"
    policy = gfwtools.compile(nested)
    assert policy.unset(policy.cover()) == ["a.example.com"]


@settings(max_examples=200, deadline=None)
@given(lists, domains, domains, granularities)
def test_no_entry_of_the_cover_can_be_left_out(text: str, allow: list[str], deny: list[str], granularity: str) -> None:
    policy = gfwtools.compile(text, allow=allow, deny=deny, granularity=granularity)
    cover = policy.cover()
    servers = dict.fromkeys(cover.tunnelled, "8.8.8.8") | dict.fromkeys(cover.freed, "#")
    for pattern in servers:
        rest = {other: value for other, value in servers.items() if other != pattern}
        name = pattern.replace("*", "zz")
        assert verdict(name, {"server": rest}) != verdict(name, {"server": servers}), pattern


@settings(max_examples=300, deadline=None)
@given(lists, domains, domains, granularities)
def test_every_rule_is_accounted_for_and_the_numbers_are_those_of_the_outcomes(
    text: str, allow: list[str], deny: list[str], granularity: str
) -> None:
    compiled = compile_lists(
        Listing("x", text),
        allow=[Listing("allow", "\n".join(allow), "domains")],
        deny=[Listing("deny", "\n".join(deny), "domains")],
        granularity=granularity,
    )
    counts, outcomes = compiled.counts(), list(compiled.outcomes())
    found = {status: sum(outcome.status is status for outcome in outcomes) for status in Status}
    assert counts.read == len(outcomes)
    assert counts.applied == found[Status.APPLIED]
    assert counts.widened == found[Status.WIDENED]
    assert counts.redundant == found[Status.REDUNDANT]
    assert sum(counts.dropped.values()) == found[Status.DROPPED]
    assert all(outcome.detail for outcome in outcomes if outcome.status in (Status.REDUNDANT, Status.DROPPED))


@pytest.mark.parametrize("batch", [1, 2, 10_000])
def test_of_rules_for_one_domain_the_first_counts_whatever_their_kinds(batch: int) -> None:
    text = "|http://a.com/x\n||a.com\n||www.a.com\n||www.b.com\n.b.com/x\n||b.com"
    with patch("gfwtools.lists.rule.BATCH", batch):
        compiled = compile_lists(Listing("x", text))
    assert compiled.policy.blocks == {"a.com": 1, "b.com": 4}
    assert [(outcome.status, outcome.detail) for outcome in compiled.outcomes()] == [
        (Status.APPLIED, ""),
        *[(Status.REDUNDANT, "the same as line 1")] * 2,
        (Status.WIDENED, ""),
        *[(Status.REDUNDANT, "the same as line 4")] * 2,
    ]
    assert compiled.counts() == (6, 1, 1, 4, {})


names_of_a_line = st.lists(
    st.sampled_from(["a.com", "b.com", "www.a.com", "google.*", "*.b.com", "1.2.3.4", "5.6.7.8", "com", "-"]),
    min_size=1,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(names_of_a_line, st.booleans()), max_size=8), domains, granularities)
@pytest.mark.parametrize("format", ["hosts", "dnsmasq"])
def test_a_line_with_many_names_is_a_rule_for_each_of_them(
    format: str, lines: list[tuple[list[str], bool]], deny: list[str], granularity: str
) -> None:
    text = "\n".join(
        f"0.0.0.0 {' '.join(names)}" if format == "hosts" else f"server=/{'/'.join(names)}/{'#' if free else '8.8.8.8'}"
        for names, free in lines
    )
    deny_list = Listing("deny", "\n".join(deny), "domains")
    compiled = compile_lists(Listing("x", text, format), deny=[deny_list], granularity=granularity)
    counts, found = compiled.counts(), Counter(outcome.status for outcome in compiled.outcomes())
    assert counts.read == sum(len(names) for names, _ in lines)
    assert counts[1:4] == (found[Status.APPLIED], found[Status.WIDENED], found[Status.REDUNDANT])


_rules_of_a_line = st.lists(
    st.builds("{}{}{}".format, st.sampled_from(["||", "@@||", "|http://"]), names, st.sampled_from(["", "^", "/x"])),
    min_size=1,
    max_size=4,
)


@given(st.lists(_rules_of_a_line, max_size=8), domains, granularities)
def test_rules_on_one_line_mean_what_they_mean_on_lines_of_their_own(
    lines: list[list[str]], deny: list[str], granularity: str
) -> None:
    deny_list = Listing("deny", "\n".join(deny), "domains")
    together, apart = (
        compile_lists(
            Listing("x", "\n".join(sep.join(rules) for rules in lines)), deny=[deny_list], granularity=granularity
        )
        for sep in (" ", "\n")
    )
    assert together.cover == apart.cover
    assert together.counts() == apart.counts()
    statuses = [[outcome.status for outcome in compiled.outcomes()] for compiled in (together, apart)]
    assert statuses[0] == statuses[1]


def test_a_name_twice_on_a_line_is_redundant_once_and_cited_once() -> None:
    compiled = compile_lists(Listing("x", "0.0.0.0 a.com b.com\n0.0.0.0 www.c.com d.com www.c.com", "hosts"))
    assert compiled.counts() == (5, 3, 1, 1, {})
    assert [outcome.status.value for outcome in compiled.outcomes()] == [
        "applied",
        "applied",
        "widened",
        "applied",
        "redundant",
    ]
    assert [rule.line for rule in answer("c.com", [(PolicyConfig(), compiled)]).rules] == [2]


@settings(max_examples=150, deadline=None)
@given(lists, domains, granularities)
def test_a_redundant_rule_may_be_left_out_of_the_list(text: str, deny: list[str], granularity: str) -> None:
    compiled = compile_lists(
        Listing("x", text), deny=[Listing("deny", "\n".join(deny), "domains")], granularity=granularity
    )
    for outcome in compiled.outcomes():
        if outcome.status is Status.REDUNDANT:
            lines = text.split("\n")
            lines[outcome.rule.line - 1] = ""
            without = compile_lists(
                Listing("x", "\n".join(lines)),
                deny=[Listing("deny", "\n".join(deny), "domains")],
                granularity=granularity,
            )
            assert without.cover == compiled.cover


@given(lists, names, domains, domains, granularities)
def test_what_is_compiled_about_a_name_says_of_it_what_the_whole_list_says(
    text: str, name: str, allow: list[str], deny: list[str], granularity: str
) -> None:
    whole, part = (
        compile_lists(
            Listing("list", text),
            allow=[Listing("allow", "\n".join(allow), "domains")],
            deny=[Listing("deny", "\n".join(deny), "domains")],
            granularity=granularity,
            about=about,
        )
        for about in (None, name)
    )
    above = {".".join(name.split(".")[start:]) for start in range(name.count(".") + 1)}
    assert part.policy.match(name) == whole.policy.match(name)
    above |= {f"*.{domain}" for domain in above}
    for here, there in zip(part.cover, whole.cover, strict=True):
        assert above.intersection(here) == above.intersection(there)
    if part.policy.match(name).reason not in ("allow", "deny"):  # those lines are read from files
        assert answer(name, [(PolicyConfig(), part)]) == answer(name, [(PolicyConfig(), whole)])


@given(lists, names, granularities)
def test_an_answer_names_every_rule_that_gives_the_domain_that_decided(text: str, name: str, granularity: str) -> None:
    compiled = compile_lists(Listing("list", text), granularity=granularity)
    found = answer(name, [(PolicyConfig(), compiled)])
    matched = found.match.matched or ""
    assert [(rule.line, rule.text) for rule in found.rules] == [
        (rule.line, rule.text)
        for rule, _, target, _ in compiled.outcomes()
        if matched.removeprefix("*.") in target.domains
        and target.under == matched.startswith("*.")
        and rule.exception == (found.match.reason == "exception")
    ]


def test_lookup_understands_any_spelling_of_a_name() -> None:
    policy = gfwtools.compile("||例え.jp")
    assert policy.lookup("WWW.例え.JP.").matched == "xn--r8jz45g.jp"


def seeds(text: str, **lists: object) -> list[str]:
    return [str(network) for network in gfwtools.compile(text, **lists).seeds()]  # type: ignore[arg-type]


def test_an_exception_for_an_address_keeps_it_out_of_the_seed() -> None:
    assert seeds("|http://85.17.73.31/\n@@||85.17.73.31\n@@||9.9.9.9") == []


def test_between_allow_and_deny_the_longer_prefix_wins_and_deny_on_the_same() -> None:
    assert seeds("", deny=["8.8.4.4"], allow=["8.8.4.4"]) == ["8.8.4.4/32"]
    assert seeds("", deny=["9.9.9.9"], allow=["9.9.9.0/24"]) == ["9.9.9.9/32"]
    assert seeds("", deny=["7.7.7.0/30"], allow=["7.7.7.1"]) == ["7.7.7.0/32", "7.7.7.2/31"]


NETWORKS = st.builds(
    lambda address, length: IPv4Network((0x0B000000 + address, length), strict=False),
    st.integers(0, 31),
    st.integers(27, 32),
)


@given(*[st.sets(NETWORKS, max_size=6)] * 4)
def test_the_seeds_have_exactly_the_addresses_that_the_lists_mean(
    deny: set[IPv4Network], allow: set[IPv4Network], blocked: set[IPv4Network], freed: set[IPv4Network]
) -> None:
    first = 0x0B000000
    text = "".join(f"||{network}^\n" for network in blocked) + "".join(f"@@||{network}\n" for network in freed)
    policy = gfwtools.compile(text, deny=map(str, deny), allow=map(str, allow))
    held = policy.seeds()
    for number in range(32):
        address = IPv4Address(first + number)

        def prefix(networks: set[IPv4Network], address: IPv4Address = address) -> int:
            return max((network.prefixlen for network in networks if address in network), default=-1)

        own = (prefix(deny), prefix(allow))
        listed = any(address in network for network in blocked) and prefix(freed) < 0
        wanted = own[0] >= own[1] if max(own) >= 0 else listed
        assert any(address in network for network in held) == wanted, address


@given(*[st.sets(NETWORKS, max_size=6)] * 3)
def test_the_account_of_networks_is_that_of_the_outcomes(
    blocked: set[IPv4Network], freed: set[IPv4Network], allow: set[IPv4Network]
) -> None:
    text = "\n".join([*(f"||{network}" for network in blocked), *(f"@@||{network}" for network in freed)])
    compiled = compile_lists(Listing("x", text), allow=[Listing("allow", "\n".join(map(str, allow)), "domains")])
    found = Counter(outcome.status for outcome in compiled.outcomes())
    assert compiled.counts()[1:4] == (found[Status.APPLIED], 0, found[Status.REDUNDANT])


def test_an_exception_inside_a_network_is_cut_out_of_it() -> None:
    assert seeds("203.0.113.0/30\n@@203.0.113.1") == ["203.0.113.0/32", "203.0.113.2/31"]
    outcomes = compile_lists(Listing("x", "203.0.113.0/30\n@@203.0.113.1")).outcomes()
    assert [outcome.status for outcome in outcomes] == [Status.APPLIED, Status.APPLIED]


def test_a_list_in_base64_is_understood_as_published() -> None:
    import base64

    text = base64.b64encode(b"[AutoProxy 0.2.9]\n||google.com\n").decode()
    assert gfwtools.compile(text).lookup("google.com").verdict == "tunnel"
    assert [rule.host for rule in gfwtools.parse(text)] == ["google.com"]


def test_what_the_library_cannot_mean_is_an_error() -> None:
    import pytest

    assert gfwtools.compile("", deny="example.org").lookup("example.org").verdict == "tunnel"
    for wrong in (
        {"granularity": "bogus"},
        {"format": "bogus"},
        {"deny": ["bad name"]},
        {"allow": ["www*.google.com"]},
    ):
        with pytest.raises(ValueError, match=r"bogus|bad name|www"):
            gfwtools.compile("", **wrong)  # type: ignore[arg-type]


def test_a_url_with_a_name_and_a_password_in_the_users_lists_is_its_host() -> None:
    deny = Listing("deny", "https://user:pw@example.com/\n", "domains")
    compiled = compile_lists(Listing("x", ""), deny=[deny])
    assert compiled.cover.tunnelled == ["example.com"]
    assert not compiled.problems
