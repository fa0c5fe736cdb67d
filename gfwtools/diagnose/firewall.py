"""Does another program's firewall block the LAN from a tunnel? Reported only where it is certain.

The rules of an arbitrary firewall do not show where a packet ends. But where a chain drops what nothing accepts,
and none of the rules that accept can mean a new connection into the tunnel, no such connection gets through.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gfwtools.system.commands import Runner

__all__ = ["opening", "opening_in_iptables", "opening_in_nftables"]

# The tables that iptables-legacy has in this network namespace.
_LEGACY_TABLES = Path("/proc/net/ip_tables_names")
# Of netfilter's targets those that never let a packet on: all others (ACCEPT, NFQUEUE, a user's own) may.
_STOPS = frozenset({"DROP", "REJECT"})
_PASSES_BY = frozenset({"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "RETURN", "TRACE", "AUDIT", "NOTRACK"})


def opening(runner: Runner, interface: str) -> str:
    """The command that opens the firewall for IPv4 that is forwarded into ``interface``; empty where it may be open."""
    ruleset = runner.ask("nft", "-j", "-t", "list", "ruleset")
    # To list the filter table of iptables is to make it, where there is none.
    filters = ruleset is None or any(
        item.get("table", {}).get("family") == "ip" and item["table"]["name"] == "filter" for item in _items(ruleset)
    )
    if not filters:
        with suppress(OSError):
            filters = "filter" in _LEGACY_TABLES.read_text().split()
    command = opening_in_iptables(runner.ask("iptables", "-w", "-S") or "", interface) if filters else ""
    return command or opening_in_nftables(ruleset or "", interface)


def opening_in_iptables(rules: str, interface: str) -> str:
    """:func:`opening` by ``rules``, as ``iptables -S`` lists the filter table."""
    lines = [line.split() for line in rules.splitlines()]
    ends = ["-P", "FORWARD", "DROP"] in lines
    ends = ends or any(words[:3] == ["-A", "FORWARD", "-j"] and words[3] in _STOPS for words in lines)
    chains = {words[1] for words in lines if words[:1] == ["-N"]}  # their own rules say what becomes of a packet
    if not ends or any(_may_pass(words, chains, interface) for words in lines):
        return ""
    return f"iptables -I FORWARD -o {interface} -j ACCEPT"


def _may_pass(words: list[str], chains: set[str], interface: str) -> bool:
    """Whether the rule may let a new connection into ``interface`` on."""
    if words[:1] != ["-A"] or words[1] in ("INPUT", "OUTPUT") or "-j" not in words:
        return False  # -g goes to a chain
    target = words[words.index("-j") + 1]
    if target in _STOPS or target in _PASSES_BY or target in chains:
        return False
    for option in ("--ctstate", "--state"):
        if option in words:
            place = words.index(option)
            if words[place - 1] != "!" and "NEW" not in words[place + 1].split(","):
                return False
    if "-o" not in words:
        return True
    place = words.index("-o")
    is_it = _matches(words[place + 1].replace("+", "*"), interface)
    return is_it != (words[place - 1] == "!")


def opening_in_nftables(ruleset: str, interface: str) -> str:
    """:func:`opening` by ``ruleset``, as ``nft -j list ruleset`` prints it."""
    items = _items(ruleset)
    chains = [item["chain"] for item in items if "chain" in item]
    rules = [item["rule"] for item in items if "rule" in item]
    for chain in chains:
        family, table = chain["family"], chain["table"]
        if chain.get("hook") != "forward" or chain.get("policy") != "drop" or family not in ("ip", "inet"):
            continue
        others = {
            each["name"]
            for each in chains
            if (each["family"], each["table"]) == (family, table) and each.get("hook", "forward") != "forward"
        }
        of_table = [rule for rule in rules if (rule["family"], rule["table"]) == (family, table)]
        if not any(_may_accept(rule["expr"], interface) for rule in of_table if rule["chain"] not in others):
            return f"nft insert rule {family} {table} {chain['name']} oifname {interface} accept"
    return ""


def _items(ruleset: str) -> list[dict[str, Any]]:
    try:
        items = json.loads(ruleset)["nftables"]
    except (ValueError, LookupError):
        return []
    return list(items)


def _may_accept(expressions: Iterable[dict[str, Any]], interface: str) -> bool:
    kinds = {kind for expression in expressions for kind in expression}
    if not kinds & {"accept", "vmap", "queue", "xt"}:
        return False
    for expression in expressions:
        match expression.get("match"):
            case {"left": {"meta": {"key": "oifname"}}, "op": op, "right": right}:
                names = right.get("set", []) if isinstance(right, dict) else [right]
                if all(isinstance(name, str) and not name.startswith("@") for name in names):  # @: a set of its own
                    is_it = any(_matches(name, interface) for name in names)
                    if is_it == (op == "!="):
                        return False
            case {"left": {"ct": {"key": "state"}}, "op": "==" | "in", "right": right}:
                states = right.get("set", []) if isinstance(right, dict) else right
                if "new" not in states:
                    return False
    return True


def _matches(pattern: str, interface: str) -> bool:
    return interface.startswith(pattern[:-1]) if pattern.endswith("*") else interface == pattern
