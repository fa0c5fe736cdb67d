"""A firewall that keeps the LAN out of the tunnel is named by its rule, its remedy opens it, and others stay green."""

import itertools
import json
import re
import sys
from typing import Any

import pytest
from firewall_programs import start_firewalld, start_ufw
from firewalls import DOCKER, DOCKER_OPEN, LIBVIRT
from lab import TUNNEL, TUNNEL6, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
BACKENDS = ["iptables", "nftables"]
#: What passes on a gateway of some years: answers, the LAN to the WAN, pings and questions.
KNOWN_WAYS = """
for tool in iptables ip6tables; do
    $tool -P FORWARD DROP
    $tool -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    $tool -A FORWARD -i lan0 -o wan0 -j ACCEPT
    $tool -A FORWARD -p udp -m udp --dport 53 -j ACCEPT
done
iptables -A FORWARD -p icmp -m icmp --icmp-type echo-request -j ACCEPT
ip6tables -A FORWARD -p ipv6-icmp -j ACCEPT
"""
OWN_TABLE = """
table inet own {
    set ways { type ifname; elements = { "wan0", "wan1" }; }
    chain way {
        type filter hook forward priority 10; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        meta l4proto { icmp, ipv6-icmp } accept
        udp dport 53 accept
        iifname "lan0" jump from_lan
    }
    chain from_lan { oifname @ways accept; tcp dport { 22, 25 } reject; }
}
"""
OPEN_TABLE = OWN_TABLE.replace('"wan1"', '"wg0"')
#: The answer is stopped, not the question.
NO_ANSWERS = """
iptables -P FORWARD DROP
iptables -A FORWARD -i lan0 -j ACCEPT
iptables -A FORWARD -i wan0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"""


def firewall(lab: Lab, code: int) -> dict[str, Any]:
    """What check host says of the firewall."""
    pieces = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=code).stdout)
    wrong = [piece["name"] for piece in pieces if piece["state"] != "OK"]
    assert wrong in ([], ["firewall before wg0"]), pieces
    (found,) = [piece for piece in pieces if piece["name"] == "firewall before wg0"]
    assert isinstance(found, dict)
    return found


def forwarding(lab: Lab, code: int) -> dict[str, Any]:
    """The link of check domain --live."""
    text = lab.gateway.gfwtools("check", "domain", "--live", "--json", "blocked.example", code=code).stdout
    (link,) = [link for link in json.loads(text)["links"] if link["name"] == "forwarding"]
    assert isinstance(link, dict)
    return link


def by_hand(lab: Lab, script: str) -> None:
    lab.gateway.run("sh", "-ec", f'gfwtools() {{ {sys.executable} -m gfwtools "$@"; }}\n{script}')


