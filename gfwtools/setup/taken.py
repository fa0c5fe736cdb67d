"""Preferences, marks and routing tables of ours that another program uses."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.plumbing.facts import families_of
from gfwtools.plumbing.wanted import MAIN
from gfwtools.setup.iproute import catches_all, numbers, rule_words
from gfwtools.setup.problem import Problem
from gfwtools.system import ownership, questions
from gfwtools.system.commands import Runner

__all__ = ["marks", "routing"]

#: Tables of nft that iptables-nft keeps its own rules in: iptables-save has shown them.
_IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})


def routing(config: Config, runner: Runner) -> Iterator[Problem]:
    """Preferences, marks and tables that another program uses. A rule equal to ours is not a problem."""
    for family in families_of(runner):
        rules = [rule for rule in numbers(runner, family, "rule") if not catches_all(rule)]
        for index, policy in enumerate(config.policies):
            preference = config.host.preference + 2 * index
            for rule in rules:
                yield from _rule(policy, preference, rule)
            for route in numbers(runner, family, "route", "show", "table", str(policy.table)):
                if route.get("dev") != policy.interface:
                    yield Problem(
                        f"table {policy.table} has a route that is not ours: {_route_words(route)} (IPv{family})",
                        f"give policy.{policy.name}.table another number, or remove the route",
                    )


def _rule(policy: PolicyConfig, preference: int, rule: dict[str, Any]) -> Iterator[Problem]:
    there, table = int(rule["priority"]), rule.get("table")
    words = f"{there}: {rule_words(rule)}"
    is_marking = _matches_mark(rule, policy.mark)
    suppresses = table == str(MAIN) and rule.get("suppress_prefixlen") == 0 and "fwmark" not in rule
    as_ours = (there == preference and suppresses) or (
        there == preference + 1 and is_marking and table == str(policy.table)
    )
    if as_ours:
        return
    if there in (preference, preference + 1):
        yield Problem(
            f"preference {there} is taken by an ip rule that is not ours: {words}",
            "give host.preference another number, or remove the rule",
        )
    elif is_marking and table != str(policy.table):
        yield Problem(
            f"mark {policy.mark:#x} is taken by an ip rule that is not ours: {words}",
            f"give policy.{policy.name}.mark another value, or remove the rule",
        )
    elif table == str(policy.table) and not is_marking:
        yield Problem(
            f"table {policy.table} is taken by an ip rule that is not ours: {words}",
            f"give policy.{policy.name}.table another number, or remove the rule",
        )


def _matches_mark(rule: dict[str, Any], mark: int) -> bool:
    if "fwmark" not in rule or "not" in rule:
        return False
    mask = int(str(rule.get("fwmask", "0xffffffff")), 16)
    return mark & mask == int(str(rule["fwmark"]), 16)


def _route_words(route: dict[str, Any]) -> str:
    words = [str(route.get("dst"))]
    words += [f"via {route['gateway']}"] if "gateway" in route else []
    words += [f"dev {route['dev']}"] if "dev" in route else []
    return " ".join(words)


# ---------------------------------------------------------------- marks


def marks(config: Config, runner: Runner, quick: set[str]) -> Iterator[Problem]:
    """Marks that another program's filter sets or matches, or that a tunnel puts on its own packets."""
    uses = list(_iptables_marks(runner)) + list(_nft_marks(runner))
    for policy in config.policies:
        remedy = f"give policy.{policy.name}.mark another value, or remove the rule"
        for mark, where in uses:
            if mark == policy.mark:
                yield Problem(f"mark {policy.mark:#x} is used by {where}", remedy)
        for other in dict.fromkeys(policy.interface for policy in config.policies):
            if other not in quick and questions.own_mark(runner, other) == policy.mark:
                # Its packets to the peer would be sent into the tunnel again.
                yield Problem(
                    f"{other} marks its own packets with {policy.mark:#x}, the mark of policy {policy.name}",
                    f"run: wg set {other} fwmark 0, and remove FwMark from its configuration",
                )


def _iptables_marks(runner: Runner) -> Iterator[tuple[int, str]]:
    for tool in ("iptables-save", "ip6tables-save"):
        table = ""
        text = runner.ask(tool) if runner.has(tool) or runner.has("iptables-save") else None
        for line in (text or "").splitlines():
            if line.startswith("*"):
                table = line[1:]
            if not line.startswith("-A") or "mark" not in line or "wg-quick(8)" in line:
                continue
            try:
                words = shlex.split(line)
            except ValueError:
                continue
            if ownership.is_rule(line):
                continue
            for option, value in pairwise(words):
                # connmark has --mark as well: it is the connection's, not the packet's.
                is_match = option == "--mark" and "connmark" not in words
                is_set = option in ("--set-xmark", "--set-mark") and "CONNMARK" not in words
                number = re.fullmatch(r"(0x[0-9a-f]+|\d+)(?:/.*)?", value, re.IGNORECASE)
                if (is_match or is_set) and number:
                    yield (
                        int(number[1], 0),
                        f"a rule of {tool.removesuffix('-save')} -t {table} that is not ours: {line}",
                    )


def _nft_marks(runner: Runner) -> Iterator[tuple[int, str]]:
    # -t: a set may have a million elements.
    text = runner.ask("nft", "-t", "list", "ruleset") if runner.has("nft") else None
    shown = runner.has("iptables-save")
    table = ""
    for line in (text or "").splitlines():
        if line.startswith("table "):
            table = line.removesuffix("{").strip()
        _, family, name = (*table.split(), "", "")[:3]
        if ownership.is_nft_table(family, name) or name.startswith("wg-quick-"):
            continue
        if shown and family in ("ip", "ip6") and name in _IPTABLES_TABLES:
            continue
        for number in re.findall(r"\bmeta mark (?:set )?(?:==? )?0x([0-9a-f]+)\b", line):
            yield int(number, 16), f"{table} of nft, which is not ours: {line.strip()}"
