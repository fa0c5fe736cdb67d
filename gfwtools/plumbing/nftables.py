"""The backend of nftables: one table, ``inet gfwtools``, that ``nft -f`` takes from one state to another at once.

The table and everything in it is ours; nothing outside of it is looked at. Chains are made anew, sets are not: what
dnsmasq has learned stays in them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address, BackendName, Network, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Family
from gfwtools.plumbing.learned import MOST
from gfwtools.plumbing.plan import Kind, Piece, State, Worded, compare
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.wanted import (
    ALL_BITS,
    CHAIN,
    KILL_SWITCH,
    Answers,
    Clamp,
    Entry,
    Guard,
    Nat,
    Questions,
    Reserved,
    Wanted,
)
from gfwtools.render import nftables as render
from gfwtools.system import ownership
from gfwtools.system.commands import Command, Runner
from gfwtools.system.step import Step

__all__ = ["NftChain", "NftSet", "Nftables", "NftablesState"]

TABLE = render.TABLE
#: Family, first and last address as numbers: what an interval set knows of its elements.
Span = tuple[int, int, int]

# `route` has the packet routed again when its mark has changed; a filter chain in output would mark it and do no more.
# One later than the others: they restore a packet's mark from the connection's, as wg-quick does, over ours.
_OUTPUT = "type route hook output priority mangle + 1; policy accept;"
_PREROUTING = "type filter hook prerouting priority mangle + 1; policy accept;"
# Before other people's chains: the first one that translates a connection has the say.
_POSTROUTING = "type nat hook postrouting priority srcnat - 1; policy accept;"
_HOOKS = {"OUTPUT": ("output", _OUTPUT), "PREROUTING": ("prerouting", _PREROUTING)}
_CLAMPS = {
    hook: (name, f"type filter hook {hook.lower()} priority mangle; policy accept;")
    for hook, name in (("INPUT", "input"), ("FORWARD", "forward"), ("POSTROUTING", "leaving"))
}
# What routes the packet a second time after its mark, and other people's rules in output, is done by then.
_LEAVING = "type filter hook postrouting priority mangle + 1; policy accept;"
#: Where what comes from the clean resolvers is bounded; they share one limit.
_ANSWERS = "answers"
#: Who asks, and how much: the kernel fills these. A client that is silent leaves them.
_ASKING = {
    4: ("asking4", ("type ipv4_addr", "size 65536", "flags dynamic,timeout", "timeout 1m")),
    6: ("asking6", ("type ipv6_addr", "size 65536", "flags dynamic,timeout", "timeout 1m")),
}
_RUNNING = {"confirmed": "ct status confirmed", "related": "ct state related"}
_KINDS = {
    CHAIN: Kind.CHAIN,
    KILL_SWITCH: Kind.KILL_SWITCH,
    "output": Kind.JUMP,
    "prerouting": Kind.JUMP,
    **{name: Kind.CLAMP for name, _ in _CLAMPS.values()},
    "postrouting": Kind.NAT,
}


@dataclass(frozen=True, slots=True)
class NftChain:
    """A chain: its hook as nft prints it (empty for one that is only jumped to) and its rules, first to last."""

    hook: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NftSet:
    """A set: its properties as nft prints them, one a line, and its elements, merged where they touch."""

    properties: tuple[str, ...]
    elements: tuple[Span, ...] = ()
    policy: PolicyConfig | None = field(default=None, compare=False)
    """Whose it is, of one that is wanted."""

    @property
    def is_seed(self) -> bool:
        """Interval sets hold the seed and nothing else; the others are dnsmasq's."""
        return "flags interval" in self.properties


@dataclass(frozen=True, slots=True)
class NftablesState:
    """Table ``inet gfwtools``."""

    sets: Mapping[str, NftSet] = field(default_factory=dict)
    chains: Mapping[str, NftChain] = field(default_factory=dict)
    exists: bool = False

    @classmethod
    def of(cls, wanted: Wanted) -> "NftablesState":
        """``wanted`` in the backend's own words."""
        return cls(_sets(wanted), _chains(wanted), exists=bool(wanted.sets))


