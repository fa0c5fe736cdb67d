"""The backend of iptables and ipset: ``ipset restore``, and one ``iptables-restore`` for each table that differs.

Ours are the sets that bear a policy's names, the chains GFWLIST and GFWLIST_KILL, the rules whose comment begins with
``gfwtools``, and every rule that jumps to one of those chains. A chain of such a name without any rule of ours belongs
to another program.
"""

import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import islice, product
from pathlib import Path
from socket import AF_INET6, inet_ntop

from gfwtools.config.model import Address, BackendName, Network, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Family
from gfwtools.plumbing.iptables_rule import JUMPS, TOOL, Chain, jumps_to, lines_of
from gfwtools.plumbing.learned import MOST
from gfwtools.plumbing.overtaken import Overtaken, overtaken_in
from gfwtools.plumbing.plan import Kind, Piece, State, Worded, compare
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.wanted import (
    CHAIN,
    KILL_SWITCH,
    AddressSets,
    Answers,
    Clamp,
    Entry,
    Guard,
    Jump,
    Masked,
    Nat,
    Questions,
    Reserved,
    Wanted,
)
from gfwtools.render import ipset
from gfwtools.storage import atomic
from gfwtools.system import ownership
from gfwtools.system.commands import Command, CommandError, Runner
from gfwtools.system.privileges import lacks_net_raw
from gfwtools.system.step import Step

__all__ = ["Chain", "IpsetState", "Iptables", "IptablesState", "canonical"]

_NFT_FAMILY: dict[Family, str] = {4: "ip", 6: "ip6"}
#: The chains that are ours as a whole, in the mangle table.
_OURS = (CHAIN, KILL_SWITCH)
_TABLES = ("mangle", "nat")
_CLAMPS = ("INPUT", "FORWARD", "POSTROUTING")
_WHY = {"mangle": "mark packets to the sets, before they are routed", "nat": "translate the source of marked packets"}
_RUNNING = {"confirmed": "--ctstatus CONFIRMED", "related": "--ctstate RELATED"}
#: The remedy where a rule that names a set cannot be read: iptables asks for its name by a raw socket.
_RAW = "run it with the capability CAP_NET_RAW; in a container: docker run --cap-add NET_RAW"
# nf_tables frees the matches of deleted rules in a worker, after the commit; until then their sets are in use.
_SET_BUSY = "in use by a kernel component"


@dataclass(frozen=True, slots=True)
class IpsetState:
    """A set: what stands behind its name in the ``create`` line, and its elements as ipset writes them."""

    create: str
    elements: frozenset[str] = frozenset()
    policy: PolicyConfig | None = field(default=None, compare=False)
    """Whose it is, of one that is wanted."""

    @property
    def kind(self) -> str:
        """What of ``create`` was asked for: the hash grows, and bucketsize and initval are the kernel's own."""
        kind, *words = self.create.split()
        options = dict(zip(words[::2], words[1::2], strict=False))
        return " ".join([kind, *(f"{key} {options[key]}" for key in ("family", "maxelem") if key in options)])


@dataclass(frozen=True, slots=True)
class IptablesState:
    """Our sets, and our rules by chain, first to last, in the words of ``iptables-save``."""

    sets: Mapping[str, IpsetState] = field(default_factory=dict)
    rules: Mapping[Chain, tuple[str, ...]] = field(default_factory=dict)
    base: frozenset[tuple[str, str, str]] | None = frozenset()
    """Base chains of nf_tables (family, table, chain) and tables (chain ``""``) that are there. They are not ours, but
    iptables-nft makes those that it lacks. None where iptables works without nf_tables: those tables are modules."""
    in_use: frozenset[tuple[str, str, str]] = frozenset()
    """Those of ``base`` that other programs use."""
    taken: tuple[Chain, ...] = ()
    """Chains that have our name and belong to another program."""
    overtaken: Mapping[Chain, Overtaken] = field(default_factory=dict)
    """Chains where a rule of another program undoes what ours do, or may."""
    unread: Mapping[Family, str] = field(default_factory=dict)
    """Families whose rules this process may not read -> what iptables-save says."""

    @classmethod
    def of(cls, wanted: Wanted, families: Iterable[Family], there: "IptablesState") -> "IptablesState":
        """``wanted`` in the backend's own words, on a host that has the base chains of ``there``."""
        rules: dict[Chain, tuple[str, ...]] = {}
        for family in families:
            rules.update(_rules(wanted, family))
        sets = {name: state for address_sets in wanted.sets for name, state in _sets(address_sets).items()}
        base = there.base
        if base is not None:
            needed = {
                (_NFT_FAMILY[chain.family], chain.table, name)
                for chain in rules
                for name in ("", chain.name)
                if chain.name not in _OURS
            }
            base = base.union(needed)
        return cls(sets, rules, base)

    def nothing(self, record: Record) -> "IptablesState":
        """What is left without ours. The base chains that we made go too, where no other program uses them."""
        if self.base is None:
            return IptablesState(base=None)
        ours = self.base & set(record.chains) - self.in_use
        return IptablesState(base=self.base - ours)


