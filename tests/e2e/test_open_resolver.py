"""The resolver of the LAN answers the LAN, and nothing that comes by the WAN or out of the tunnel."""

import itertools
import sys

import pytest
from fresh_host import HERE, FreshHost
from lab import BLOCKED, GATEWAY_LAN, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: An address of the LAN's interface that the Internet can reach.
GLOBAL = "2001:db8:44::1"
SERVERS = (GATEWAY_LAN, GLOBAL)
NONE = ["none", "none"]
ANSWERED = [BLOCKED, BLOCKED]


def lab_with_a_global_address(lab: Lab) -> None:
    """The LAN has global addresses. The WAN's segment and the tunnel's peer know the way to all of the LAN."""
    for host, script in (
        (lab.gateway, f"ip -6 address add {GLOBAL}/64 dev lan0 nodad"),
        (lab.client, "ip -6 address add 2001:db8:44::10/64 dev eth0 nodad"),
        (lab.isp, "ip route add 192.168.7.0/24 via 203.0.113.2; ip -6 route add 2001:db8:44::/64 via 2001:db8:1::2"),
        (lab.far, "ip route add 192.168.7.0/24 dev wg0; ip -6 route add 2001:db8:44::/64 dev wg0"),
    ):
        host.run("sh", "-ec", script)


def asked(host: FreshHost, server: str) -> list[str]:
    return host.run(sys.executable, HERE / "asked.py", server, "blocked.example").stdout.split()


def answers_from_outside(lab: Lab) -> list[str]:
    return [answer for host in (lab.isp, lab.far) for server in SERVERS for answer in asked(host, server)]


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_the_wan_and_the_tunnels_peer_get_no_answer_at_the_lans_addresses(backend: str, layout: str) -> None:
    with Lab(ipv6=True) as lab:
        lab_with_a_global_address(lab)
        lab.configure(backend, layout)
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == NONE * 4
        assert [asked(lab.client, server) for server in SERVERS] == [ANSWERED] * 2
        assert [asked(lab.gateway, server) for server in SERVERS] == [ANSWERED] * 2


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize(
    "own",
    [
        "interface=lan0\nbind-interfaces\n",
        f"listen-address=127.0.0.1,{GATEWAY_LAN},{GLOBAL}\n",
        f"listen-address=127.0.0.1,{GATEWAY_LAN},{GLOBAL}\nbind-interfaces\n",
    ],
)
def test_a_dnsmasq_that_answers_by_address_is_kept_from_the_wan_by_our_rules(backend: str, own: str) -> None:
    with Lab(ipv6=True) as lab:
        lab_with_a_global_address(lab)
        lab.gateway.write("/etc/dnsmasq.conf", f"user=root\n{own}")
        lab.configure(backend)
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == NONE * 4
        assert [asked(lab.client, server) for server in SERVERS] == [ANSWERED] * 2


def test_chosen_addresses_are_kept_from_the_wan_by_our_rules() -> None:
    with Lab(ipv6=True) as lab:
        lab_with_a_global_address(lab)
        lab.configure()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        listen = f'[dns]\nlisten = ["{GATEWAY_LAN}", "{GLOBAL}"]\n'
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace("[dns]\n", listen))
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == NONE * 4
        assert [asked(lab.client, server) for server in SERVERS] == [ANSWERED] * 2


def test_without_our_rules_the_resolver_still_leaves_the_wan_unanswered() -> None:
    with Lab(ipv6=True) as lab:
        lab_with_a_global_address(lab)
        lab.configure()
        lab.bootstrap("--gateway")
        lab.gateway.gfwtools("down")
        assert answers_from_outside(lab) == NONE * 4


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_another_resolver_at_the_wans_own_address_is_left_alone(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap("--gateway")
        lab.gateway.run(
            *("dnsmasq", "--conf-file=/dev/null", "--user=root", "--pid-file=/run/own.pid", "--no-resolv"),
            *("--listen-address=203.0.113.2", "--bind-interfaces", f"--address=/blocked.example/{BLOCKED}"),
        )
        assert asked(lab.isp, "203.0.113.2") == ANSWERED


def test_the_whole_gateway_is_ok_with_a_global_address_on_the_lan() -> None:
    with Lab(ipv6=True) as lab:
        lab_with_a_global_address(lab)
        lab.configure()
        lab.bootstrap("--gateway")
        assert "pieces are OK" in lab.gateway.gfwtools("check", "host").stdout