class Nftables:
    """The part of the plumbing that marks and translates, in the words of nft."""

    name: BackendName = "nftables"
    listing_tools: tuple[str, ...] = ("nft",)

    def observe(self, runner: Runner, policies: Sequence[PolicyConfig], record: Record) -> NftablesState:
        """Look at the table; all of it is ours, of any policy."""
        return _observe(runner)

    def want(self, wanted: Wanted, families: Iterable[Family], there: NftablesState) -> NftablesState:
        return NftablesState.of(wanted)

    def nothing(self, there: NftablesState, record: Record) -> NftablesState:
        return NftablesState()

    def is_there(self, there: NftablesState) -> bool:
        return there.exists

    def lacks_sets(self, there: NftablesState, wanted: NftablesState) -> bool:
        return any(
            name not in there.sets or (shall.elements and set(shall.elements).isdisjoint(there.sets[name].elements))
            for name, shall in wanted.sets.items()
        )

    def next_record(self, record: Record, there: NftablesState, wanted: NftablesState) -> Record:
        """The table needs no record: its name says whose it is."""
        return record

    def foreign_chains(self, runner: Runner) -> Mapping[str, str]:
        """None: a chain is in a table of its own, and so is ours."""
        return {}

    def holding(self, runner: Runner, sets: Iterable[str], address: Address) -> list[str]:
        """Those of the sets that hold the address, be it in a network."""
        ask = ("nft", "get", "element", *TABLE.split())
        return [name for name in sets if runner.ask(*ask, name, f"{{ {address} }}") is not None]

    def sizes(self, runner: Runner, policy: PolicyConfig) -> tuple[tuple[str, int | None], ...]:
        names = render.set_names(policy)
        found: list[tuple[str, int | None]] = []
        for name in (*names.learned, *names.seeds, *names.direct):
            text = runner.ask("nft", "-j", "list", "set", *TABLE.split(), name)
            sets = [entry["set"] for entry in json.loads(text)["nftables"] if "set" in entry] if text else []
            found.append((name, len(sets[0].get("elem", ())) if sets else None))
        return tuple(found)

    def counters(self, runner: Runner) -> Iterator[tuple[int, int, int]]:
        """Packets, bytes and mark of each rule that marks (nft(8), counter)."""
        text = runner.ask("nft", "list", "chain", *TABLE.split(), CHAIN) or ""
        for found in re.finditer(r"counter packets (\d+) bytes (\d+) meta mark set (0x[0-9a-f]+)", text):
            yield int(found[1]), int(found[2]), int(found[3], 16)

    def seed_step(self, policy: PolicyConfig, path: Path, old: bytes) -> Step:
        """``nft -f``: the file itself empties the sets of the last one."""
        back = (Command(("nft", "-f", "-"), old.decode("utf-8", "replace")),) if old else ()
        return Step(
            "load the seed", f"the sets of {policy.name}", (Command(("nft", "-f", str(path))),), back, divisible=True
        )

    def forget_step(self, policy: PolicyConfig, addresses: Iterable[Address]) -> Step:
        gone: dict[str, list[str]] = {}
        for address in addresses:
            gone.setdefault(render.set_names(policy).learned[address.version == 6], []).append(str(address))
        do, back = (
            _nft("".join(f"{verb} element {TABLE} {name} {{ {', '.join(some)} }}\n" for name, some in gone.items()))
            for verb in ("delete", "add")
        )
        return Step(f"addresses of {policy.name}", "they go directly", (do,), (back,))

    def unmake(self, runner: Runner, policy: PolicyConfig) -> tuple[Command, ...]:
        """One transaction that deletes the sets that are not there, or the table where all of it is not there."""
        tables = runner.ask("nft", "list", "tables")
        if tables is not None and f"table {TABLE}" not in tables.splitlines():
            return (_nft(f"delete table {TABLE}\n"),)
        text = runner.ask("nft", "-t", "list", "table", *TABLE.split())
        if text is None:
            return ()
        there = set(re.findall(r"^\tset (\S+) \{", text, re.MULTILINE))
        names = render.set_names(policy)
        absent = [name for name in (*names.learned, *names.seeds, *names.direct) if name not in there]
        return (_nft("".join(f"delete set {TABLE} {name}\n" for name in absent)),) if absent else ()

    def seed_problem(self, step: Step, message: str, runner: Runner) -> HostError | None:
        """nft's own words say it."""
        return None

    def pieces(self, there: NftablesState, wanted: NftablesState) -> list[Piece]:
        pieces = []
        for name, want in wanted.sets.items():
            found = there.sets.get(name)
            properties = "; ".join(want.properties)
            if found is None:
                pieces.append(Piece(f"set {TABLE} {name}", State.MISSING, properties, Kind.SETS, want.policy))
                continue
            fits = found.properties == want.properties
            detail = properties if fits else f"{'; '.join(found.properties)}, should be {properties}"
            fit = State.OK if fits else State.MISMATCH
            pieces.append(Piece(f"set {TABLE} {name}", fit, detail, Kind.SETS, want.policy))
            if want.elements or _lacks(found, want):
                state = State.MISMATCH if _lacks(found, want) else State.OK
                pieces.append(Piece(f"seeds of {name}", state, f"{len(want.elements)}", Kind.SETS, want.policy))
        gone = [name for name in there.sets if name not in wanted.sets]
        pieces += [Piece(f"set {TABLE} {name}", State.MISMATCH, "not wanted", Kind.SETS, extra=True) for name in gone]
        for name in dict.fromkeys((*wanted.chains, *there.chains)):
            chain = wanted.chains.get(name, NftChain(""))
            found_chain = there.chains.get(name)
            rules = found_chain.rules if found_chain else None
            kind = _KINDS.get(name, Kind.CHAIN)
            pieces += compare(kind, f"nft {TABLE} {name}", chain.rules, rules, canonical)
            if found_chain and found_chain.hook != chain.hook:
                detail = f"{found_chain.hook or 'no hook'}, should be {chain.hook or 'no chain'}"
                pieces.append(Piece(f"nft {TABLE} {name}", State.MISMATCH, detail, kind))
        return pieces

    def steps(self, there: NftablesState, wanted: NftablesState) -> list[Step]:
        do = transaction(there, wanted)
        if not do:
            return []
        why = "mark packets to the sets, translate their source" if wanted.exists else "not wanted any more"
        undo = transaction(wanted, _bounded(there))
        return [Step(f"table {TABLE}", why, (_nft(do),), (_nft(undo),) if undo else ())]

    def held(self, there: NftablesState, policy: PolicyConfig) -> tuple[tuple[str, int], ...]:
        names = [name for name in render.set_names(policy).learned if name in there.sets]
        return tuple((name, len(there.sets[name].elements)) for name in names)

    def learned(
        self, there: NftablesState, policy: PolicyConfig, seeds: Iterable[Network], most: int | None = None
    ) -> tuple[Address, ...]:
        """The addresses that dnsmasq has put into the sets of ``policy``, which hold nothing of the seed."""
        return tuple(
            address
            for name in render.set_names(policy).learned
            for span in there.sets.get(name, NftSet(())).elements[:most]
            for network in _networks(span)
            for address in network
        )