class Iptables:
    """The part of the plumbing that marks and translates, in the words of iptables and ipset."""

    name: BackendName = "iptables"
    listing_tools: tuple[str, ...] = ("ipset", "iptables")

    def observe(self, runner: Runner, policies: Sequence[PolicyConfig], record: Record) -> IptablesState:
        """Look at the sets of the policies and of the record, and at our rules of both families."""
        return _observe(runner, [*(name for policy in policies for name in _names(policy)), *record.sets])

    def want(self, wanted: Wanted, families: Iterable[Family], there: IptablesState) -> IptablesState:
        return IptablesState.of(wanted, families, there)

    def nothing(self, there: IptablesState, record: Record) -> IptablesState:
        return there.nothing(record)

    def is_there(self, there: IptablesState) -> bool:
        return bool(there.rules or there.sets)

    def lacks_sets(self, there: IptablesState, wanted: IptablesState) -> bool:
        return any(
            name not in there.sets or (shall.elements and shall.elements.isdisjoint(there.sets[name].elements))
            for name, shall in wanted.sets.items()
        )

    def next_record(self, record: Record, there: IptablesState, wanted: IptablesState) -> Record:
        base, base_after = there.base or frozenset(), wanted.base or frozenset()
        chains = (set(record.chains) | (base_after - base)) - (base - base_after)
        return replace(record, chains=tuple(sorted(chains)), sets=tuple(sorted(wanted.sets)))

    def foreign_chains(self, runner: Runner) -> Mapping[str, str]:
        """Chains of others that have our name -> the command that renames each."""
        chains = (chain for family in TOOL for chain in _parse_rules(family, _save(runner, family, {}))[2])
        return {str(chain): chain.rename for chain in chains}

    def holding(self, runner: Runner, sets: Iterable[str], address: Address) -> list[str]:
        """Those of the sets that hold the address, be it in a network."""
        return [name for name in sets if runner.ask("ipset", "test", name, str(address)) is not None]

    def sizes(self, runner: Runner, policy: PolicyConfig) -> tuple[tuple[str, int | None], ...]:
        found = []
        for name in _names(policy):
            size = re.search(r"^Number of entries: (\d+)$", runner.ask("ipset", "list", "-t", name) or "", re.MULTILINE)
            found.append((name, int(size[1]) if size else None))
        return tuple(found)

    def counters(self, runner: Runner) -> Iterator[tuple[int, int, int]]:
        """Packets, bytes and mark of each rule that marks (iptables(8), -v)."""
        for tool in TOOL.values():
            text = runner.ask(tool, "-t", "mangle", "-nvxL", CHAIN) or ""
            for found in re.finditer(r"^\s*(\d+)\s+(\d+)\s+MARK\s.*\bMARK x?set (0x[0-9a-f]+)", text, re.MULTILINE):
                yield int(found[1]), int(found[2]), int(found[3], 16)

    def seed_step(self, policy: PolicyConfig, path: Path, old: bytes) -> Step:
        """``ipset restore``; both ways what only the other seed has is taken out."""
        new, last = ((data or b"").decode("utf-8", "replace") for data in (atomic.read(path), old))
        there, back = (Command(("ipset", "restore"), _without(a, b)) for a, b in ((new, last), (last, new)))
        return Step("load the seed", f"the sets of {policy.name}", (there,), (back,) if old else (), divisible=True)

    def forget_step(self, policy: PolicyConfig, addresses: Iterable[Address]) -> Step:
        gone: dict[str, list[str]] = {}
        for address in addresses:
            gone.setdefault(policy.set if address.version == 4 else policy.set6, []).append(_element(address))
        return Step(
            f"addresses of {policy.name}", "they go directly", (_restore(gone, "del"),), (_restore(gone, "add"),)
        )

    def unmake(self, runner: Runner, policy: PolicyConfig) -> tuple[Command, ...]:
        """``ipset destroy`` for each set that is not there."""
        there = runner.ask("ipset", "list", "-name")
        return () if there is None else _destroy([name for name in _names(policy) if name not in there.split()])

    def seed_problem(self, step: Step, message: str, runner: Runner) -> HostError | None:
        """A set that another program has made with other options."""
        return _taken(step.do[0].stdin, message, runner)

    def pieces(self, there: IptablesState, wanted: IptablesState) -> list[Piece]:
        pieces = []
        for name, state in wanted.sets.items():
            found = there.sets.get(name)
            piece = _set_piece(name, state, found)
            pieces.append(replace(piece, kind=Kind.SETS, subject=state.policy))
            if state.elements and found:
                absent = len(state.elements - found.elements)
                detail = f"{absent} of {len(state.elements)} missing" if absent else f"{len(state.elements)}"
                enough = State.MISSING if absent else State.OK
                pieces.append(Piece(f"seeds of {name}", enough, detail, Kind.SETS, state.policy))
        gone = [name for name in there.sets if name not in wanted.sets]
        pieces += [Piece(f"set {name}", State.MISMATCH, "not wanted", Kind.SETS, extra=True) for name in gone]
        for chain in _chains(there.rules, wanted.rules):
            if chain.family in there.unread:
                pieces.append(Piece(str(chain), State.UNKNOWN, there.unread[chain.family], chain.kind, remedy=_RAW))
                continue
            found_rules = compare(
                chain.kind, str(chain), wanted.rules.get(chain, ()), there.rules.get(chain), canonical
            )
            remedy = chain.rename if chain in there.taken else ""
            for piece in found_rules:
                kind = Kind.KILL_SWITCH if piece.subject == KILL_SWITCH else piece.kind
                pieces.append(replace(piece, remedy=remedy, kind=kind))
            if chain in there.overtaken and there.rules.get(chain) and chain in wanted.rules:
                by = there.overtaken[chain]
                pieces.append(Piece(str(chain), State.MISMATCH if by.certain else State.UNKNOWN, by.why, chain.kind))
        return pieces

    def steps(self, there: IptablesState, wanted: IptablesState) -> list[Step]:
        """Sets before the rules that name them; rules away before their sets.

        ``ipset restore`` stops in the middle of its input when it fails, ``iptables-restore`` at the end of a table.

        :raises HostError: a set of another kind has one of our names, or a foreign chain has ours; or the rules cannot
            be read.
        """
        if there.unread and (wanted.rules or there.sets):
            raise HostError("; ".join(dict.fromkeys(there.unread.values())), _RAW)
        for chain in there.taken:
            if chain in wanted.rules:
                raise HostError(f"chain {chain} belongs to another program", f"rename it: {chain.rename}")
        for name, state in wanted.sets.items():
            found = there.sets.get(name)
            if found and found.kind != state.kind:
                raise _another_kind(name, found.kind, state.kind)
        new = {name: state for name, state in wanted.sets.items() if name not in there.sets}
        gone = {name: state for name, state in there.sets.items() if name not in wanted.sets}
        # What is in a set and not wanted there stays: dnsmasq has learned it.
        added = {
            name: state.elements - (there.sets[name].elements if name in there.sets else frozenset())
            for name, state in wanted.sets.items()
        }
        steps = []
        if new:
            steps.append(
                Step(f"sets {', '.join(new)}", "dnsmasq and the rules name them", (_create(new),), _destroy(new), True)
            )
        if any(added.values()):
            count = sum(map(len, added.values()))
            steps.append(
                Step(
                    f"addresses in the sets ({count})",
                    "they are tunnelled before any DNS answer, the clean resolver first of all",
                    (_restore(added, "add"),),
                    (_restore(added, "del"),),
                    divisible=True,
                )
            )
        steps += self._rule_steps(there, wanted)
        if gone:
            contents = {name: list(islice(state.elements, MOST)) for name, state in gone.items()}
            steps.append(
                Step(
                    f"sets {', '.join(gone)}",
                    "not wanted any more",
                    _destroy(gone),
                    (_create(gone), _restore(contents, "add")),
                    divisible=True,
                )
            )
        return steps

    def _rule_steps(self, there: IptablesState, wanted: IptablesState) -> list[Step]:
        steps = []
        for family, table in product(TOOL, _TABLES):
            tool = TOOL[family]
            do = _transaction(family, table, there.rules, wanted.rules, there.overtaken)
            if do:
                back = _transaction(family, table, wanted.rules, there.rules)
                undo = [_iptables_restore(tool, back)] if back else []
                undo += _remove_base(family, table, wanted.base, there.base)
                why = _WHY[table] if wanted.rules else "not wanted any more"
                steps.append(Step(f"{tool}, table {table}", why, (_iptables_restore(tool, do),), tuple(undo)))
            made = _remove_base(family, table, there.base, wanted.base)
            if made:
                # iptables makes them again when it needs them: there is nothing to take back.
                why = "they were made for our rules, and no other program uses them"
                steps.append(Step(f"empty chains of {tool}, table {table}", why, tuple(made), ()))
        return steps

    def held(self, there: IptablesState, policy: PolicyConfig) -> tuple[tuple[str, int], ...]:
        names = [name for name in _names(policy) if name in there.sets]
        return tuple((name, len(there.sets[name].elements)) for name in names)

    def learned(
        self, there: IptablesState, policy: PolicyConfig, seeds: Iterable[Network], most: int | None = None
    ) -> tuple[Address, ...]:
        """The addresses that dnsmasq has put into the sets of ``policy``."""
        names = [name for name in (policy.set, policy.set6) if name in there.sets]
        ours = frozenset(map(_element, seeds))
        # Of each set as many: a full one leaves the other its share.
        found = (e for name in names for e in islice(there.sets[name].elements - ours, most))
        return tuple(map(ip_address, sorted(e for e in found if "/" not in e)))


