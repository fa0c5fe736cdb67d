"""The kill switch without ip rules and routes: no packet of a blocked site leaves by the WAN, counted at the ISP."""

import sys
from collections.abc import Iterable, Iterator

import pytest
from fresh_host import HERE
from lab import BLOCKED, BLOCKED6, CLEAN, FREE, TUNNEL, TUNNEL6, Lab

pytestmark = pytest.mark.e2e

PAIRS = [(backend, layout) for backend in ("iptables", "nftables") for layout in ("paired", "split")]
#: The piece that is not there any more -> how it goes.
GONE = {
    "the rule of the policy": "ip rule del pref 5181; ip -6 rule del pref 5181",
    "both rules": "for f in -4 -6; do ip $f rule del pref 5181; ip $f rule del pref 5180; done",
    "the route to the tunnel": "ip route del default dev wg0 table 51820; ip -6 route del default dev wg0 table 51820",
    "the table": "ip route flush table 51820; ip -6 route flush table 51820",
    "the table and the tunnel": "ip route flush table 51820; ip -6 route flush table 51820; ip link set wg0 down",
}
#: The same, where other programs have come before our rule. `up` cannot bring that back.
OVERRULED = {
    "a rule before it": "ip rule add pref 100 lookup main; ip -6 rule add pref 100 lookup main",
    "two routes of half the Internet": "ip route add 0.0.0.0/1 via 203.0.113.1; ip route add 128.0.0.0/1 via "
    "203.0.113.1; ip -6 route add 8000::/1 via 2001:db8:1::1; ip -6 route add ::/1 via 2001:db8:1::1",
    "routes to its very address": f"ip route add {BLOCKED}/32 via 203.0.113.1; ip -6 route add {BLOCKED6}/128 via "
    f"2001:db8:1::1; ip route add {CLEAN}/32 via 203.0.113.1",
}
#: Piece -> how it goes with iptables, and with nftables.
NO_CHAIN = {
    "the rules of GFWLIST": (
        "iptables -t mangle -F GFWLIST; ip6tables -t mangle -F GFWLIST",
        "nft flush chain inet gfwtools GFWLIST",
    ),
    "the jumps to GFWLIST": (
        "for t in iptables ip6tables; do for c in OUTPUT PREROUTING; do $t -t mangle -D $c "
        '$($t -t mangle -L $c --line-numbers | sed -n "s/^\\([0-9]*\\) *GFWLIST .*/\\1/p"); done; done',
        "nft flush chain inet gfwtools output; nft flush chain inet gfwtools prerouting",
    ),
    "the second leg itself": (
        "iptables -t mangle -F GFWLIST_KILL; ip6tables -t mangle -F GFWLIST_KILL",
        "nft flush chain inet gfwtools GFWLIST_KILL",
    ),
}
BACK = """
ip link set wg0 up
for f in -4 -6; do ip $f rule del pref 100; done
ip route del 0.0.0.0/1; ip route del 128.0.0.0/1; ip -6 route del ::/1; ip -6 route del 8000::/1
ip route del 198.18.0.10/32; ip route del 8.8.8.8/32; ip -6 route del 2001:db8:bad::10/128
ip -6 address add fd00:7::2/64 dev wg0 nodad
true
"""


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        lab.configure(*request.param)
        lab.bootstrap()
        lab.gateway.wait_for_dns()
        lab.far.start(sys.executable, HERE / "flow.py", "serve", BLOCKED, ready=True)
        yield lab


@pytest.fixture(autouse=True)
def healthy(lab: Lab) -> None:
    lab.gateway.run("sh", "-c", BACK)
    lab.gateway.gfwtools("up")
    assert lab.open(lab.client, "blocked.example").startswith("10.7.0.2")