def _bounded(state: NftablesState) -> NftablesState:
    """With no more elements in a set than are restored."""
    sets = {
        name: found if found.is_seed else replace(found, elements=found.elements[:MOST])
        for name, found in state.sets.items()
    }
    return replace(state, sets=sets)


# ---------------------------------------------------------------- wanted, in the words of nft


_DECLARATION = re.compile(rf"add set {TABLE} (?P<name>\S+) \{{ (?P<properties>.*) \}}")


def _sets(wanted: Wanted) -> dict[str, NftSet]:
    sets = {}
    for address_sets in wanted.sets:
        policy = address_sets.policy
        elements: dict[str, Iterable[Network | Address]] = {}
        names = render.set_names(policy)
        for family, learned, seed in zip((4, 6), names.learned, names.seeds, strict=True):
            elements[seed] = [n for n in address_sets.seeds if n.version == family]
            elements[learned] = [a for a in address_sets.learned if a.version == family]
        for line in render.declarations(policy):
            match = _DECLARATION.fullmatch(line)
            if match:
                properties = tuple(part.strip() for part in match["properties"].split(";") if part.strip())
                made = NftSet(properties, policy=policy)
                spans = map(_span, elements.get(match["name"], ()))
                # Two neighbours are a network, which a set without intervals does not take.
                sets[match["name"]] = replace(
                    made, elements=_merge(spans) if made.is_seed else tuple(sorted(set(spans)))
                )
    for name, properties in (_ASKING[bound.family] for bound in wanted.bounds if isinstance(bound, Questions)):
        sets[name] = NftSet(properties)
    return sets