# ---------------------------------------------------------------- sets


def _sets(wanted: AddressSets) -> dict[str, IpsetState]:
    policy = wanted.policy
    elements: dict[str, set[str]] = {policy.set: set(), policy.set6: set()}
    for item in (*wanted.seeds, *wanted.learned):
        elements[policy.set if item.version == 4 else policy.set6].add(_element(item))
    return {
        name: IpsetState(create, frozenset(elements.get(name, ())), policy)
        for name, create in map(_create_words, ipset.creates(policy))
    }


def _element(item: Network | Address) -> str:
    """As ipset writes it: an address alone without its length, IPv6 by inet_ntop(3)."""
    text = str(item)
    if item.version == 6:
        address, slash, length = text.partition("/")
        text = inet_ntop(AF_INET6, ip_address(address).packed) + slash + length
    return text.removesuffix("/32" if item.version == 4 else "/128")


def _create_words(line: str) -> tuple[str, str]:
    """The name in a ``create`` line, and what stands behind it."""
    _, name, words = line.removesuffix(" -exist").split(" ", 2)
    return name, words


def _set_piece(name: str, wanted: IpsetState, found: IpsetState | None) -> Piece:
    if found is None:
        return Piece(f"set {name}", State.MISSING, wanted.kind)
    if found.kind != wanted.kind:
        return Piece(f"set {name}", State.MISMATCH, f"{found.kind}, should be {wanted.kind}")
    return Piece(f"set {name}", State.OK, wanted.kind)


