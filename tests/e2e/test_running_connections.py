"""A connection keeps the way that it began with, whatever enters or leaves the sets meanwhile."""

import itertools
import json
import sys
from collections.abc import Iterator

import pytest
from counting import Count
from flow import DATAGRAMS, SIZE
from fresh_host import HERE, FreshHost
from lab import BLOCKED, BLOCKED6, FREE, FREE6, GATEWAY_LAN, GATEWAY_WAN, Lab

pytestmark = pytest.mark.e2e

#: An address of the list itself, which only the far end has.
SEED = "198.18.0.99"
BACKENDS = ("iptables", "nftables")
WHOLE = {"tcp": SIZE, "udp": DATAGRAMS}
FLOWS = list(itertools.product(("host", "lan"), ("tcp", "udp")))
SITES = pytest.mark.parametrize(
    "site", [pytest.param(FREE, id="ipv4"), pytest.param(FREE6, id="ipv6", marks=pytest.mark.variant)]
)


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        prepare(lab)
        lab.configure(request.param)
        lab.bootstrap()
        yield lab


def prepare(lab: Lab) -> None:
    """The free site is reached both ways then: directly, and through the far end."""
    lab.far.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for tool in ("iptables", "ip6tables"):
        lab.far.run(tool, "-t", "nat", "-A", "POSTROUTING", "-o", "wan0", "-j", "MASQUERADE")
    lab.isp.start(sys.executable, HERE / "flow.py", "serve", FREE, FREE6, ready=True)
    lab.far.start(sys.executable, HERE / "flow.py", "serve", SEED, BLOCKED6, ready=True)


def change(lab: Lab, verb: str, address: str = FREE) -> None:
    """``add`` an address to the set that dnsmasq fills, or ``del`` it; an unknown one is no error."""
    if has_ipset(lab):
        lab.gateway.run("ipset", "-exist", verb, "gfwlist6" if ":" in address else "gfwlist", address)
    else:
        verb = {"add": "add", "del": "delete"}[verb]
        name = "gfwlist6" if ":" in address else "gfwlist4"
        lab.gateway.run("nft", verb, "element", "inet", "gfwtools", name, f"{{ {address} }}", code=None)


def has_ipset(lab: Lab) -> bool:
    return lab.gateway.run("ipset", "list", "-n", code=None).stdout != ""


def begin(lab: Lab, place: str, kind: str, address: str = FREE) -> "Flow":
    return Flow(lab.gateway if place == "host" else lab.client, kind, address)


class Flow:
    """A flow that has begun and goes on."""

    def __init__(self, host: FreshHost, kind: str, address: str) -> None:
        self._child = host.start(sys.executable, HERE / "flow.py", kind, address, ready=True)

    @property
    def got(self) -> int:
        """What it got in all, once it has ended."""
        return int(self._child.communicate(timeout=60)[0])


@SITES
@pytest.mark.parametrize(("place", "kind"), FLOWS)
def test_a_direct_flow_goes_on_when_its_address_enters_the_set(lab: Lab, place: str, kind: str, site: str) -> None:
    change(lab, "del", site)
    flow = begin(lab, place, kind, site)
    change(lab, "add", site)
    assert flow.got == WHOLE[kind]


@SITES
@pytest.mark.parametrize(("place", "kind"), FLOWS)
def test_a_tunnelled_flow_goes_on_when_its_address_leaves_the_set(lab: Lab, place: str, kind: str, site: str) -> None:
    change(lab, "add", site)
    flow = begin(lab, place, kind, site)
    change(lab, "del", site)
    assert flow.got == WHOLE[kind]


# ------------------------------------------------------------ a policy that goes away or moves


@pytest.mark.parametrize("place", ["host", "lan"])
def test_down_has_what_was_tunnelled_begin_anew(lab: Lab, place: str) -> None:
    change(lab, "add")
    flow = begin(lab, place, "udp")
    lab.gateway.gfwtools("down")
    assert flow.got > DATAGRAMS / 2  # a datagram or two may be lost in between
    lab.gateway.gfwtools("up")


def test_a_policy_that_moves_to_another_interface_takes_its_connections_along(lab: Lab) -> None:
    before = lab.gateway.read("/etc/gfwtools/config.toml")
    there, elsewhere = (
        f'{before}interface = "{interface}"\nnat = "snat:{address}"\n'
        for interface, address in (("wg0", "10.7.0.2"), ("other", "10.9.0.2"))
    )
    link = "ip link add other type veth peer name nowhere; ip address add 10.9.0.2/24 dev other; ip link set other up"
    lab.gateway.run("sh", "-ec", link)
    try:
        # Not masquerade: there the kernel itself ends a connection that leaves by another interface.
        lab.gateway.write("/etc/gfwtools/config.toml", there)
        lab.gateway.gfwtools("up")
        change(lab, "add")
        flow = begin(lab, "host", "udp")
        lab.gateway.write("/etc/gfwtools/config.toml", elsewhere)
        assert "removed from conntrack" in lab.gateway.gfwtools("up").stdout
    finally:
        lab.gateway.write("/etc/gfwtools/config.toml", before)
        lab.gateway.gfwtools("up")
        lab.gateway.run("ip", "link", "del", "other")
    assert flow.got > 10


