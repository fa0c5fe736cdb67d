"""The facts about what is forwarded, refused or kept out of the tunnel, made by hand and without gfwtools."""

import sys
from collections.abc import Iterator

import pytest
from counting import Count
from fresh_host import FreshHost
from lab import BLOCKED, BLOCKED6, CLIENT, FREE6, GATEWAY_WAN6, TUNNEL, TUNNEL6, Lab

pytestmark = pytest.mark.e2e

MARK, TABLE, LAST = "0xca6c", "51820", "4278198272"
RECIPE = f"""
ipset create facts hash:net
ipset add facts 198.18.0.0/24
iptables -t mangle -A OUTPUT -m set --match-set facts dst -j MARK --set-mark {MARK}
iptables -t mangle -A PREROUTING -i lan0 -m set --match-set facts dst -j MARK --set-mark {MARK}
iptables -t nat -A POSTROUTING -o wg0 -j MASQUERADE
ip route add default dev wg0 table {TABLE}
ip rule add pref 5181 fwmark {MARK} lookup {TABLE}
"""
RECIPE6 = f"""
ipset create facts6 hash:net family inet6
ipset add facts6 2001:db8:bad::/48
ip6tables -t mangle -A OUTPUT -m set --match-set facts6 dst -j MARK --set-mark {MARK}
ip6tables -t mangle -A PREROUTING -i lan0 -m set --match-set facts6 dst -j MARK --set-mark {MARK}
ip -6 rule add pref 5181 fwmark {MARK} lookup {TABLE}
"""
MAIN_FIRST = "ip rule add pref 5180 lookup main suppress_prefixlength 0"
KILL_SWITCH = f"ip route add unreachable default metric {LAST} table {TABLE}"
KILL_SWITCH6 = f"ip -6 route add unreachable default metric {LAST} table {TABLE}"
CLAMPS = {
    "iptables": "iptables -t mangle -A FORWARD -o wg0 -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    "nftables": """nft -f - <<END
table inet facts {
    chain forward {
        type filter hook forward priority mangle
        oifname wg0 tcp flags syn tcp option maxseg size set rt mtu
    }
}
END""",
}
SEND = """
import socket, sys
address = sys.argv[1]
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
    try:
        sender.sendto(b"?", (address, 53))
        print("sent")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def by_hand(lab: Lab, *commands: str) -> None:
    lab.gateway.run("sh", "-ec", "\n".join(commands))


def send(host: FreshHost, address: str) -> str:
    """One datagram: ``sent``, or what the kernel has against it."""
    return host.run(sys.executable, "-c", SEND, address).stdout.strip()


# ------------------------------------------------------------ the size of segments


@pytest.mark.parametrize("backend", CLAMPS)
def test_a_clients_mss_does_not_fit_the_tunnel_unless_it_is_clamped(lab: Lab, backend: str) -> None:
    by_hand(lab, RECIPE)
    too_big = Count(lab.far, "prerouting", "iifname wg0 tcp flags syn tcp option maxseg size > 1380")
    fits = Count(lab.far, "prerouting", "iifname wg0 tcp flags syn tcp option maxseg size <= 1380")
    assert lab.visit(lab.client, BLOCKED) == TUNNEL
    assert (too_big.packets, fits.packets) == (1, 0)
    by_hand(lab, CLAMPS[backend])
    assert lab.visit(lab.client, BLOCKED) == TUNNEL
    assert (too_big.packets, fits.packets) == (1, 1)


# ------------------------------------------------------------ routes of the host's own


def test_a_more_specific_route_holds_only_where_main_is_looked_into_first(lab: Lab) -> None:
    by_hand(lab, RECIPE, f"ipset add facts {CLIENT}")
    ping = ("ping", "-c", "1", "-W", "1", CLIENT)
    assert lab.gateway.run(*ping, code=None).returncode != 0
    by_hand(lab, MAIN_FIRST)
    assert lab.gateway.run(*ping, code=None).returncode == 0
    assert lab.visit(lab.gateway, BLOCKED) == TUNNEL  # and what has but the default route goes on


# ------------------------------------------------------------ the kill switch


def test_the_kill_switch_is_no_hindrance_while_the_tunnel_is_up(lab: Lab) -> None:
    by_hand(lab, RECIPE, KILL_SWITCH)
    assert lab.visit(lab.gateway, BLOCKED) == TUNNEL
    assert lab.visit(lab.client, BLOCKED) == TUNNEL


def test_with_the_tunnel_down_the_host_and_the_lan_are_refused_at_once(lab: Lab) -> None:
    by_hand(lab, RECIPE, KILL_SWITCH, "ip link set wg0 down")
    assert send(lab.gateway, BLOCKED) == "No route to host"
    # Where a neighbour does not answer it says so too, three seconds later: this one gives up before.
    assert lab.visit(lab.client, BLOCKED, 1.5) == "error: No route to host"
    assert lab.leaked() == 0


def test_the_hosts_own_tcp_is_not_refused_at_once_but_times_out_and_does_not_leak(lab: Lab) -> None:
    # tcp_connect() takes every error but ECONNREFUSED for a loss: the SYN is sent again, and dropped again.
    by_hand(lab, RECIPE, KILL_SWITCH, "ip link set wg0 down")
    assert lab.visit(lab.gateway, BLOCKED, 1.5) == "error: timed out"
    assert lab.leaked() == 0


def test_an_interface_that_was_down_has_no_default_route_and_the_kill_switch_holds(lab: Lab) -> None:
    by_hand(lab, RECIPE, KILL_SWITCH, "ip link set wg0 down", "ip link set wg0 up")
    assert "dev wg0" not in lab.gateway.run("ip", "route", "show", "table", TABLE).stdout
    assert lab.visit(lab.client, BLOCKED, 1).startswith("error: ")
    assert lab.leaked() == 0
    by_hand(lab, f"ip route add default dev wg0 table {TABLE}")
    assert lab.visit(lab.client, BLOCKED) == TUNNEL


# ------------------------------------------------------------ IPv6


def test_ipv6_of_a_blocked_name_leaks_where_only_ipv4_is_marked(lab: Lab) -> None:
    by_hand(lab, RECIPE)
    assert lab.visit(lab.gateway, BLOCKED6, 0.5) == "error: timed out"
    own = lab.leaked()
    assert own > 0
    assert lab.visit(lab.client, BLOCKED6, 0.5) == "error: timed out"
    assert lab.leaked() > own


def test_a_mark_alone_stops_no_ipv6_as_an_empty_table_falls_through_to_the_next_rule(lab: Lab) -> None:
    by_hand(lab, RECIPE6)
    assert lab.visit(lab.gateway, BLOCKED6, 0.5) == "error: timed out"
    assert lab.leaked() > 0


def test_an_unreachable_default_refuses_ipv6_of_the_set_and_no_other(lab: Lab) -> None:
    by_hand(lab, RECIPE6, KILL_SWITCH6)
    assert send(lab.gateway, BLOCKED6) == "No route to host"
    # The router's word comes for each SYN at once; that the client heeds the one for its second SYN only is its own TCP.
    told = Count(lab.client, "input", "icmpv6 type destination-unreachable")
    assert "unreachable" in lab.visit(lab.client, BLOCKED6, 5)
    assert told.packets > 0
    assert lab.leaked() == 0
    assert lab.visit(lab.gateway, FREE6) == GATEWAY_WAN6


def test_a_tunnel_with_ipv6_needs_its_address_on_the_packets_too() -> None:
    with Lab(ipv6=True) as lab:
        by_hand(lab, RECIPE6, KILL_SWITCH6, f"ip -6 route add default dev wg0 table {TABLE}")
        assert lab.visit(lab.client, BLOCKED6, 0.7) == "error: timed out"
        by_hand(lab, "ip6tables -t nat -A POSTROUTING -o wg0 -j MASQUERADE")
        assert lab.visit(lab.gateway, BLOCKED6) == TUNNEL6
        assert lab.visit(lab.client, BLOCKED6) == TUNNEL6
        assert lab.leaked() == 0