def _create(sets: Mapping[str, IpsetState]) -> Command:
    return _ipset(f"create {name} {state.create}" for name, state in sets.items())


def _another_kind(name: str, found: str, wanted: str) -> HostError:
    """A set of another program with one of our names. Its rules may use the set, so we do not destroy it."""
    return HostError(
        f"set {name} is {found} and should be {wanted}",
        f"remove it (ipset destroy {name}), or give the policy another set",
    )


def _without(new: str, old: str) -> str:
    """``new`` for ``ipset restore``, and the elements of ``old`` that are not in it taken out."""
    kept = set(new.splitlines())
    gone = [line for line in old.splitlines() if line.startswith("add ") and line not in kept]
    return new + "".join(f"del {line.removeprefix('add ')}\n" for line in gone)


def _taken(text: str, message: str, runner: Runner) -> HostError | None:
    """What is wrong with the set that ``ipset restore`` could not make as there is one; None for another failure."""
    number = re.search(r"in line (\d+): Set cannot be created: set with the same name already exists", message)
    if number is None:
        return None
    _, name, *wanted = text.splitlines()[int(number[1]) - 1].removesuffix(" -exist").split()
    found = (runner.ask("ipset", "list", "-terse", "-output", "save", name) or "").split()[2:]
    return _another_kind(name, " ".join(found) or "of another kind", " ".join(wanted))