def shut_and_opened(lab: Lab, rule: str) -> None:
    """The LAN does not come through; both commands name ``rule``; one of the remedies opens the way."""
    assert lab.open(lab.client, "blocked.example").startswith("error")
    found = firewall(lab, 1)
    assert (found["state"], rule in found["detail"]) == ("MISMATCH", True), found
    link = forwarding(lab, 1)
    assert (link["state"], rule in link["found"], link["remedy"]) == ("BROKEN", True, found["remedy"]), link
    by_hand(lab, found["remedy"])
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    assert firewall(lab, 0)["state"] == "OK"


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_policy_of_iptables_that_drops_is_named_and_opened(backend: str, layout: str) -> None:
    with Lab(ipv6=True) as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", KNOWN_WAYS)
        shut_and_opened(lab, "iptables -t filter: -P FORWARD DROP")
        assert lab.open(lab.client, "blocked.example", "AAAA") == TUNNEL6


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_policy_of_nft_that_drops_is_named_and_opened(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        lab.gateway.run("nft", "-f", "-", stdin=OPEN_TABLE)
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert firewall(lab, 0)["state"] == "OK"
        lab.gateway.run("nft", "-f", "-", stdin=f"delete table inet own\n{OWN_TABLE}")
        shut_and_opened(lab, "nft inet own way: policy drop")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_firewall_that_stops_the_answers_is_named_and_opened(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", NO_ANSWERS)
        shut_and_opened(lab, "replies from wg0 to lan0 (IPv4): stopped by iptables -t filter: -P FORWARD DROP")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rules_of_iptables_legacy_are_judged_as_well(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "-o", "wg+", "-j", "REJECT")
        rule = "iptables-legacy -t filter: -A FORWARD -o wg+ -p tcp -j REJECT --reject-with icmp-port-unreachable"
        shut_and_opened(lab, rule)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ipset_decides_as_it_does_for_the_packet(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", "ipset create out hash:net; ipset add out 198.18.0.0/24; ipset add out 8.8.8.0/24")
        lab.gateway.run("iptables", "-A", "FORWARD", "-m", "set", "--match-set", "out", "dst", "-j", "DROP")
        shut_and_opened(lab, "--match-set out dst -j DROP")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_that_is_not_understood_leaves_no_clean_resolver_unasked(backend: str) -> None:
    with Lab() as lab:
        lab.gateway.write("/etc/work.txt", "work.example\n")
        lab.configure(
            backend, more='[policy.work]\nformat = "domains"\nsources = ["/etc/work.txt"]\ninterface = "wg0"\n'
        )
        lab.bootstrap()
        lab.gateway.run(
            "iptables", *["-A", "FORWARD", "-i", "lan0", "-m", "recent", "--name", "seen", "--rcheck", "-j", "DROP"]
        )
        pieces = json.loads(lab.gateway.gfwtools("check", "host", "--json").stdout)
        asked = [piece["name"] for piece in pieces if piece["name"].startswith("clean resolver")]
        assert asked == ["clean resolver of gfwlist", "clean resolver of work"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_that_is_not_understood_makes_the_firewall_unknown(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        rule = "-A FORWARD -i lan0 -m connbytes --connbytes 0:1000000 --connbytes-mode bytes --connbytes-dir both"
        lab.gateway.run("iptables", *rule.split(), "-j", "REJECT")
        found = firewall(lab, 0)
        assert found["state"] == "UNKNOWN"
        assert "-m connbytes" in found["detail"]
        told = lab.gateway.gfwtools("check", "host").stdout
        assert "1 not checked" in told
        assert "pieces are OK" not in told
        told = lab.gateway.gfwtools("check", "domain", "--live", "blocked.example").stdout
        assert told.endswith("nothing is broken in what could be checked; not checked: forwarding\n")


# ---------------------------------------------------------------- the programs that people have


@pytest.mark.parametrize("backend", BACKENDS)
def test_ufw_that_keeps_the_lan_out_is_opened_by_its_own_command(backend: str) -> None:
    with Lab(ipv6=True) as lab:
        start_ufw(lab.gateway)
        lab.configure(backend)
        told = lab.bootstrap(code=1).stderr
        assert "fix: ufw route allow in on lan0 out on wg0" in told
        shut_and_opened(lab, "-P FORWARD DROP")
        assert lab.open(lab.client, "blocked.example", "AAAA") == TUNNEL6
        assert forwarding(lab, 0)["state"] == "OK"


@pytest.mark.parametrize("backend", BACKENDS)
def test_firewalld_that_keeps_the_lan_out_is_opened_by_its_own_commands(backend: str) -> None:
    with Lab(ipv6=True) as lab:
        start_firewalld(lab.gateway)
        lab.configure(backend)
        lab.bootstrap(code=1)
        rule = "nft inet firewalld filter_FWD_internal: reject with icmpx admin-prohibited"
        found = firewall(lab, 1)
        # Its filter for the reverse path stops the answers of IPv6.
        assert re.search(
            r"replies from wg0 to lan0 \(IPv6\): stopped by nft inet firewalld \S+: .* fib saddr", found["detail"]
        )
        shut_and_opened(lab, rule)
        assert lab.open(lab.client, "blocked.example", "AAAA") == TUNNEL6
        assert forwarding(lab, 0)["state"] == "OK"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rules_of_docker_keep_the_lan_out_until_its_chain_opens(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.gateway.run("iptables-restore", "-n", stdin=DOCKER.format(user=""))
        lab.bootstrap(code=1)
        shut_and_opened(lab, "-P FORWARD DROP")
        assert "-A DOCKER-USER -i lan0 -o wg0 -j ACCEPT" in lab.gateway.run("iptables", "-S").stdout


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", [DOCKER.format(user=DOCKER_OPEN), LIBVIRT], ids=["docker", "libvirt"])
def test_a_healthy_gateway_with_docker_or_libvirt_is_green(backend: str, rules: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.gateway.run("iptables-restore", "-n", stdin=rules)
        lab.gateway.run("sh", "-ec", "ip link add virbr0 type bridge; ip address add 192.168.122.1/24 dev virbr0; "
                        "ip link set virbr0 up")  # fmt: skip
        lab.bootstrap()
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert firewall(lab, 0)["state"] == "OK"
        assert forwarding(lab, 0)["state"] == "OK"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_is_kept_from_the_internet_altogether_is_left_out(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", "ip link add iot0 type bridge; ip address add 192.168.9.1/24 dev iot0; ip link set iot0 up; "
                        "iptables -A FORWARD -i iot0 -j DROP")  # fmt: skip
        assert firewall(lab, 0)["state"] == "OK"
        lab.gateway.run("iptables", "-I", "FORWARD", "-i", "iot0", "-o", "wan0", "-j", "ACCEPT")
        assert "-A FORWARD -i iot0 -j DROP" in firewall(lab, 1)["detail"]
