"""The listing of ``iptables-save``: its chains, its rules, and the words of a rule. Pure."""

import shlex
from itertools import pairwise
from typing import NamedTuple

from gfwtools.plumbing.facts import Family
from gfwtools.plumbing.plan import Kind
from gfwtools.plumbing.wanted import CHAIN, KILL_SWITCH

__all__ = ["JUMPS", "TOOL", "Chain", "jumps_to", "lines_of", "option"]

TOOL: dict[Family, str] = {4: "iptables", 6: "ip6tables"}
#: The hooks of the table mangle that jump to our chain.
JUMPS = ("PREROUTING", "OUTPUT")


class Chain(NamedTuple):
    """Where a rule is."""

    family: Family
    table: str
    name: str

    def __str__(self) -> str:
        return f"{TOOL[self.family]} {self.table} {self.name}"

    @property
    def kind(self) -> Kind:
        """What the rules of ours in it are for."""
        if self.table == "nat":
            return Kind.NAT
        own = {CHAIN: Kind.CHAIN, KILL_SWITCH: Kind.KILL_SWITCH}
        return {**own, **dict.fromkeys(JUMPS, Kind.JUMP)}.get(self.name, Kind.CLAMP)

    @property
    def rename(self) -> str:
        """The command for the owner of a chain that has our name."""
        return f"{TOOL[self.family]} -t {self.table} -E {self.name} OTHER"


def lines_of(family: Family, text: str) -> tuple[dict[Chain, str], list[tuple[Chain, str]]]:
    """The output of ``iptables-save``: the chains with their policies, and the rules."""
    chains: dict[Chain, str] = {}
    lines: list[tuple[Chain, str]] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains[Chain(family, table, name)] = policy
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            lines.append((Chain(family, table, name), rule))
    return chains, lines


def option(name: str, rule: str) -> str:
    """The word behind an option; empty without one."""
    return next((value for word, value in pairwise(shlex.split(rule)) if word == name), "")


def jumps_to(name: str, rule: str) -> bool:
    """Whether the target of a rule is that chain, or that action."""
    return any(flag in ("-j", "-g") and word == name for flag, word in pairwise(shlex.split(rule)))