def test_a_second_down_and_a_second_up_remove_no_connection(lab: Lab) -> None:
    change(lab, "add")
    lab.gateway.gfwtools("up")
    flow = begin(lab, "lan", "tcp")
    assert lab.gateway.gfwtools("up").stdout == "the plumbing is up already\n"
    assert flow.got == SIZE


#: The chain as it was before there were connection marks, in the words of each backend.
EARLIER = {
    "iptables": """iptables-restore --noflush <<END
*mangle
:GFWLIST - [0:0]
-A GFWLIST -m conntrack --ctdir REPLY -m comment --comment "gfwtools: earlier" -j RETURN
-A GFWLIST -i wg0 -m comment --comment "gfwtools: earlier" -j RETURN
-A GFWLIST -m set --match-set gfwlist dst -m comment --comment "gfwtools: earlier" -j MARK --set-mark 0xca6c
COMMIT
END""",
    "nftables": """nft -f - <<END
flush chain inet gfwtools GFWLIST
add rule inet gfwtools GFWLIST ct direction reply return
add rule inet gfwtools GFWLIST iifname "wg0" return
add rule inet gfwtools GFWLIST ip daddr @gfwlist4 meta mark set 0xca6c
END""",
}


@pytest.mark.parametrize(("place", "kind"), FLOWS)
def test_a_flow_of_earlier_rules_goes_on_after_up(lab: Lab, place: str, kind: str) -> None:
    change(lab, "add")
    lab.gateway.run("sh", "-ec", EARLIER["iptables" if has_ipset(lab) else "nftables"])
    flow = begin(lab, place, kind)
    assert " marked in conntrack" in lab.gateway.gfwtools("up").stdout
    assert flow.got == WHOLE[kind]


# ------------------------------------------------------------ rules that were away for a while


def flush(lab: Lab) -> None:
    """What a restart of nftables.service or of another firewall does."""
    lab.gateway.run(
        "sh",
        "-c",
        "nft delete table inet gfwtools; for tool in iptables ip6tables; do $tool -t mangle -F; $tool -t nat -F; done",
        code=None,
    )
    # Not MASQUERADE: there the kernel itself ends a connection that leaves by another interface.
    rule = f"-s 192.168.7.0/24 -o wan0 -j SNAT --to-source {GATEWAY_WAN}"
    lab.gateway.run("iptables", "-t", "nat", "-A", "POSTROUTING", *rule.split())


@pytest.mark.parametrize("place", ["host", "lan"])
def test_a_flow_that_began_while_the_rules_were_away_is_healed_by_up(lab: Lab, place: str) -> None:
    flush(lab)
    # It has no answer yet, and sends on.
    flow = begin(lab, place, "udp", SEED)
    assert "to remove from conntrack: they began before the rules" in lab.gateway.gfwtools("up", "--dry-run").stdout
    assert "removed from conntrack: they began before the rules" in lab.gateway.gfwtools("up").stdout
    assert flow.got > 10


