"""The facts about packets that the plumbing rests on, made by hand and without gfwtools: so that a kernel which thinks
otherwise is noticed."""

import itertools
import time
from collections.abc import Iterator

import pytest
from lab import BLOCKED, CLEAN, ENDPOINT, TUNNEL, Lab

pytestmark = pytest.mark.e2e

MARK, TABLE = "0xca6c", "51820"
RECIPE = f"""
ipset create facts hash:net
ipset add facts 198.18.0.0/24
ipset add facts {CLEAN}
iptables -t mangle -A OUTPUT -m set --match-set facts dst -j MARK --set-mark {MARK}
iptables -t mangle -A PREROUTING -i lan0 -m set --match-set facts dst -j MARK --set-mark {MARK}
iptables -t nat -A POSTROUTING -o wg0 -j MASQUERADE
ip route add default dev wg0 table {TABLE}
ip rule add pref 5181 fwmark {MARK} lookup {TABLE}
"""
LOOSE = "sysctl -qw net.ipv4.conf.wg0.rp_filter=2"
MAIN_FIRST = "ip rule add pref 5180 lookup main suppress_prefixlength 0"


def by_hand(lab: Lab, *commands: str) -> None:
    lab.gateway.run("sh", "-ec", "\n".join(commands))


def reached(lab: Lab) -> tuple[bool, bool]:
    """Whether the blocked site is reached through the tunnel: by the gateway, by its LAN."""
    own, lan = (lab.visit(host, BLOCKED, 0.7) == TUNNEL for host in (lab.gateway, lab.client))
    return own, lan


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_the_plain_recipe_works_without_a_reverse_path_filter(lab: Lab) -> None:
    by_hand(lab, RECIPE)
    assert reached(lab) == (True, True)


def test_the_plain_recipe_fails_with_strict_filtering() -> None:
    with Lab(rp_filter=1) as lab:
        by_hand(lab, RECIPE)
        assert reached(lab) == (False, False)
        by_hand(lab, LOOSE)
        assert reached(lab) == (True, True)


def test_with_src_valid_mark_the_lan_needs_the_rule_that_looks_into_main_first() -> None:
    with Lab(rp_filter=1, src_valid_mark=1) as lab:
        by_hand(lab, RECIPE, LOOSE)
        assert not reached(lab)[1]
        by_hand(lab, MAIN_FIRST)
        assert reached(lab) == (True, True)


@pytest.mark.parametrize(("rp_filter", "src_valid_mark"), list(itertools.product((0, 1, 2), (0, 1))))
def test_with_both_mendings_all_six_combinations_work(rp_filter: int, src_valid_mark: int) -> None:
    with Lab(rp_filter=rp_filter, src_valid_mark=src_valid_mark) as lab:
        by_hand(lab, RECIPE, LOOSE, MAIN_FIRST)
        assert reached(lab) == (True, True)


def test_the_endpoint_in_the_set_ends_the_tunnel_without_a_return_before_the_mark(lab: Lab) -> None:
    by_hand(lab, RECIPE)
    assert reached(lab) == (True, True)
    by_hand(lab, f"ipset add facts {ENDPOINT}")
    assert reached(lab) == (False, False)
    by_hand(lab, f"iptables -t mangle -I OUTPUT -d {ENDPOINT} -j RETURN")
    # What it has eaten is on its way through it for a while, and WireGuard tries a lost handshake again after 5 s.
    deadline = time.monotonic() + 15
    while reached(lab) != (True, True):
        assert time.monotonic() < deadline, "the RETURN does not mend it"


def test_an_unreachable_default_refuses_the_lan_at_once_and_nothing_leaks(lab: Lab) -> None:
    by_hand(lab, RECIPE)
    lab.gateway.run("ip", "link", "set", "wg0", "down")
    assert lab.visit(lab.gateway, BLOCKED, 0.7) == "error: timed out"
    assert lab.leaked() > 0
    by_hand(lab, f"ip route add unreachable default metric 4278198272 table {TABLE}")
    before = lab.leaked()
    assert lab.visit(lab.client, BLOCKED, 2) == "error: No route to host"
    # What the host itself sends has passed its first look-up before it is marked; when the second one fails netfilter
    # drops it, and TCP takes that for a loss.
    assert lab.visit(lab.gateway, BLOCKED, 0.7) == "error: timed out"
    assert lab.leaked() == before


@pytest.mark.parametrize(("kind", "works"), [("filter", False), ("route", True)])
def test_in_nftables_marking_in_output_needs_a_chain_of_type_route(lab: Lab, kind: str, works: bool) -> None:
    by_hand(
        lab,
        "nft add table ip facts",
        f"nft 'add chain ip facts output {{ type {kind} hook output priority mangle; }}'",
        f"nft add rule ip facts output ip daddr {BLOCKED} meta mark set {MARK}",
        "iptables -t nat -A POSTROUTING -o wg0 -j MASQUERADE",
        f"ip route add default dev wg0 table {TABLE}",
        f"ip rule add pref 5181 fwmark {MARK} lookup {TABLE}",
    )
    assert (lab.visit(lab.gateway, BLOCKED, 0.7) == TUNNEL) == works


def test_a_set_that_dnsmasq_fills_must_not_be_an_interval_set(lab: Lab) -> None:
    by_hand(lab, "nft add table inet facts", "nft 'add set inet facts s { type ipv4_addr; flags interval; }'",
            "nft 'add element inet facts s { 198.18.0.0/24 }'")  # fmt: skip
    inside = lab.gateway.run("nft", "add element inet facts s { 198.18.0.10 }", code=None)
    assert inside.returncode != 0


def test_a_packet_without_translation_is_dropped_by_the_peer(lab: Lab) -> None:
    by_hand(lab, RECIPE.replace("iptables -t nat -A POSTROUTING -o wg0 -j MASQUERADE", "true"))
    assert not any(reached(lab))