def _chains(wanted: Wanted) -> dict[str, NftChain]:
    """The chains in the order in which they can be made: GFWLIST before those that jump to it."""
    chains = {}
    if wanted.entries:
        chains[CHAIN] = NftChain("", _worded(wanted.entries))
    for jump in wanted.jumps:
        name, hook = _HOOKS[jump.hook]
        first = tuple(Worded.of(_reserved(port), port) for port in wanted.reserved if port.hook == jump.hook)
        chains[name] = NftChain(hook, (*first, Worded.of(f"jump {CHAIN} {_comment(jump.why)}", jump)))
    if answers := [bound for bound in wanted.bounds if isinstance(bound, Answers)]:
        chains[_ANSWERS] = NftChain("", (Worded.of(_limit(answers[0]), answers[0]),))
    for place, (name, hook) in _CLAMPS.items():
        rules = tuple(Worded.of(_guard(guard), guard) for guard in wanted.guards if place == "INPUT")
        rules += tuple(Worded.of(_reserved(port), port) for port in wanted.reserved if port.hook == place)
        rules += tuple(Worded.of(_clamp(clamp), clamp) for clamp in wanted.clamps if clamp.hook == place)
        if place == "INPUT":
            rules += tuple(Worded.of(_bound(bound), bound) for bound in wanted.bounds)
        if rules:
            chains[name] = NftChain(hook, rules)
    if wanted.kill_switch:
        chains[KILL_SWITCH] = NftChain(_LEAVING, _worded(wanted.kill_switch))
    if wanted.nats:
        chains["postrouting"] = NftChain(_POSTROUTING, tuple(Worded.of(_nat(nat), nat) for nat in wanted.nats))
    return chains


