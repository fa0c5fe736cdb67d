"""Does a rule of another program in the chains of iptables undo what ours do? Pure.

Behind our jump a rule may change the packet's mark. Before our translation another one may take the tunnel's packets.
``up`` then puts ours in their place again.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Any, NamedTuple

from gfwtools.plumbing.iptables_rule import JUMPS, Chain, jumps_to, option
from gfwtools.plumbing.wanted import CHAIN
from gfwtools.system import ownership

__all__ = ["Overtaken", "overtaken_in"]

#: Whether a packet of the tunnel matches; None where that is not known.
Truth = bool | None
#: Matches that a part of the tunnel's packets passes whatever their values are, and comments.
_PASSED = frozenset(
    ("-s", "-p", "--sport", "--dport", "--sports", "--dports", "--ports", "--icmp-type", "--tcp-flags", "--syn")
) | {"--comment", "--limit", "--limit-burst", "--probability", "--mode", "--every", "--packet"}

_MODULES = frozenset(
    ("addrtype", "comment", "conntrack", "connmark", "icmp", "icmp6", "limit", "mark", "multiport", "policy", "state")
) | {"statistic", "tcp", "udp"}


#: Networks of sites, and what is not sent to one address: nothing of them is in a set.
_OWN: tuple[Any, ...] = (
    *map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12")),
    *map(ip_network, ("192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(ip_network, ("::1/128", "fc00::/7", "fe80::/10", "ff00::/8")),
)


class Overtaken(NamedTuple):
    """What undoes our rules in a chain."""

    why: str
    """With the rule."""
    certain: bool = True
    """False where it is not known whether the rule matches packets of the tunnel."""


def overtaken_in(lines: Sequence[tuple[Chain, str]]) -> Iterator[tuple[Chain, Overtaken]]:
    """The chains where a rule of another program, or one in a chain that it leads to, undoes what ours do, or may."""
    foreign = [(chain, rule) for chain, rule in lines if chain.name != CHAIN and not ownership.is_rule(rule)]
    yield from _marked_anew(lines, foreign)
    yield from _translated_before(lines, foreign)


def _marked_anew(
    lines: Sequence[tuple[Chain, str]], foreign: Sequence[tuple[Chain, str]]
) -> Iterator[tuple[Chain, Overtaken]]:
    marking = _leading_to([found for found in foreign if found[0].table == "mangle"], _marks)
    for hook in JUMPS:
        rules = [(chain, rule) for chain, rule in lines if (chain.table, chain.name) == ("mangle", hook)]
        jumps = [place for place, (_, rule) in enumerate(rules) if jumps_to(CHAIN, rule)]
        for chain, rule in rules[jumps[-1] + 1 :] if jumps else ():
            if found := _decisive(rule, _marks, marking):
                yield chain, Overtaken(f"a rule behind it changes the mark: {found}")


def _translated_before(
    lines: Sequence[tuple[Chain, str]], foreign: Sequence[tuple[Chain, str]]
) -> Iterator[tuple[Chain, Overtaken]]:
    """The first rule that certainly takes packets of a tunnel before ours; without one, the first that may."""
    inside = [found for found in foreign if found[0].table == "nat"]
    rules = [(chain, rule) for chain, rule in lines if (chain.table, chain.name) == ("nat", "POSTROUTING")]
    ours = [place for place, (_, rule) in enumerate(rules) if ownership.is_rule(rule)]
    if not ours:
        return
    tunnels = [(option("-o", rules[place][1]), int(option("--mark", rules[place][1]) or "0", 0)) for place in ours]
    found = []
    for does, words in _TAKES.items():
        leading = _all_leading_to(inside, does)
        for chain, rule in rules[: ours[0]]:
            ends = [(rule, True)] if does(rule, True) else leading.get(_target(rule), [])
            for end, is_reached in ends:
                certain = _any_passes(tunnels, rule, end)
                if certain is not None:
                    found.append((chain, Overtaken(f"{words}: {end}", certain and is_reached)))
    yield from sorted(found, key=lambda each: not each[1].certain)[:1]


def _any_passes(tunnels: Iterable[tuple[str, int]], *rules: str) -> bool | None:
    """Whether packets of one of the tunnels certainly match all ``rules``; None where none of them does."""
    found = [[_matches(rule, interface, mark) for rule in rules] for interface, mark in tunnels]
    possible = [truths for truths in found if False not in truths]
    return any(None not in truths for truths in possible) if possible else None


# ---------------------------------------------------------------- what a rule does


def _changes_address(rule: str, is_base: bool) -> bool:
    """Whether a rule gives a packet an address that is not the tunnel's, as MASQUERADE never does."""
    return jumps_to("SNAT", rule) or jumps_to("NETMAP", rule)