def _destroy(sets: Iterable[str]) -> tuple[Command, ...]:
    return tuple(Command(("ipset", "destroy", name), busy=_SET_BUSY) for name in sets)


def _restore(elements: Mapping[str, Iterable[str]], verb: str) -> Command:
    return _ipset(f"{verb} {name} {element}" for name, found in elements.items() for element in sorted(found))


def _ipset(lines: Iterable[str]) -> Command:
    # -exist: between the look and the change dnsmasq may have added one of them.
    return Command(("ipset", "restore", "-exist"), "".join(f"{line}\n" for line in lines))


# ---------------------------------------------------------------- rules


def _rules(wanted: Wanted, family: Family) -> dict[Chain, tuple[str, ...]]:
    """Our rules of one family, without the ``-A CHAIN`` before them."""
    rules: dict[Chain, tuple[str, ...]] = {}

    def put(table: str, name: str, lines: Sequence[str]) -> None:
        if lines:
            rules[Chain(family, table, name)] = tuple(lines)

    put(
        "mangle",
        CHAIN,
        [Worded.of(_entry(entry, family), entry) for entry in wanted.entries if entry.family in (None, family)],
    )
    reserved = wanted.reserved if family == 4 else ()
    for hook in JUMPS:
        lines = [Worded.of(_reserved(port), port) for port in reserved if port.hook == hook]
        put("mangle", hook, [*lines, *(Worded.of(_jump(jump), jump) for jump in wanted.jumps if jump.hook == hook)])
    closing = [Worded.of(_entry(e, family), e) for e in wanted.kill_switch if e.family in (None, family)]
    put("mangle", KILL_SWITCH, closing)
    for hook in _CLAMPS:
        guards = wanted.guards if hook == "INPUT" else ()
        lines = [Worded.of(_guard(guard), guard) for guard in guards]
        lines += [Worded.of(_reserved(port), port) for port in reserved if port.hook == hook]
        lines += [Worded.of(_clamp(c), c) for c in wanted.clamps if (c.family, c.hook) == (family, hook)]
        if hook == "INPUT":
            lines += [Worded.of(rule, bound) for bound in wanted.bounds if (rule := _bound(bound, family))]
        if closing and hook == "POSTROUTING":
            # It has no target REJECT: that one is for the filter table, before a packet's last way out is known.
            lines.insert(0, Worded.of(f"{_comment('what leaves')} -j {KILL_SWITCH}", KILL_SWITCH))
        put("mangle", hook, lines)
    put("nat", "POSTROUTING", [Worded.of(_nat(nat), nat) for nat in wanted.nats if nat.family == family])
    return rules