def _worded(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(Worded.of(rule, entry) for entry in entries for rule in _entries(entry))


def _entry(entry: Entry) -> str:
    ip = "ip" if entry.family == 4 else "ip6"
    words = []
    if entry.answers:
        words.append("ct direction reply")
    if entry.running:
        words.append(_RUNNING[entry.running])
    if entry.connmark:
        value, mask = entry.connmark
        words.append(f"ct mark {value:#x}" if mask == ALL_BITS else f"ct mark & {mask:#x} == {value:#x}")
    if entry.arrives_on:
        words.append(f'iifname "{entry.arrives_on}"')
    if entry.leaves_by:
        words.append(f'oifname "{entry.leaves_by}"')
    if entry.leaves_not_by:
        words.append(f'oifname != "{entry.leaves_not_by}"')
    if entry.to:
        words.append(f"{ip} daddr {entry.to}")
    if entry.within:
        words.append(f"{ip} daddr {_element(entry.within)}")
    if entry.from_this_host:
        words.append("fib saddr type local")
    if entry.to_this_host:
        words.append("fib daddr type local")
    if entry.to_port:
        protocol, port = entry.to_port
        words.append(f"{protocol} dport {port}")
    if entry.marked is not None:
        words.append(f"meta mark {entry.marked:#x}")
    if entry.mark is not None:
        # The counter is for `gfwtools status`; iptables counts every rule.
        words.append(f"counter meta mark set {entry.mark:#x}")
    elif entry.keep:
        value, mask = entry.keep
        # As nft prints it: the bits of the value need not be cleared first.
        others = f"ct mark & {~mask & ALL_BITS | value:#x} | " if mask != ALL_BITS else ""
        words.append(f"ct mark set {others}{value:#x}")
    else:
        words.append("counter drop" if entry.drop else "return")
    return " ".join([*words, _comment(entry.why)])


def _entries(entry: Entry) -> tuple[str, ...]:
    """The rules of an entry: one, or one a set where the policy has two, the learned addresses and the seed."""
    if not entry.to_set_of:
        return (_entry(entry),)
    ip = "ip" if entry.family == 4 else "ip6"
    names = render.set_names(entry.to_set_of).marked_in(4 if entry.family == 4 else 6)
    return tuple(f"{ip} daddr @{name} {_entry(entry)}" for name in names)


def _guard(guard: Guard) -> str:
    match = f'iifname "{guard.interface}" {guard.protocol} dport 53 fib daddr . iif type != local'
    return f"{match} drop {_comment(guard.why)}"


def _reserved(port: Reserved) -> str:
    # Only the first packet of a connection by TCP: the kernel sends its last ones without a user.
    first = "" if port.protocol == "udp" else " tcp flags syn"
    side = 'iifname != "lo" ip daddr 127.0.0.0/8' if port.hook == "INPUT" else 'oifname "lo" ip daddr 127.0.0.1'
    users = "".join(f" meta skuid != {user}" for user in port.users)
    return f"{side} {port.protocol} dport {port.port}{first}{users} drop {_comment(port.why)}"


def _clamp(clamp: Clamp) -> str:
    side = "oifname" if clamp.hook == "POSTROUTING" else "iifname"
    size = "rt mtu" if clamp.mss is None else str(clamp.mss)
    match = f'meta nfproto ipv{clamp.family} {side} "{clamp.interface}" tcp flags syn'
    return f"{match} tcp option maxseg size set {size} {_comment(clamp.why)}"


def _bound(bound: Questions | Answers) -> str:
    if isinstance(bound, Answers):
        address, port = bound.upstream
        match = f"{'ip' if address.version == 4 else 'ip6'} saddr {address} {bound.protocol} sport {port}"
        return f"{match} jump {_ANSWERS} {_comment(bound.why)}"
    name, _ = _ASKING[bound.family]
    limit = f"limit rate over {bound.rate}/second burst {bound.burst} packets"
    who = f"add @{name} {{ {'ip' if bound.family == 4 else 'ip6'} saddr {limit} }}"
    return f'iifname != "lo" {bound.protocol} dport 53 {who} counter drop {_comment(bound.why)}'


def _limit(bound: Answers) -> str:
    limit = f"limit rate over {bound.rate} kbytes/second burst {bound.burst} mbytes"
    return f"{limit} counter drop {_comment(bound.why)}"


def _nat(nat: Nat) -> str:
    target = "masquerade" if nat.to is None else f"snat {'ip' if nat.family == 4 else 'ip6'} to {nat.to}"
    match = f'meta nfproto ipv{nat.family} oifname "{nat.interface}" meta mark {nat.mark:#x}'
    return f"{match} {target} {_comment(nat.why)}"


def _comment(why: str) -> str:
    return f'comment "{ownership.comment(why)}"'


def canonical(rule: str) -> str:
    """nft prints a mark with eight digits, counters with their values, and in some versions & and | as words."""
    rule = re.sub(r" ?\bcounter( packets \d+ bytes \d+)?(?= |$)", "", rule)
    return re.sub(r"\b0x0+(?=[0-9a-f])", "0x", rule.replace(" and ", " & ").replace(" or ", " | "))


# ---------------------------------------------------------------- from one state to another


def transaction(old: NftablesState, new: NftablesState) -> str:
    """Input for ``nft -f`` that takes the table from ``old`` to ``new``; empty where they are equal."""
    if not new.exists:
        return f"delete table {TABLE}\n" if old.exists else ""
    gone = [name for name in old.sets if name not in new.sets]
    # A set of another kind under our name cannot be changed; it is made anew, and so is every rule that names it.
    remade = [name for name, s in new.sets.items() if name in old.sets and old.sets[name].properties != s.properties]
    made = [name for name in new.sets if name not in old.sets or name in remade]
    chains: list[str] = []
    if gone or remade or _rules(old.chains) != _rules(new.chains):
        chains = [f"flush chain {TABLE} {name}" for name in old.chains]
        chains += [
            f"delete chain {TABLE} {name}"
            for name, chain in old.chains.items()
            if name not in new.chains or new.chains[name].hook != chain.hook
        ]
    lines = [*chains, *(f"delete set {TABLE} {name}" for name in (*gone, *remade))]
    lines += [f"add set {TABLE} {name} {{ {'; '.join(new.sets[name].properties)}; }}" for name in made]
    if chains or _rules(old.chains) != _rules(new.chains):
        for name, chain in new.chains.items():
            if name not in old.chains or old.chains[name].hook != chain.hook:
                lines.append(f"add chain {TABLE} {name}" + (f" {{ {chain.hook} }}" if chain.hook else ""))
        lines += [f"add rule {TABLE} {name} {rule}" for name, chain in new.chains.items() for rule in chain.rules]
    for name, want in new.sets.items():
        lines += _fill(name, NftSet(()) if name in made else old.sets[name], want)
    if not lines and old.exists:
        return ""
    return "".join(f"{line}\n" for line in ([] if old.exists else [f"add table {TABLE}"]) + lines)


def _rules(chains: Mapping[str, NftChain]) -> dict[str, tuple[str, list[str]]]:
    return {name: (chain.hook, [canonical(rule) for rule in chain.rules]) for name, chain in chains.items()}


def _lacks(found: NftSet, wanted: NftSet) -> bool:
    """A seed set must hold its seed and nothing else; in dnsmasq's there may be more."""
    if wanted.is_seed:
        return found.elements != wanted.elements
    return not set(wanted.elements) <= set(found.elements)


def _fill(name: str, found: NftSet, wanted: NftSet) -> list[str]:
    if not _lacks(found, wanted):
        return []
    lines = [f"flush set {TABLE} {name}"] if wanted.is_seed and found.elements else []
    new = wanted.elements if wanted.is_seed else sorted(set(wanted.elements) - set(found.elements))
    elements = ", ".join(_element(network) for span in new for network in _networks(span))
    if elements:
        lines.append(f"add element {TABLE} {name} {{ {elements} }}")
    return lines


def _element(network: Network) -> str:
    return str(network).removesuffix("/32").removesuffix("/128")


def _nft(text: str) -> Command:
    return Command(("nft", "-f", "-"), text)


# ---------------------------------------------------------------- spans


def _span(item: Network | Address) -> Span:
    if isinstance(item, IPv4Address | IPv6Address):
        return item.version, int(item), int(item)
    return item.version, int(item.network_address), int(item.broadcast_address)


def _merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """In order, and those that touch as one: what ``auto-merge`` does (nft(8))."""
    merged: list[Span] = []
    for family, first, last in sorted(spans):
        if merged and merged[-1][0] == family and first <= merged[-1][2] + 1:
            merged[-1] = (family, merged[-1][1], max(last, merged[-1][2]))
        else:
            merged.append((family, first, last))
    return tuple(merged)


def _networks(span: Span) -> list[Network]:
    family, first, last = span
    if family == 4:
        return list(summarize_address_range(IPv4Address(first), IPv4Address(last)))
    return list(summarize_address_range(IPv6Address(first), IPv6Address(last)))


# ---------------------------------------------------------------- observe


def _observe(runner: Runner) -> NftablesState:
    """Look at the table: its text without the elements (``-t``), and the elements as JSON."""
    family, table = TABLE.split()
    text = runner.ask("nft", "-t", "list", "table", family, table)
    if text is None:
        return NftablesState()
    listing = json.loads(runner.read("nft", "-j", "list", "table", family, table))["nftables"]
    elements = {entry["set"]["name"]: entry["set"].get("elem", ()) for entry in listing if "set" in entry}
    sets: dict[str, NftSet] = {}
    chains: dict[str, NftChain] = {}
    for kind, name, lines in _blocks(text):
        if kind == "set":
            spans = map(_element_span, elements.get(name, ()))
            properties = tuple(line for line in lines if not line.startswith("elements"))
            is_seed = "flags interval" in properties
            sets[name] = NftSet(properties, _merge(spans) if is_seed else tuple(sorted(spans)))
        elif kind == "chain":
            hook = lines[0] if lines and lines[0].startswith("type ") else ""
            chains[name] = NftChain(hook, tuple(lines[1:] if hook else lines))
    ordered = sorted(chains, key=lambda name: name != CHAIN)
    return NftablesState(sets, {name: chains[name] for name in ordered}, exists=True)


def _blocks(text: str) -> Iterable[tuple[str, str, Sequence[str]]]:
    """``kind NAME { lines }`` for each block in the listing of a table."""
    kind, name = "", ""
    lines: list[str] = []
    for line in map(str.strip, text.splitlines()[1:-1]):
        head = re.fullmatch(r"(\w+) (\S+) \{", line)
        if head and not kind:
            kind, name, lines = head[1], head[2], []
        elif line == "}" and kind:
            yield kind, name, lines
            kind = ""
        elif line and kind:
            lines.append(line)


def _element_span(element: Any) -> Span:
    """An element in the JSON of nft (libnftables-json(5)): an address, a prefix, a range, or one with a timeout."""
    if isinstance(element, str):
        address = ip_address(element)
        return address.version, int(address), int(address)
    if "elem" in element:
        return _element_span(element["elem"]["val"])
    if "prefix" in element:
        address = ip_address(element["prefix"]["addr"])
        size = 1 << (address.max_prefixlen - element["prefix"]["len"])
        return address.version, int(address), int(address) + size - 1
    first, last = map(ip_address, element["range"])
    return first.version, int(first), int(last)
