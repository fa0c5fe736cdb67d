"""The facts about packets that only nftables has, made by hand and without gfwtools; ``test_facts.py`` has the others."""

import itertools
import sys
from collections.abc import Iterator

import pytest
from fresh_host import HERE, MAIN, RESTART, FreshHost
from lab import BLOCKED, CLEAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

MARK, TABLE = "0xca6c", "51820"
RULESET = f"""
table inet facts {{
    set seed {{
        type ipv4_addr
        flags interval
        elements = {{ 198.18.0.0/24, {CLEAN} }}
    }}
    chain output {{
        type route hook output priority mangle
        ip daddr @seed meta mark set {MARK}
    }}
    chain prerouting {{
        type filter hook prerouting priority mangle
        iifname lan0 ip daddr @seed meta mark set {MARK}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname wg0 masquerade
    }}
}}
"""
ROUTING = f"""
ip route add default dev wg0 table {TABLE}
ip rule add pref 5181 fwmark {MARK} lookup {TABLE}
"""
MENDINGS = """
sysctl -qw net.ipv4.conf.wg0.rp_filter=2
ip rule add pref 5180 lookup main suppress_prefixlength 0
"""


def reached(lab: Lab) -> tuple[bool, bool]:
    """Whether the blocked site is reached through the tunnel: by the gateway, by its LAN."""
    own, lan = (lab.visit(host, BLOCKED, 0.7) == TUNNEL for host in (lab.gateway, lab.client))
    return own, lan


def plain_recipe(lab: Lab) -> None:
    lab.gateway.run("nft", "-f", "-", stdin=RULESET)
    lab.gateway.run("sh", "-ec", ROUTING)


def test_the_plain_recipe_fails_with_strict_filtering() -> None:
    with Lab(rp_filter=1) as lab:
        plain_recipe(lab)
        assert reached(lab) == (False, False)


@pytest.mark.parametrize(("rp_filter", "src_valid_mark"), list(itertools.product((0, 1, 2), (0, 1))))
def test_with_both_mendings_all_six_combinations_work(rp_filter: int, src_valid_mark: int) -> None:
    with Lab(rp_filter=rp_filter, src_valid_mark=src_valid_mark) as lab:
        plain_recipe(lab)
        lab.gateway.run("sh", "-ec", MENDINGS)
        assert reached(lab) == (True, True)
        assert lab.leaked() == 0


# ------------------------------------------------------------ sets of intervals

INSIDE = "198.18.0.0/16"  # the stub resolver's answers lie in it


@pytest.fixture
def host() -> Iterator[FreshHost]:
    with FreshHost() as host:
        host.stub_resolver(5302, "198.18")
        yield host


def learn(host: FreshHost, name: str = "a.example") -> tuple[str, str]:
    """Ask dnsmasq, which puts what it learns into the set: the address, and what it logged of the set."""
    host.write("/etc/dnsmasq.conf", f"{MAIN}log-queries\nlog-facility=/run/dns.log\nnftset=/#/4#inet#facts#s\n")
    host.write("/etc/restart-dns", RESTART)
    host.run("sh", "/etc/restart-dns")
    host.wait_for_dns()
    answer = host.run(sys.executable, HERE / "ask.py", "127.0.0.1", "53", stdin=name).stdout
    log = [line for line in host.read("/run/dns.log").splitlines() if ": nftset " in line]
    return answer.split('"')[3], "\n".join(log)


def make_set(host: FreshHost, flags: str, *elements: str) -> None:
    listed = f"elements = {{ {', '.join(elements)} }}" if elements else ""
    host.run("nft", "-f", "-", stdin=f"table inet facts {{\nset s {{\ntype ipv4_addr\n{flags}\n{listed}\n}}\n}}\n")


def add(host: FreshHost, element: str) -> str:
    """What nft says when ``element`` is added: nothing where it is."""
    return host.run("nft", "add", "element", "inet", "facts", "s", f"{{ {element} }}", code=None).stderr


def test_dnsmasq_cannot_add_an_address_that_lies_in_an_interval_of_the_set(host: FreshHost) -> None:
    make_set(host, "flags interval", INSIDE)
    address, log = learn(host)
    assert "interval overlaps with an existing one" in log
    assert address not in host.run("nft", "list", "set", "inet", "facts", "s").stdout


def test_a_network_cannot_be_added_over_addresses_that_were_learned(host: FreshHost) -> None:
    make_set(host, "flags interval", "198.18.1.1", "198.18.1.9")
    assert "interval overlaps with an existing one" in add(host, INSIDE)


def test_a_set_that_is_no_interval_set_takes_what_dnsmasq_learns_and_no_network(host: FreshHost) -> None:
    make_set(host, "")
    address, log = learn(host)
    assert "Error" not in log
    assert address in host.run("nft", "list", "set", "inet", "facts", "s").stdout
    assert "flags interval" in add(host, INSIDE)
