"""The resolver of a gateway answers its LANs, and nothing that comes by the WAN or out of the tunnel."""

import itertools
from collections.abc import Iterator

import pytest
from lab import BLOCKED, GATEWAY_LAN, Lab
from nets import ANSWERED, GLOBAL, INSIDE, NONE, SERVERS, answers_from_outside, asked, crafted, in_fragments, widen

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: A dnsmasq that answers by address asks nowhere by which interface a question came.
BY_ADDRESS = f"listen-address=127.0.0.1,{GATEWAY_LAN},{GLOBAL}\n"


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.configure(*request.param)
        lab.bootstrap("--gateway")
        yield lab


def test_the_wan_and_the_tunnels_peer_get_no_answer_at_any_address(lab: Lab) -> None:
    assert answers_from_outside(lab) == set()


def test_the_lan_a_guest_lan_and_containers_are_answered_at_every_address(lab: Lab) -> None:
    assert asked(lab.client, *INSIDE) == dict.fromkeys(INSIDE, ANSWERED)
    assert asked(lab.gateway, "127.0.0.1", *SERVERS) == dict.fromkeys(("127.0.0.1", *SERVERS), ANSWERED)


def test_a_question_in_fragments_is_no_way_round(lab: Lab) -> None:
    assert in_fragments(lab) == ["none", "none", "answered"]


def test_loopback_is_not_reached_from_the_wan(lab: Lab) -> None:
    lab.gateway.run("sysctl", "-qw", "net.ipv4.conf.wan0.route_localnet=1")
    try:
        for port in ("53", "5354"):
            words = ("203.0.113.1", "127.0.0.1", port, "blocked.example")
            assert crafted(lab.isp, "gw0", lab.gateway, "wan0", *words) == "none"
    finally:
        lab.gateway.run("sysctl", "-qw", "net.ipv4.conf.wan0.route_localnet=0")


def test_check_host_asks_from_outside_and_finds_all_well(lab: Lab) -> None:
    said = lab.gateway.gfwtools("check", "host").stdout
    assert "pieces are OK" in said
    assert "does not answer what comes in by wan0 or wg0" in said


@pytest.mark.parametrize(
    ("backend", "own"),
    [
        ("nftables", BY_ADDRESS),
        pytest.param("iptables", BY_ADDRESS, marks=pytest.mark.variant),
        pytest.param("nftables", "interface=lan0\nbind-interfaces\n", marks=pytest.mark.variant),
        pytest.param("iptables", f"{BY_ADDRESS}bind-interfaces\n", marks=pytest.mark.variant),
    ],
)
def test_a_dnsmasq_that_answers_by_address_is_kept_from_the_wan_by_our_rules(backend: str, own: str) -> None:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.gateway.write("/etc/dnsmasq.conf", f"user=root\n{own}")
        lab.configure(backend)
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == set()
        assert in_fragments(lab) == ["none", "none", "answered"]
        ways = (GATEWAY_LAN, GLOBAL)
        assert asked(lab.client, *ways) == dict.fromkeys(ways, ANSWERED)


def test_check_host_finds_the_answer_where_a_rule_of_ours_is_gone() -> None:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.gateway.write("/etc/dnsmasq.conf", f"user=root\n{BY_ADDRESS}")
        lab.configure("iptables")
        lab.bootstrap("--gateway")
        lab.gateway.run("iptables", "-t", "mangle", "-F", "INPUT")
        said = lab.gateway.gfwtools("check", "host", code=1).stdout
        assert f"dnsmasq answers at {GATEWAY_LAN} what comes in by wan0" in said
        assert f"dnsmasq answers at {GATEWAY_LAN} what comes in by wg0" in said
        assert asked(lab.isp, GATEWAY_LAN)[GATEWAY_LAN][0] == BLOCKED, "it is so"


@pytest.mark.variant
def test_chosen_addresses_are_kept_from_the_wan_by_our_rules() -> None:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.configure()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        listen = f'[dns]\nlisten = ["{GATEWAY_LAN}", "{GLOBAL}"]\n'
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace("[dns]\n", listen))
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == set()
        assert asked(lab.client, GATEWAY_LAN) == {GATEWAY_LAN: ANSWERED}


def test_a_dnsmasq_that_serves_all_interfaces_leaves_the_wan_and_the_tunnel_out() -> None:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.gateway.write("/etc/dnsmasq.conf", "user=root\ndhcp-range=192.168.7.100,192.168.7.120\n")
        lab.configure()
        lab.bootstrap("--gateway")
        assert answers_from_outside(lab) == set()
        assert asked(lab.client, *INSIDE) == dict.fromkeys(INSIDE, ANSWERED)
        lab.gateway.gfwtools("down")
        assert answers_from_outside(lab) == set(), "also without our rules"


def test_a_host_that_is_no_gateway_answers_itself_alone() -> None:
    with Lab(ipv6=True) as lab:
        widen(lab)
        lab.configure("nftables", "split", gateway=False)
        lab.bootstrap()
        assert answers_from_outside(lab) == set()
        assert asked(lab.client, *SERVERS) == dict.fromkeys(SERVERS, NONE)
        assert asked(lab.gateway, "127.0.0.1") == {"127.0.0.1": ANSWERED}
        assert "pieces are OK" in lab.gateway.gfwtools("check", "host").stdout


@pytest.mark.parametrize("backend", ["iptables", pytest.param("nftables", marks=pytest.mark.variant)])
def test_another_resolver_at_the_wans_own_address_is_left_alone(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap("--gateway")
        lab.gateway.run(
            *("dnsmasq", "--conf-file=/dev/null", "--user=root", "--pid-file=/run/own.pid", "--no-resolv"),
            *("--listen-address=203.0.113.2", "--bind-interfaces", f"--address=/blocked.example/{BLOCKED}"),
        )
        assert asked(lab.isp, "203.0.113.2") == {"203.0.113.2": ANSWERED}
        assert "pieces are OK" in lab.gateway.gfwtools("check", "host").stdout