def _entry(entry: Entry, family: Family) -> str:
    words = []
    if entry.arrives_on:
        words.append(f"-i {entry.arrives_on}")
    if entry.leaves_by:
        words.append(f"-o {entry.leaves_by}")
    if entry.leaves_not_by:
        words.append(f"! -o {entry.leaves_not_by}")
    if entry.to:
        words.append(f"-d {entry.to}/{entry.to.max_prefixlen}")
    if entry.within:
        words.append(f"-d {entry.within}")
    if entry.to_port:
        protocol, port = entry.to_port
        words.append(f"-p {protocol} -m {protocol} --dport {port}")
    if entry.from_this_host:
        words.append("-m addrtype --src-type LOCAL")
    if entry.to_this_host:
        words.append("-m addrtype --dst-type LOCAL")
    if entry.answers:
        words.append("-m conntrack --ctdir REPLY")
    if entry.running:
        words.append(f"-m conntrack {_RUNNING[entry.running]}")
    if entry.connmark:
        words.append(f"-m connmark --mark {_masked(entry.connmark).removesuffix('/0xffffffff')}")
    if entry.to_set_of:
        name = entry.to_set_of.set if family == 4 else entry.to_set_of.set6
        words.append(f"-m set --match-set {name} dst")
    if entry.marked is not None:
        words.append(f"-m mark --mark {entry.marked:#x}")
    words.append(_comment(entry.why))
    if entry.mark is not None:
        words.append(f"-j MARK --set-xmark {entry.mark:#x}/0xffffffff")
    elif entry.keep:
        words.append(f"-j CONNMARK --set-xmark {_masked(entry.keep)}")
    else:
        words.append("-j DROP" if entry.drop else "-j RETURN")
    return " ".join(words)


def _masked(bits: Masked) -> str:
    return f"{bits.value:#x}/{bits.mask:#x}"


def _jump(jump: Jump) -> str:
    return f"{_comment(jump.why)} -j {CHAIN}"


def _to_port_53(protocol: str) -> str:
    return f"-p {protocol} -m {protocol} --dport 53"


def _guard(guard: Guard) -> str:
    there = "-m addrtype ! --dst-type LOCAL --limit-iface-in"
    return f"-i {guard.interface} {_to_port_53(guard.protocol)} {there} {_comment(guard.why)} -j DROP"


def _reserved(port: Reserved) -> str:
    # Only the first packet of a connection by TCP: the kernel sends its last ones without a user.
    first = "" if port.protocol == "udp" else " --tcp-flags FIN,SYN,RST,ACK SYN"
    match = f"-p {port.protocol} -m {port.protocol} --dport {port.port}{first}"
    side = "-d 127.0.0.0/8 ! -i lo" if port.hook == "INPUT" else "-d 127.0.0.1/32 -o lo"
    users = "".join(f" -m owner ! --uid-owner {user}" for user in port.users)
    return f"{side} {match}{users} {_comment(port.why)} -j DROP"


def _clamp(clamp: Clamp) -> str:
    side = "-o" if clamp.hook == "POSTROUTING" else "-i"
    target = "--clamp-mss-to-pmtu" if clamp.mss is None else f"--set-mss {clamp.mss}"
    syn = "-p tcp -m tcp --tcp-flags SYN,RST SYN"
    return f"{side} {clamp.interface} {syn} {_comment(clamp.why)} -j TCPMSS {target}"


def _bound(bound: Questions | Answers, family: Family) -> str:
    """Empty for one of the other family."""
    protocol = f"-p {bound.protocol} -m {bound.protocol}"
    if isinstance(bound, Questions):
        limit = f"--hashlimit-above {bound.rate}/sec --hashlimit-burst {bound.burst} --hashlimit-mode srcip"
        name = f"gfwtools_{bound.protocol} --hashlimit-htable-expire 60000"
        match = f"! -i lo {protocol} --dport 53" if bound.family == family else ""
    else:
        address, port = bound.upstream
        limit = f"--hashlimit-above {bound.rate}kb/s --hashlimit-burst {bound.burst}mb"
        name = "gfwtools_answers"
        match = f"-s {address}/{address.max_prefixlen} {protocol} --sport {port}" if address.version == family else ""
    words = f"{match} -m hashlimit {limit} --hashlimit-name {name} {_comment(bound.why)} -j DROP"
    return words if match else ""