def leaked(lab: Lab, script: str) -> int:
    """How many packets to what is blocked the ISP sees, once the script has run."""
    before = lab.leaked()
    lab.gateway.run("sh", "-ec", script)
    for host in (lab.gateway, lab.client):
        host.run(sys.executable, HERE / "knock.py", BLOCKED, BLOCKED6, CLEAN)
    return lab.leaked() - before


def with_variants(names: Iterable[str], *variants: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.variant if name in variants else ()) for name in names]


@pytest.mark.parametrize("what", with_variants([*GONE, *NO_CHAIN], "both rules", "the table and the tunnel"))
def test_nothing_leaks_without(lab: Lab, what: str) -> None:
    has_table = lab.gateway.run("nft", "list", "table", "inet", "gfwtools", code=None).returncode == 0
    script = GONE.get(what) or NO_CHAIN[what][has_table]
    assert leaked(lab, script) == 0
    assert lab.visit(lab.client, FREE).startswith("203.0.113.2")
    assert "MISSING" in lab.gateway.gfwtools("check", "host", code=1).stdout
    if "the tunnel" not in what:
        lab.gateway.gfwtools("update", "--offline", "--reload")
        assert lab.open(lab.client, "blocked.example").startswith("10.7.0.2")


@pytest.mark.parametrize("what", with_variants(OVERRULED, "a rule before it"))
def test_nothing_leaks_past(lab: Lab, what: str) -> None:
    assert leaked(lab, OVERRULED[what]) == 0
    assert lab.visit(lab.client, FREE).startswith("203.0.113.2")
    assert "route of packets with mark" in lab.gateway.gfwtools("check", "host", code=1).stdout


@pytest.mark.parametrize("place", with_variants(["host", "lan"], "host"))
def test_a_running_connection_does_not_leak_without_rules_and_marks(lab: Lab, place: str) -> None:
    host = lab.gateway if place == "host" else lab.client
    flow = host.start(sys.executable, HERE / "flow.py", "udp", BLOCKED, ready=True)
    no_marks = "iptables -t mangle -F GFWLIST || nft flush chain inet gfwtools GFWLIST"
    assert leaked(lab, f"{GONE['both rules']}; {no_marks}") == 0
    assert int(flow.communicate(timeout=60)[0]) > 0


def test_what_a_peer_sends_through_the_tunnel_may_leave_by_the_wan(lab: Lab) -> None:
    peer = lab.far.run("wg", "show", "wg0", "peers").stdout.strip()
    lab.far.run("wg", "set", "wg0", "peer", peer, "allowed-ips", f"{TUNNEL}/32,{TUNNEL6}/128,{FREE}/32")
    lab.far.run("ip", "route", "replace", f"{FREE}/32", "dev", "wg0")
    add = f"ipset -exist add gfwlist {FREE} || nft add element inet gfwtools gfwlist4 {{ {FREE} }}"
    lab.gateway.run("sh", "-c", add)
    assert lab.visit(lab.far, FREE).startswith("203.0.113.2")
    lab.gateway.run("sh", "-c", add.replace("add", "del").replace("nft del", "nft delete"))
    lab.far.run("ip", "route", "del", f"{FREE}/32", "dev", "wg0")


def test_down_closed_refuses_what_is_blocked_until_up(lab: Lab) -> None:
    lab.gateway.gfwtools("down", "--closed")
    assert leaked(lab, "true") == 0
    assert lab.visit(lab.client, FREE).startswith("203.0.113.2")
    assert "`gfwtools down --closed`" in lab.gateway.gfwtools("check", "host", code=1).stdout
    lab.gateway.gfwtools("update", "--offline", "--reload")
    assert leaked(lab, "true") == 0
    lab.gateway.gfwtools("down")
    assert "GFWLIST" not in lab.gateway.run("sh", "-c", "iptables-save; nft list ruleset").stdout
    lab.gateway.gfwtools("down", "--closed")
    assert leaked(lab, "true") == 0


def test_down_opens_the_host(lab: Lab) -> None:
    lab.gateway.gfwtools("down")
    assert leaked(lab, "true") > 0
