"""Rules of ip-rule(8) and routes of ip-route(8), for both backends.

Ours carry a protocol number of their own (rtnetlink(7): 5 to 255 are free for programs that set routes), as routing
daemons do. So they are recognized as ours even after a change of the configuration.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from gfwtools.plumbing.facts import Family
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.wanted import MAIN, Route, Rule, Wanted
from gfwtools.system import ownership
from gfwtools.system.commands import Command, Runner
from gfwtools.system.step import Step

__all__ = ["Routing", "RoutingState", "observe"]

Item = Rule | Route
_UNICAST, _UNREACHABLE = "1", "7"  # RTN_UNICAST, RTN_UNREACHABLE


@dataclass(frozen=True, slots=True)
class RoutingState:
    """Rules and routes: ours, and other people's that are the same as one that we may want."""

    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    foreign: frozenset[Rule | Route] = frozenset()

    @classmethod
    def of(cls, wanted: Wanted) -> "RoutingState":
        return cls(wanted.rules, wanted.routes)


class Routing:
    """The part of the plumbing that chooses the way."""

    def pieces(self, there: RoutingState, wanted: RoutingState) -> list[Piece]:
        present: set[Item] = {*there.foreign, *there.rules, *there.routes}
        every: tuple[Item, ...] = (*wanted.rules, *wanted.routes)
        ours: tuple[Item, ...] = (*there.rules, *there.routes)
        pieces = [
            Piece(_name(item), State.OK if item in present else State.MISSING, _words(item), _kind(item), item)
            for item in every
        ]
        pieces += [
            Piece(_name(item), State.MISMATCH, f"not wanted: {_words(item)}", _kind(item), item, extra=True)
            for item in ours
            if item not in every
        ]
        return pieces

    def steps(self, there: RoutingState, wanted: RoutingState) -> list[Step]:
        """Routes before the rules that lead to them, and away in the opposite order; stale ones go first."""
        present: set[Item] = {*there.foreign, *there.rules, *there.routes}
        stale: list[Item] = [
            *(rule for rule in reversed(there.rules) if rule not in wanted.rules),
            *(route for route in reversed(there.routes) if route not in wanted.routes),
        ]
        every: tuple[Item, ...] = (*wanted.routes, *wanted.rules)
        new = [item for item in every if item not in present]
        return [
            *(
                Step(_name(item), "not wanted any more", (_command("del", item),), (_command("add", item),))
                for item in stale
            ),
            *(Step(_name(item), item.why, (_command("add", item),), (_command("del", item),)) for item in new),
        ]


def observe(runner: Runner, families: Iterable[Family], wanted: Wanted) -> RoutingState:
    """Our rules and routes wherever they are, and what is in the places that ``wanted`` speaks of.

    The tables are not read as a whole: main may hold a million routes.
    """
    rules: list[Rule] = []
    routes: list[Route] = []
    foreign: set[Rule | Route] = set()
    for family in families:
        for entry in _ask(runner, family, "rule"):
            rule = _parse_rule(family, entry)
            if rule and ownership.is_route(entry):
                rules.append(rule)
            elif rule:
                foreign.add(rule)
        for entry in _ask(runner, family, "route", "show", "table", "all", "proto", str(ownership.PROTOCOL)):
            route = _parse_route(family, entry)
            if route:
                routes.append(route)
        places = dict.fromkeys(
            (route.table, route.interface if route.table == MAIN else None)
            for route in wanted.routes
            if route.family == family
        )
        for table, interface in places:
            device = ("dev", interface) if interface else ()
            for entry in _ask(runner, family, "route", "show", "table", str(table), *device):
                # Asked for one device, ip does not repeat its name.
                route = _parse_route(family, {"table": str(table), **({"dev": interface} if device else {}), **entry})
                if route and not ownership.is_route(entry):
                    foreign.add(route)
    # `table all` lists them by table number, the kill switch behind the default route.
    routes.sort(key=lambda route: (route.table == MAIN, route.table, route.interface is not None))
    return RoutingState(tuple(rules), tuple(routes), frozenset(foreign))


def _ask(runner: Runner, family: Family, *words: str) -> list[dict[str, Any]]:
    """``-N``: numbers for tables, protocols and types, instead of names from rt_tables. A missing table is empty."""
    return json.loads(runner.ask("ip", f"-{family}", "-N", "-d", "-j", *words) or "[]") or []


def _parse_rule(family: Family, entry: dict[str, Any]) -> Rule | None:
    """The rule, or None for one with a selector or an action that none of ours has."""
    known = {"priority", "src", "table", "fwmark", "suppress_prefixlen", "protocol"}
    if not set(entry) <= known or entry.get("src") != "all" or "table" not in entry:
        return None
    mark = entry.get("fwmark")
    return Rule(
        family,
        int(entry["priority"]),
        int(entry["table"]),
        int(mark, 16) if mark is not None else None,
        entry.get("suppress_prefixlen"),
    )


def _parse_route(family: Family, entry: dict[str, Any]) -> Route | None:
    """The route, or None for one over a router or of another type: none of ours is."""
    if entry.get("type", _UNICAST) not in (_UNICAST, _UNREACHABLE) or {"gateway", "via", "nexthops"} & set(entry):
        return None
    unreachable = entry.get("type") == _UNREACHABLE  # IPv6 lists those with "dev lo"
    return Route(
        family,
        int(entry.get("table", MAIN)),
        None if entry["dst"] == "default" else ip_network(entry["dst"]),
        None if unreachable else entry.get("dev"),
        int(entry.get("metric", 0)),
    )


def _kind(item: Rule | Route) -> Kind:
    return Kind.RULE if isinstance(item, Rule) else Kind.ROUTE


def _name(item: Rule | Route) -> str:
    if isinstance(item, Rule):
        return f"ip rule {item.preference} (IPv{item.family})"
    if item.interface is None:
        return f"kill switch in table {_table(item.table)} (IPv{item.family})"
    return f"ip route table {_table(item.table)} (IPv{item.family})"


def _words(item: Rule | Route) -> str:
    """As ip(8) wants it."""
    return " ".join(_arguments(item))


def _command(verb: str, item: Rule | Route) -> Command:
    kind = "rule" if isinstance(item, Rule) else "route"
    # With the protocol in it, `del` leaves an equal rule of another program alone.
    return Command(("ip", f"-{item.family}", kind, verb, *_arguments(item), "protocol", str(ownership.PROTOCOL)))


def _arguments(item: Rule | Route) -> list[str]:
    if isinstance(item, Rule):
        words = ["pref", str(item.preference)]
        if item.fwmark is not None:
            words += ["fwmark", f"{item.fwmark:#x}"]
        words += ["lookup", _table(item.table)]
        if item.suppress_prefixlength is not None:
            words += ["suppress_prefixlength", str(item.suppress_prefixlength)]
        return words
    destination = str(item.destination) if item.destination else "default"
    words = [destination, "dev", item.interface] if item.interface else ["unreachable", destination]
    if item.metric:
        words += ["metric", str(item.metric)]
    return [*words, "table", _table(item.table)]


def _table(table: int) -> str:
    return "main" if table == MAIN else str(table)