def _nat(nat: Nat) -> str:
    target = "MASQUERADE" if nat.to is None else f"SNAT --to-source {nat.to}"
    return f"-o {nat.interface} -m mark --mark {nat.mark:#x} {_comment(nat.why)} -j {target}"


def _comment(why: str) -> str:
    return f'-m comment --comment "{ownership.comment(why)}"'


def canonical(rule: str) -> frozenset[tuple[str, ...]]:
    """The options of a rule in any order: versions of iptables-save put the comment first or last.

    ``-m NAME`` says only where the next options come from, but for ``--mark``, which is the packet's or the
    connection's. ``/32`` is the length of any single address.
    """
    groups: list[list[str]] = []
    for word in shlex.split(rule):
        if word == "!" or (word.startswith("-") and not (groups and groups[-1] == ["!"])):
            groups.append([word])
        elif groups:
            groups[-1].append(word.removesuffix("/32").removesuffix("/128"))
    return frozenset(tuple(group) for group in groups if group[0] not in ("-m", "--match") or group[1:] == ["connmark"])


def _chains(*rules: Mapping[Chain, object]) -> list[Chain]:
    """The chains of all, ours first: the others jump to them."""
    return sorted({chain for some in rules for chain in some}, key=lambda chain: (chain.name not in _OURS, chain))