@pytest.mark.parametrize("layout", ["paired", "split"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_names_that_were_asked_while_the_rules_were_away_are_answered_after_up(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        flush(lab)
        # dnsmasq's questions leave by the WAN now, and each flow lives as long as a client asks.
        names = [f"{number}.blocked.example" for number in range(3)]
        lab.client.start(sys.executable, HERE / "asking.py", GATEWAY_LAN, *names, ready=True)
        assert lab.leaked() > 0
        lab.gateway.gfwtools("up")
        assert [lab.resolve(lab.client, name) for name in names] == [BLOCKED] * len(names)


# ------------------------------------------------------------ the size of segments

MSS = """
import socket, sys
with socket.create_connection((sys.argv[1], 8000), timeout=4) as connection:
    print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""


#: What a tunnel of 1420 bytes has room for, without the headers of IP and TCP.
SIZES = pytest.mark.parametrize(("site", "size"), [(SEED, 1380), (BLOCKED6, 1360)], ids=["ipv4", "ipv6"])


@SIZES
@pytest.mark.parametrize("place", ["host", "lan"])
def test_a_syn_that_enters_the_tunnel_has_a_size_that_fits(lab: Lab, place: str, site: str, size: int) -> None:
    lab.gateway.gfwtools("up")
    change(lab, "add", site)
    too_big = Count(lab.far, "prerouting", f"iifname wg0 tcp flags syn tcp option maxseg size > {size}")
    fits = Count(lab.far, "prerouting", f"iifname wg0 tcp flags syn tcp option maxseg size <= {size}")
    assert begin(lab, place, "tcp", site).got == SIZE
    assert (too_big.packets, fits.packets) == (0, 1)


@SIZES
@pytest.mark.parametrize("place", ["host", "lan"])
def test_what_is_sent_into_the_tunnel_fits_though_the_other_end_would_take_more(
    lab: Lab, place: str, site: str, size: int
) -> None:
    lab.gateway.gfwtools("up")
    change(lab, "add", site)
    host = lab.gateway if place == "host" else lab.client
    lab.far.run("ip", "link", "set", "wg0", "mtu", "1500")
    try:
        offered = Count(lab.gateway, "prerouting", f"iifname wg0 tcp flags syn tcp option maxseg size > {size}")
        assert int(host.run(sys.executable, "-c", MSS, site).stdout) <= size
        assert offered.packets == 1
    finally:
        lab.far.run("ip", "link", "set", "wg0", "mtu", "1420")


# ------------------------------------------------------------ others that use connection marks

#: What wg-quick(8) inserts for an interface that takes all traffic, and its own mark is the policy's.
WG_QUICK = """*mangle
-I POSTROUTING -m mark --mark 0xca6c -p udp -m comment --comment "wg-quick(8) rule for wg1" -j CONNMARK --save-mark
-I PREROUTING -p udp -m comment --comment "wg-quick(8) rule for wg1" -j CONNMARK --restore-mark
COMMIT
"""
#: As mwan3 does: bits of its own, for every connection that has none.
MWAN3 = """*mangle
:theirs - [0:0]
-A theirs -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00
-A theirs -m mark --mark 0/0x3f00 -j MARK --set-xmark 0x100/0x3f00
-A theirs -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00
-A PREROUTING -j theirs
-A OUTPUT -j theirs
COMMIT
"""
#: A recipe for several uplinks: the whole mark is kept.
WHOLE_MARK = """*mangle
-A PREROUTING -j CONNMARK --restore-mark
-A OUTPUT -j CONNMARK --restore-mark
-A PREROUTING -m mark --mark 0 -j MARK --set-mark 7
-A POSTROUTING -j CONNMARK --save-mark
COMMIT
"""
OTHERS = {"wg-quick": WG_QUICK, "mwan3": MWAN3, "the whole mark": WHOLE_MARK}


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_beside_others_that_mark_connections_every_flow_keeps_its_way(backend: str, others: str) -> None:
    with Lab() as lab:
        prepare(lab)
        lab.gateway.run("iptables-restore", "--noflush", stdin=OTHERS[others])
        lab.configure(backend)
        lab.bootstrap()
        for (place, kind), first in itertools.product(FLOWS, ("add", "del")):
            change(lab, first)
            flow = begin(lab, place, kind)
            change(lab, "del" if first == "add" else "add")
            assert (place, kind, first, flow.got) == (place, kind, first, WHOLE[kind])
        assert begin(lab, "lan", "udp", SEED).got == DATAGRAMS


@pytest.mark.parametrize("backend", BACKENDS)
def test_bits_of_a_connection_mark_that_are_not_ours_stay(backend: str) -> None:
    with Lab() as lab:
        prepare(lab)
        rule = "-i lan0 -m connmark --mark 0 -j CONNMARK --set-mark 0x80000042"
        lab.gateway.run("iptables", "-t", "mangle", "-I", "PREROUTING", *rule.split())
        lab.configure(backend)
        lab.bootstrap()
        marked = Count(lab.gateway, "postrouting", "oifname wg0 ip protocol udp udp dport 8000 ct mark 0x81000042")
        assert begin(lab, "lan", "udp", SEED).got == DATAGRAMS
        assert marked.packets == DATAGRAMS


#: A rule that came later -> what is quoted of it.
LATER = {
    MWAN3: "-j CONNMARK --restore-mark",
    "*mangle\n-A PREROUTING -i lan0 -j MARK --set-mark 5\n-A OUTPUT -j MARK --set-mark 5\nCOMMIT\n": "-j MARK --set-xmark",
}


@pytest.mark.parametrize("later", LATER, ids=["restored", "set"])
def test_a_rule_that_came_later_and_changes_the_mark_is_named_and_up_goes_behind_it(later: str) -> None:
    with Lab() as lab:
        prepare(lab)
        lab.configure("iptables")
        lab.bootstrap()
        lab.gateway.run("iptables-restore", "--noflush", stdin=later)
        found = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=1).stdout)
        bad = {piece["name"]: piece for piece in found if piece["state"] != "OK"}
        assert {"iptables mangle OUTPUT", "iptables mangle PREROUTING"} <= bad.keys()
        detail = bad["iptables mangle PREROUTING"]["detail"]
        assert detail.startswith("a rule behind it changes the mark: ")
        assert LATER[later] in detail
        assert begin(lab, "lan", "udp", SEED).got == 0
        lab.gateway.gfwtools("up")
        lab.gateway.gfwtools("check", "host")
        assert begin(lab, "lan", "udp", SEED).got == DATAGRAMS