def _ends(rule: str, is_base: bool) -> bool:
    """Whether a packet that matches meets no other rule: in the base chain RETURN is the policy."""
    return jumps_to("ACCEPT", rule) or (is_base and jumps_to("RETURN", rule))


#: What a rule may do to packets before our translation -> how that is named.
_TAKES: dict[Callable[[str, bool], bool], str] = {
    _changes_address: "a rule before it gives the packets another address",
    _ends: "a rule before it lets the packets keep their address",
}


def _marks(rule: str) -> bool:
    """Whether a rule sets a packet's mark, or restores it from the connection mark."""
    return " --restore-mark" in f" {rule}" or jumps_to("MARK", rule)


def _leading_to(lines: Sequence[tuple[Chain, str]], does: Callable[[str], bool]) -> dict[str, str]:
    """The chains of a table with a rule that ``does`` something, and those that lead to one -> the first such rule."""
    found = {chain.name: rule for chain, rule in reversed(lines) if does(rule)}
    reached = True
    while reached:
        leads = {
            chain.name: found[name]
            for chain, rule in lines
            for name in found
            if chain.name not in found and jumps_to(name, rule)
        }
        reached = bool(leads)
        found |= leads
    return found


def _decisive(rule: str, does: Callable[[str], bool], leading: Mapping[str, str]) -> str:
    """The rule itself where it ``does`` it, or the one that it leads to; empty where neither does."""
    return rule if does(rule) else next((found for name, found in leading.items() if jumps_to(name, rule)), "")


def _all_leading_to(
    lines: Sequence[tuple[Chain, str]], does: Callable[[str, bool], bool]
) -> dict[str, list[tuple[str, bool]]]:
    """The chains of a table -> the rules that do it, in them and in those that they lead to; and whether no rule before
    may have sent the packet back."""
    inside: dict[str, list[str]] = {}
    for chain, rule in lines:
        inside.setdefault(chain.name, []).append(rule)

    def found(name: str, above: frozenset[str]) -> Iterator[tuple[str, bool]]:
        is_reached = True
        for rule in inside.get(name, ()) if name not in above else ():
            if does(rule, False):
                yield rule, is_reached
            for deeper, reached_there in found(_target(rule), above | {name}):
                yield deeper, is_reached and reached_there
            is_reached = is_reached and not jumps_to("RETURN", rule)

    return {name: list(found(name, frozenset())) for name in inside}


def _target(rule: str) -> str:
    return option("-j", rule) or option("-g", rule)


# ---------------------------------------------------------------- what a rule matches


def _matches(rule: str, interface: str, mark: int) -> Truth:
    """Whether some packets that leave by the tunnel with our mark match; None where that is not known."""
    truth: Truth = True
    module = ""
    for negated, name, values in _options(rule):
        if name == "-m":
            module = values[0]
            found: Truth = True if module in _MODULES else None
        else:
            found = _option_matches(module, name, values[0] if values else "", negated, interface, mark)
        if found is False:
            return False
        truth = truth if found else None
    return truth


def _options(rule: str) -> Iterator[tuple[bool, str, list[str]]]:
    """Whether it is negated, its name and its words, of each option before the target."""
    words = shlex.split(rule)
    negated = False
    place = 0
    while place < len(words) and words[place] not in ("-j", "-g"):
        name = words[place]
        place += 1
        if name == "!":
            negated = True
            continue
        values: list[str] = []
        while place < len(words) and (
            (name == "--comment" and not values) or not (words[place] == "!" or words[place].startswith("-"))
        ):
            values.append(words[place])
            place += 1
        yield negated, name, values
        negated = False


def _option_matches(module: str, name: str, value: str, negated: bool, interface: str, mark: int) -> Truth:
    match name:
        case _ if name in _PASSED:
            return True
        case "-o":
            beginning = value.removesuffix("+")
            same = interface.startswith(beginning) if value.endswith("+") else interface == value
            return same != negated
        case "-d":
            with suppress(ValueError):
                network = ip_network(value, strict=False)
                if any(network.version == own.version and network.subnet_of(own) for own in _OWN):
                    return negated
                return True if negated else None
        case "--mark" if module == "mark":
            bits, _, mask = value.partition("/")
            same = (int(bits, 0) ^ mark) & int(mask or "0xffffffff", 0) == 0
            return same != negated
        case "--pol":  # of IPsec, which no packet for another tunnel has
            return (value == "none") != negated
        case "--dir":
            return True
        case "--ctstate" | "--state" if not negated:
            states = set(value.split(","))  # the table nat sees the first packet of a connection only
            return True if "NEW" in states else None if states - {"ESTABLISHED", "INVALID", "UNTRACKED"} else False
        case "--dst-type":
            kinds = set(value.split(","))
            if kinds <= {"LOCAL", "BROADCAST", "MULTICAST", "ANYCAST"}:
                return negated
            return (kinds == {"UNICAST"}) != negated or None
    return None