def _same(one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    if one is None or other is None:
        return one is other
    return [canonical(rule) for rule in one] == [canonical(rule) for rule in other]


def _transaction(
    family: Family,
    table: str,
    old: Mapping[Chain, Sequence[str]],
    new: Mapping[Chain, Sequence[str]],
    again: Collection[Chain] = (),
) -> str:
    """Input for ``iptables-restore --noflush`` that takes our rules from ``old`` to ``new``; empty if they are equal.

    In the chains that are not ours only our rules are touched. They go first: a foreign SNAT rule that takes every
    packet would leave ours nothing. The jumps to GFWLIST go last: others restore a packet's mark from the connection's.

    :param again: chains where our rules move, though they are the same.
    """
    declare, remove, add, drop = [], [], [], []
    for chain in _chains(old, new):
        if (chain.family, chain.table) != (family, table):
            continue
        if _same(old.get(chain), new.get(chain)) and not (chain in again and chain in new):
            continue
        if chain.name in _OURS and chain in new:
            declare.append(f":{chain.name} - [0:0]")  # which also empties it
            add += [f"-A {chain.name} {rule}" for rule in new[chain]]
        elif chain.name in _OURS:
            drop += [f"-F {chain.name}", f"-X {chain.name}"]
        else:
            remove += [f"-D {chain.name} {rule}" for rule in old.get(chain, ())]
            if chain.kind is Kind.JUMP:
                add += [f"-A {chain.name} {rule}" for rule in new.get(chain, ())]
            else:
                add += [f"-I {chain.name} {place} {rule}" for place, rule in enumerate(new.get(chain, ()), 1)]
    lines = [*declare, *remove, *add, *drop]
    return "".join(f"{line}\n" for line in (f"*{table}", *lines, "COMMIT")) if lines else ""


def _iptables_restore(tool: str, text: str) -> Command:
    return Command((f"{tool}-restore", "--noflush", "-w"), text)


def _remove_base(
    family: Family,
    table: str,
    old: frozenset[tuple[str, str, str]] | None,
    new: frozenset[tuple[str, str, str]] | None,
) -> list[Command]:
    """The command that removes the base chains of ``old`` that ``new`` has not, and then the table."""
    gone = sorted(
        (chain for chain in (old or frozenset()) - (new or frozenset()) if chain[:2] == (_NFT_FAMILY[family], table)),
        key=lambda chain: (chain[2] == "", chain),
    )
    lines = [f"delete chain {nft} {table} {name}" if name else f"delete table {nft} {table}" for nft, _, name in gone]
    return [Command(("nft", "-f", "-"), "".join(f"{line}\n" for line in lines))] if lines else []


# ---------------------------------------------------------------- observe


def _names(policy: PolicyConfig) -> tuple[str, ...]:
    names = ipset.set_names(policy)
    return (*names.learned, *names.direct)


def _observe(runner: Runner, names: Iterable[str]) -> IptablesState:
    """Look at the sets called ``names``, and at our rules of both families.

    iptables-save without ``-t`` looks at the tables that are there, and makes none.
    """
    present = (runner.ask("ipset", "list", "-n") or "").split()
    sets = {name: _parse_set(runner.read("ipset", "save", name)) for name in dict.fromkeys(names) if name in present}
    rules: dict[Chain, tuple[str, ...]] = {}
    foreign: set[tuple[str, str, str]] = set()
    taken: list[Chain] = []
    overtaken: dict[Chain, Overtaken] = {}
    unread: dict[Family, str] = {}
    for family in TOOL:
        text = _save(runner, family, unread)
        ours, others, not_ours = _parse_rules(family, text)
        rules.update(ours)
        foreign |= others
        taken += not_ours
        overtaken.update(overtaken_in(lines_of(family, text)[1]))
    base = _base_chains(runner)
    return IptablesState(sets, rules, base, _in_use(foreign), tuple(taken), overtaken, unread)


def _save(runner: Runner, family: Family, unread: dict[Family, str]) -> str:
    """Empty where it fails: without iptables, or without this family, there is no rule.

    :param unread: gets what it says where it fails because this process may not see the rules.
    """
    try:
        return runner.read(f"{TOOL[family]}-save")
    except CommandError as error:
        if lacks_net_raw() and runner.has(f"{TOOL[family]}-save"):
            unread[family] = str(error)
        return ""


def _parse_set(text: str) -> IpsetState:
    create, *adds = text.splitlines()
    return IpsetState(_create_words(create.strip())[1], frozenset(line.split()[2] for line in adds))


def _parse_rules(
    family: Family, text: str
) -> tuple[dict[Chain, tuple[str, ...]], set[tuple[str, str, str]], list[Chain]]:
    """The output of ``iptables-save``: our rules, the chains that others use, and chains of others with our name."""
    chains, lines = lines_of(family, text)
    named = [Chain(family, "mangle", name) for name in _OURS]
    taken = [ours for ours in named if not ownership.is_chain(rule for chain, rule in lines if chain == ours)]
    rules: dict[Chain, tuple[str, ...]] = {ours: () for ours in named if ours in chains and ours not in taken}
    # A chain of another program, or a base chain with a policy other than ACCEPT.
    foreign = {chain for chain, policy in chains.items() if policy != "ACCEPT" and chain not in rules}
    for chain, rule in lines:
        # With a jump to it our chain could not be removed.
        belongs = any(
            chain == ours or (chain.table == ours.table and jumps_to(ours.name, rule))
            for ours in named
            if ours not in taken
        )
        if belongs or ownership.is_rule(rule):
            rules[chain] = (*rules.get(chain, ()), rule)
        else:
            foreign.add(chain)
    used = {(_NFT_FAMILY[family], chain.table, chain.name) for chain in foreign}
    return rules, used, taken


def _base_chains(runner: Runner) -> frozenset[tuple[str, str, str]] | None:
    """The chains and tables of nf_tables that iptables-nft works in; None where it is another iptables."""
    if "nf_tables" not in (runner.ask("iptables", "-V") or ""):
        return None
    found = set()
    for what in ("tables", "chains"):
        text = runner.ask("nft", "-j", "list", what)
        if text is None:  # iptables-nft without nft: nothing can be seen, and nothing removed
            return None
        for entry in json.loads(text)["nftables"]:
            chain, table = entry.get("chain"), entry.get("table")
            if table and table["name"] in _TABLES and table["family"] in _NFT_FAMILY.values():
                found.add((table["family"], table["name"], ""))
            elif chain and chain["table"] in _TABLES and chain["family"] in _NFT_FAMILY.values():
                found.add((chain["family"], chain["table"], chain["name"]))
    found -= {(family, "mangle", name) for family, name in product(_NFT_FAMILY.values(), _OURS)}
    return frozenset(found)


def _in_use(foreign: set[tuple[str, str, str]]) -> frozenset[tuple[str, str, str]]:
    """Chains with foreign rules, and tables of which a chain stays."""
    return frozenset(foreign | {(family, table, "") for family, table, _ in foreign})
