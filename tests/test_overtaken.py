"""A rule of another program before our address translation, or behind our marks, is seen where it matters."""

import pytest

from gfwtools.plumbing.iptables_rule import lines_of
from gfwtools.plumbing.overtaken import Overtaken, overtaken_in

OURS = '-A POSTROUTING -o wg0 -m mark --mark 0xca6c -m comment --comment "gfwtools: replies come back" -j MASQUERADE'


def seen(*rules: str, after: str = "") -> Overtaken | None:
    """What is found in the chain POSTROUTING, with ``rules`` before ours."""
    chains = ":one - [0:0]\n:two - [0:0]"
    text = "\n".join(["*nat", ":POSTROUTING ACCEPT [0:0]", chains, *rules, OURS, after, "COMMIT", ""])
    return {chain.name: found for chain, found in overtaken_in(lines_of(4, text)[1])}.get("POSTROUTING")


@pytest.mark.parametrize(
    "rule",
    [
        "-j ACCEPT",
        "-s 192.168.7.0/24 -j ACCEPT",
        "-s 192.168.7.0/24 ! -d 192.168.0.0/16 -j ACCEPT",
        '-o wg+ -m comment --comment "-d 10.0.0.0/8" -j ACCEPT',
        "-p tcp -m tcp --dport 443 -j RETURN",
        "-m mark --mark 0xca6c -j ACCEPT",
        "-m conntrack --ctstate NEW,RELATED -j ACCEPT",
        "-s 192.168.7.0/24 -j SNAT --to-source 203.0.113.2",
    ],
)
def test_a_rule_that_takes_packets_of_the_tunnel_is_certain(rule: str) -> None:
    found = seen(f"-A POSTROUTING {rule}")
    assert found is not None
    assert found.certain
    assert found.why.endswith(rule)


@pytest.mark.parametrize(
    "rule",
    [
        "-o wan0 -j ACCEPT",
        "! -o wg+ -j ACCEPT",
        "-s 10.8.0.0/24 -d 192.168.0.0/16 -j ACCEPT",
        "-d 224.0.0.0/4 -j RETURN",
        "-m policy --dir out --pol ipsec -j ACCEPT",
        "-m mark --mark 0x1/0xff -j ACCEPT",
        "-m addrtype --dst-type LOCAL -j RETURN",
        "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    ],
)
def test_a_rule_that_leaves_the_tunnel_alone_is_not_named(rule: str) -> None:
    assert seen(f"-A POSTROUTING {rule}") is None


def test_a_rule_behind_ours_is_not_named() -> None:
    assert seen(after="-A POSTROUTING -j ACCEPT") is None


@pytest.mark.parametrize(
    "rules",
    [
        ["-A POSTROUTING -m owner --uid-owner 7 -j ACCEPT"],
        ["-A POSTROUTING -d 198.51.100.0/24 -j ACCEPT"],
        ["-A POSTROUTING -m set --match-set own src -j ACCEPT"],
        ["-A POSTROUTING -j one", "-A one -d 198.51.100.0/24 -j ACCEPT"],
        ["-A POSTROUTING -j one", "-A one -o wg0 -j RETURN", "-A one -j ACCEPT"],
    ],
)
def test_a_rule_of_which_it_is_not_known_is_named_and_not_certain(rules: list[str]) -> None:
    found = seen(*rules)
    assert found is not None
    assert not found.certain


def test_of_chains_that_lead_to_one_another_the_rule_at_the_end_is_named() -> None:
    found = seen("-A POSTROUTING -s 192.168.7.0/24 -j one", "-A one -j two", "-A two -o wg0 -j ACCEPT")
    assert found == Overtaken("a rule before it lets the packets keep their address: -o wg0 -j ACCEPT")


@pytest.mark.parametrize(
    "rules",
    [
        ["-A POSTROUTING -o wan0 -j one", "-A one -j ACCEPT"],
        ["-A POSTROUTING -j one", "-A one -j RETURN"],
        ["-A POSTROUTING -j one", "-A one -j two", "-A two -j one"],
    ],
    ids=["not for it", "back again", "a circle"],
)
def test_a_chain_that_leads_to_no_end_for_the_tunnel_is_not_named(rules: list[str]) -> None:
    assert seen(*rules) is None


def test_a_rule_that_certainly_takes_packets_is_named_before_one_that_may() -> None:
    found = seen("-A POSTROUTING -m owner --uid-owner 7 -j ACCEPT", "-A POSTROUTING -s 192.168.7.0/24 -j ACCEPT")
    assert found is not None
    assert found.certain
