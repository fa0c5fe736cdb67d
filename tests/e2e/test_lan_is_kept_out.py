"""What keeps the LAN, or this host's own questions, out of the tunnel is named by its rule, and so is the remedy."""

import itertools
import json
from typing import Any

import pytest
from lab import GATEWAY_WAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
BACKENDS = ["iptables", "nftables"]


def bad(lab: Lab) -> list[dict[str, Any]]:
    """What check host does not find OK."""
    found = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=None).stdout)
    return [piece for piece in found if piece["state"] != "OK"]


def broken(lab: Lab) -> dict[str, Any]:
    """The link that is broken for the blocked name."""
    done = lab.gateway.gfwtools("check", "domain", "--live", "--json", "blocked.example", code=1)
    chain = json.loads(done.stdout)
    return next(link for link in chain["links"] if link["name"] == chain["broken"])


def repaired(lab: Lab, remedy: str) -> None:
    """The remedy works when it is typed, and no verdict stays red."""
    lab.gateway.run("sh", "-ec", remedy)
    lab.gateway.run("sh", "-ec", "kill -HUP $(cat /run/dnsmasq/dnsmasq.pid)")
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    assert bad(lab) == []


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
@pytest.mark.parametrize(
    "rule",
    ["pref 77 from 192.168.7.0/24 lookup 254", "pref 78 iif lan0 lookup 254", "pref 79 iif lan0 prohibit"],
)
def test_a_routing_rule_that_keeps_the_lan_out_of_the_tunnel_is_named(backend: str, layout: str, rule: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        lab.gateway.run("ip", "rule", "add", *rule.split())
        assert lab.open(lab.client, "blocked.example") != TUNNEL
        (piece,) = [piece for piece in bad(lab) if piece["name"].startswith("route from ")]
        assert rule in piece["detail"]
        assert broken(lab)["remedy"] == piece["remedy"]
        repaired(lab, broken(lab)["remedy"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_before_dnsmasq_that_is_not_understood_is_no_green_link(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        rule = "-A INPUT -i lan0 -p udp -m recent --name asked --rcheck -j DROP"
        lab.gateway.run("iptables", *rule.split())
        links = json.loads(lab.gateway.gfwtools("check", "domain", "--live", "--json", "blocked.example").stdout)[
            "links"
        ]
        (link,) = [link for link in links if link["name"] == "dnsmasq"]
        assert (link["state"], "-m recent" in link["found"]) == ("UNKNOWN", True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("iptables -A INPUT -i lan0 -p udp -m udp --dport 53 -j DROP", "-A INPUT -i lan0 -p udp -m udp --dport 53 -j DROP"),
        ("iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -i lan0 -p tcp --dport 22 -j ACCEPT; "
         "iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-P INPUT DROP"),
        ("nft 'add table inet own; add chain inet own inp { type filter hook input priority 0; }; "
         'add rule inet own inp iifname { "lan0", "eth7" } meta l4proto udp th dport 53 drop\'', "dport 53 drop"),
        ("ipset create shut hash:ip,port; ipset add shut 192.168.7.1,udp:53; "
         "iptables -A INPUT -i lan0 -m set --match-set shut dst,dst -j DROP", "--match-set shut dst,dst -j DROP"),
    ],
    ids=["rule", "policy", "nft", "ipset"],
)  # fmt: skip
def test_a_firewall_that_keeps_the_lans_questions_from_dnsmasq_is_named(backend: str, rules: str, place: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", rules)
        (piece,) = bad(lab)
        assert piece["name"] == "firewall before dnsmasq"
        assert place in piece["detail"]
        assert place in broken(lab)["found"]
        repaired(lab, piece["remedy"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -i lan0 -j ACCEPT; "
         "iptables -A INPUT -i wan0 -j ACCEPT", "-P INPUT DROP"),
        ("iptables -A OUTPUT -p udp -m udp --dport 53 -m mark ! --mark 0x0 -j DROP", "--mark 0x0 -j DROP"),
        ("nft 'add table inet own; add chain inet own inp { type filter hook input priority 5; policy drop; }; "
         'add rule inet own inp iifname { "lo", "lan0", "wan0" } accept\'', "inet own inp: policy drop"),
    ],
    ids=["input", "output", "nft"],
)  # fmt: skip
def test_a_firewall_that_keeps_this_host_from_the_clean_resolver_is_named(backend: str, rules: str, place: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", rules)
        (piece,) = bad(lab)
        assert piece["name"] == "clean resolver of gfwlist"
        assert place in piece["detail"]
        assert place in broken(lab)["found"]
        assert broken(lab)["remedy"] == piece["remedy"]
        repaired(lab, piece["remedy"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_question_that_is_sent_to_another_resolver_is_no_green_host(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        # Behind the routing, so that both backends see it: the tunnel's peer does not know this address.
        lab.gateway.run("sh", "-ec", "iptables -t nat -I OUTPUT -p udp -d 8.8.8.8 --dport 53 -j DNAT --to 8.8.4.9")
        assert "clean resolver of gfwlist" in [piece["name"] for piece in bad(lab)]


@pytest.mark.parametrize(
    "rules",
    [
        f"iptables -t nat -I POSTROUTING -s 192.168.7.0/24 -j SNAT --to-source {GATEWAY_WAN}",
        "iptables -t nat -N own; iptables -t nat -I POSTROUTING -s 192.168.7.0/24 -j own; "
        f"iptables -t nat -A own -j SNAT --to-source {GATEWAY_WAN}",
        "iptables -t nat -I POSTROUTING -s 192.168.7.0/24 -j ACCEPT",
        "iptables -t nat -N own; iptables -t nat -I POSTROUTING -j own; "
        "iptables -t nat -A own -s 192.168.7.0/24 -j ACCEPT",
    ],
    ids=["rule", "chain", "accept", "accept in a chain"],
)
def test_a_rule_before_ours_that_takes_the_tunnels_packets_is_named(rules: str) -> None:
    with Lab() as lab:
        lab.configure("iptables")
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", rules)
        assert lab.open(lab.client, "blocked.example") != TUNNEL
        (piece,) = bad(lab)
        assert rules[rules.rindex("-j ") :] in piece["detail"]
        assert broken(lab)["remedy"] == piece["remedy"] == "gfwtools up"
        lab.gateway.gfwtools("up")
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert bad(lab) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_chain_of_nft_that_translates_before_ours_is_named(backend: str) -> None:
    chain = "ip other post { type nat hook postrouting priority 50; }"
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        rule = f"ip saddr 192.168.7.0/24 snat to {GATEWAY_WAN}"
        lab.gateway.run("nft", "-f", "-", stdin=f"table ip other\nadd chain {chain}\nadd rule ip other post {rule}\n")
        assert lab.open(lab.client, "blocked.example") != TUNNEL
        (piece,) = bad(lab)
        assert f"given another address by nft ip other post: {rule}" in piece["detail"]
        assert broken(lab)["remedy"] == piece["remedy"]
        repaired(lab, piece["remedy"])


def test_address_translation_that_leaves_the_tunnel_alone_is_green_before_ours() -> None:
    with Lab() as lab:
        lab.configure("iptables")
        lab.bootstrap()
        for rule in (
            f"-o wan+ -j SNAT --to-source {GATEWAY_WAN}",
            f"! -o wg+ -j SNAT --to-source {GATEWAY_WAN}",
            "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
            "-m policy --dir out --pol ipsec -j ACCEPT",
            "-s 192.168.7.0/24 -d 10.0.0.0/8 -j ACCEPT",
        ):
            lab.gateway.run("iptables", "-t", "nat", "-I", "POSTROUTING", *rule.split())
        assert bad(lab) == []
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_firewall_by_connection_mark_is_judged(backend: str) -> None:
    with Lab() as lab:
        lab.configure(backend)
        lab.bootstrap()
        rule = "-A FORWARD -m connmark ! --mark 0x0 -j DROP"
        lab.gateway.run("iptables", *rule.split())
        (piece,) = bad(lab)
        assert (piece["state"], rule in piece["detail"]) == ("MISMATCH", True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_careful_firewall_that_lets_all_of_this_pass_is_green(backend: str) -> None:
    rules = """
table inet own {
    set inner { type ifname; elements = { "lan0", "lan1" } }
    set outer { type ifname; elements = { "wan0", "wg0" } }
    chain i {
        type filter hook input priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iif lo accept
        iifname @inner meta l4proto { tcp, udp } th dport { 53, 67 } accept
        iifname "wan0" udp sport 67 accept
    }
    chain f {
        type filter hook forward priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname @inner oifname @outer accept
    }
    chain o {
        type filter hook output priority 0; policy drop;
        meta skuid != 0 meta l4proto { tcp, udp } th dport 53 accept
        meta skuid 0 accept
    }
}
"""
    with Lab() as lab:
        lab.gateway.run("nft", "-f", "-", stdin=rules)
        lab.configure(backend)
        lab.bootstrap()
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert bad(lab) == []
