"""The kill switch without ip rules and routes: no packet of a blocked site leaves by the WAN, counted at the ISP."""

from collections.abc import Iterator

import pytest
from lab import BLOCKED, BLOCKED6, CLEAN, FREE, Lab

pytestmark = pytest.mark.e2e

PAIRS = [(backend, layout) for backend in ("iptables", "nftables") for layout in ("paired", "split")]
#: The piece that is not there any more -> how it goes.
GONE = {
    "the rule of the policy": "ip rule del pref 5181; ip -6 rule del pref 5181",
    "both rules": "for f in -4 -6; do ip $f rule del pref 5181; ip $f rule del pref 5180; done",
    "the route to the tunnel": "ip route del default dev wg0 table 51820; ip -6 route del default dev wg0 table 51820",
    "the table": "ip route flush table 51820; ip -6 route flush table 51820",
    "the table and the tunnel": "ip route flush table 51820; ip -6 route flush table 51820; ip link set wg0 down",
    "the say of the rule, by a rule before it": "ip rule add pref 100 lookup main; ip -6 rule add pref 100 lookup main",
    "the say of the rule, by two routes of half the Internet": "ip route add 0.0.0.0/1 via 203.0.113.1; "
    "ip route add 128.0.0.0/1 via 203.0.113.1; ip -6 route add 8000::/1 via 2001:db8:1::1; "
    "ip -6 route add ::/1 via 2001:db8:1::1",
}
BACK = """
ip link set wg0 up
for f in -4 -6; do ip $f rule del pref 100; done
ip route del 0.0.0.0/1; ip route del 128.0.0.0/1; ip -6 route del ::/1; ip -6 route del 8000::/1
ip -6 address add fd00:7::2/64 dev wg0 nodad
true
"""


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        lab.configure(*request.param)
        lab.bootstrap()
        lab.gateway.wait_for_dns()
        yield lab


@pytest.fixture(autouse=True)
def healthy(lab: Lab) -> None:
    lab.gateway.run("sh", "-c", BACK)
    lab.gateway.gfwtools("up")
    for host in (lab.gateway, lab.client):
        for kind in ("A", "AAAA"):
            assert lab.open(host, "blocked.example", kind).startswith(("10.7.0.2", "fd00:7::2")), (host, kind)


@pytest.mark.parametrize("what", GONE)
def test_nothing_leaks_without(lab: Lab, what: str) -> None:
    before = lab.leaked()
    lab.gateway.run("sh", "-ec", GONE[what])
    for host in (lab.gateway, lab.client):
        for address in (BLOCKED, BLOCKED6, CLEAN):
            lab.visit(host, address, 1)
        lab.resolve(host, "blocked.example")
    assert lab.leaked() == before
    assert lab.visit(lab.client, FREE).startswith("203.0.113.2")
