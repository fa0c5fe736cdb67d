"""Several policies beside one another: dnsmasq reads their files as one, and the longer domain decides."""

from collections.abc import Sequence
from pathlib import Path

from cli import gfwtools
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import longest, read_conf

from gfwtools.config.checks import parse_upstream
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.answer import answer
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.formats import Listing
from gfwtools.lists.policy import Policy
from gfwtools.render import dnsmasq
from gfwtools.render.files import without_claimed

DOMAINS = ["x.com", "a.x.com", "b.a.x.com", "c.b.a.x.com", "a.c.b.a.x.com", "y.com", "a.y.com"]
ENTRIES = [f"{mark}{name}" for mark in ("||", "@@||") for name in DOMAINS]
LISTS = st.lists(st.sampled_from(ENTRIES), max_size=8)
CONFIGS = [
    PolicyConfig(name=name, upstream=(parse_upstream(server),))
    for name, server in (("one", "192.0.2.1"), ("two", "192.0.2.2"))
]


def by_hand(name: str, policies: Sequence[Policy]) -> str | None:
    """Who is asked for ``name``: what the page on configuration says, word by word."""
    labels = name.split(".")
    for index in range(len(labels)):
        domain, parent = ".".join(labels[index:]), ".".join(labels[index + 1 :])
        for policy, config in zip(policies, CONFIGS, strict=True):
            tunnels = policy.match(domain).verdict == "tunnel"
            if tunnels and (domain in policy.blocks or domain in policy.deny):
                return str(config.upstream[0])
            if not tunnels and parent and policy.match(parent).verdict == "tunnel":
                return "#"
    return None


@settings(max_examples=300, deadline=None)
@given(LISTS, LISTS, st.lists(st.sampled_from(DOMAINS), max_size=3))
def test_the_policy_with_the_longest_domain_decides_and_of_the_same_one_the_first(
    one: list[str], two: list[str], deny: list[str]
) -> None:
    users = [Listing("deny", "\n".join(deny), "domains")]
    compiled = [
        compile_lists(Listing("one", "\n".join(one)), granularity="host"),
        compile_lists(Listing("two", "\n".join(two)), deny=users, granularity="host"),
    ]
    first = compiled[0].cover_beside
    second, _ = without_claimed(compiled[1].cover_beside, set(first.patterns))
    conf = read_conf(dnsmasq.paired(first, CONFIGS[0]) + dnsmasq.paired(second, CONFIGS[1]))
    for name in [*DOMAINS, "zz.a.x.com", "zz.y.com", "zz.a.c.b.a.x.com"]:
        asked = longest(name, conf["server"])
        assert asked == by_hand(name, [each.policy for each in compiled]), name
        if not deny:  # a line of the user's is read from its file
            found = answer(name, list(zip(CONFIGS, compiled, strict=True)))
            assert (found.server or "#") == (asked or "#"), name


def test_a_name_that_a_policy_frees_below_a_wildcard_has_one_line_and_one_answer(tmp_path: Path) -> None:
    etc = tmp_path / "etc/gfwtools"
    etc.mkdir(parents=True)
    (tmp_path / "one.txt").write_text("||example.com^\n@@||*.example.com\n@@||www.example.com\n")
    (tmp_path / "two.txt").write_text("www.example.com\nother.net\n")
    (etc / "config.toml").write_text(
        f'[policy.one]\nsources = ["{tmp_path}/one.txt"]\n'
        f'[policy.two]\nformat = "domains"\ngranularity = "host"\nsources = ["{tmp_path}/two.txt"]\n'
    )
    gfwtools(tmp_path, "update")
    text = "".join((tmp_path / f"etc/dnsmasq.d/{name}.conf").read_text() for name in ("one", "two"))
    lines = [line for line in text.splitlines() if line.startswith("ipset=/www.example.com/")]
    assert lines == ["ipset=/www.example.com/one_direct"]
    assert "www.example.com: direct" in gfwtools(tmp_path, "check", "domain", "www.example.com").stdout
    assert gfwtools(tmp_path, "export", "dnsmasq", "--policy", "one").stdout in text


def test_a_domain_that_an_earlier_policy_has_takes_nothing_under_it_from_a_later_one(tmp_path: Path) -> None:
    etc = tmp_path / "etc/gfwtools"
    etc.mkdir(parents=True)
    (tmp_path / "one.txt").write_text("||example.com\n||z.org\n")
    (tmp_path / "two.txt").write_text("example.com\nsub.example.com\nother.net\n")
    (etc / "workdeny.txt").write_text("vpn.example.com\n")
    (etc / "config.toml").write_text(
        f'[policy.gfwlist]\nsources = ["{tmp_path}/one.txt"]\nallow = []\ndeny = []\n'
        f'[policy.work]\nformat = "domains"\ngranularity = "host"\nsources = ["{tmp_path}/two.txt"]\n'
        'allow = []\ndeny = ["/etc/gfwtools/workdeny.txt"]\ninterface = "wg1"\n'
    )
    told = gfwtools(tmp_path, "update").stderr
    assert "policy.work: an earlier policy has example.com as well" in told
    text = (tmp_path / "etc/dnsmasq.d/work.conf").read_text()
    assert sorted(read_conf(text)["server"]) == ["other.net", "sub.example.com", "vpn.example.com"]
    assert gfwtools(tmp_path, "export", "dnsmasq", "--policy", "work").stdout == text
    for name in ("sub.example.com", "x.vpn.example.com"):
        assert "policy    work, by wg1" in gfwtools(tmp_path, "check", "domain", name).stdout
    assert "policy    gfwlist, by wg0" in gfwtools(tmp_path, "check", "domain", "www.example.com").stdout
