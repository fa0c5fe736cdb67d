"""Where a firewall surely keeps the LAN out of the tunnel, and where that is not sure."""

import json
from typing import Any

import pytest

from gfwtools.diagnose.firewall import opening_in_iptables, opening_in_nftables

DROPS = "-P FORWARD DROP\n-N OTHERS\n-A FORWARD -j OTHERS\n-A OTHERS -s 10.0.0.0/8 -j LOG\n-A INPUT -j ACCEPT\n"


@pytest.mark.parametrize(
    "rules",
    [
        DROPS,
        DROPS + "-A FORWARD -i lan0 -o wan0 -j ACCEPT\n",
        DROPS + "-A FORWARD ! -o wg0 -j ACCEPT\n",
        DROPS + "-A FORWARD -o wan+ -j ACCEPT\n",
        DROPS + "-A OTHERS -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
        DROPS + "-A OTHERS -m state --state ESTABLISHED -j ACCEPT\n",
        "-P FORWARD ACCEPT\n-A FORWARD -o wan0 -j ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n",
    ],
)
def test_iptables_keeps_the_lan_out_where_no_rule_can_mean_the_tunnel(rules: str) -> None:
    assert opening_in_iptables(rules, "wg0") == "iptables -I FORWARD -o wg0 -j ACCEPT"


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "-P FORWARD ACCEPT\n",
        DROPS + "-A FORWARD -i lan0 -j ACCEPT\n",
        DROPS + "-A OTHERS -o wg+ -j ACCEPT\n",
        DROPS + "-A FORWARD ! -o wan0 -j ACCEPT\n",
        DROPS + "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\n",
        DROPS + "-A FORWARD -m conntrack ! --ctstate INVALID -j ACCEPT\n",
        DROPS + "-A FORWARD -j NFQUEUE --queue-num 0\n",
    ],
)
def test_iptables_may_be_open_where_one_rule_may_mean_the_tunnel(rules: str) -> None:
    assert opening_in_iptables(rules, "wg0") == ""


def ruleset(*expressions: list[dict[str, Any]], policy: str = "drop", family: str = "inet") -> str:
    chain = {"family": family, "table": "own", "name": "way", "hook": "forward", "policy": policy}
    of = {"family": family, "table": "own"}
    incoming = {**of, "chain": "in", "expr": [{"accept": None}]}
    items: list[dict[str, Any]] = [{"chain": chain}, {"chain": {**of, "name": "in", "hook": "input"}}]
    items += [{"rule": incoming}, *({"rule": {**of, "chain": "way", "expr": each}} for each in expressions)]
    return json.dumps({"nftables": [{"metainfo": {}}, *items]})


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


OUT, STATE = {"meta": {"key": "oifname"}}, {"ct": {"key": "state"}}
ACCEPT = {"accept": None}


@pytest.mark.parametrize(
    "text",
    [
        ruleset(),
        ruleset([match(OUT, "wan0"), ACCEPT]),
        ruleset([match(OUT, {"set": ["wan0", "eth*"]}), ACCEPT]),
        ruleset([match(OUT, "wg0", "!="), ACCEPT]),
        ruleset([match(STATE, ["established", "related"], "in"), ACCEPT]),
        ruleset([match(OUT, "wg0"), {"drop": None}]),
    ],
)
def test_nftables_keeps_the_lan_out_where_no_rule_can_mean_the_tunnel(text: str) -> None:
    assert opening_in_nftables(text, "wg0") == "nft insert rule inet own way oifname wg0 accept"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "",
        ruleset(policy="accept"),
        ruleset(family="ip6"),
        ruleset([ACCEPT]),
        ruleset([match(OUT, {"set": ["wan0", "wg0"]}), ACCEPT]),
        ruleset([match(OUT, "wg*"), ACCEPT]),
        ruleset([match(OUT, "wan0", "!="), ACCEPT]),
        ruleset([match(OUT, "@ways"), ACCEPT]),
        ruleset([match(STATE, "new"), ACCEPT]),
        ruleset([{"vmap": {"key": STATE, "data": {"set": []}}}]),
    ],
)
def test_nftables_may_be_open_where_one_rule_may_mean_the_tunnel(text: str) -> None:
    assert opening_in_nftables(text, "wg0") == ""
