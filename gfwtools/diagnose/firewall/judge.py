"""Do the firewalls of this host let the LAN into a tunnel? Asks the host for its rules, and has two packets judged."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.diagnose.firewall import iptables_rules, nft_rules
from gfwtools.diagnose.firewall import questions as dns
from gfwtools.diagnose.firewall.crossing import Crossing, Passage, Verdict, crossings
from gfwtools.diagnose.firewall.opening import Zone, opening
from gfwtools.diagnose.firewall.packet import Bits, Packet, Truth
from gfwtools.diagnose.firewall.walk import BaseChain, Judgement, Place, Verb
from gfwtools.diagnose.lan import lans
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.plumbing.facts import Facts, Family
from gfwtools.render.nftables import TABLE
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.networks import wans

__all__ = ["Judged", "judge_firewall", "judge_questions_into", "judge_questions_of_lan"]

#: The tables of iptables that have chains for forwarded packets, but for nat, which stops none.
_TABLES = ("raw", "mangle", "filter", "security")
#: A host may have both kinds of iptables; one of them has the plain name.
_SUFFIXES = ("", "-nft", "-legacy")
#: Where iptables translates sources (linux/netfilter_ipv4.h, NF_IP_PRI_NAT_SRC).
_SRCNAT = 100
_PROGRAMS: dict[Family, str] = {4: "iptables", 6: "ip6tables"}
# The tables that iptables-legacy has in this network namespace.
_LEGACY: dict[Family, Path] = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict over all ways from the LAN into a tunnel: in words, and with the commands that open them."""

    verdict: Verdict
    words: str
    remedy: str = ""


def judge_firewall(
    config: Config, policy: PolicyConfig, facts: Facts, runner: Runner, sites: Sequence[Address] = ()
) -> Judged:
    """Judge a new connection from each LAN into the policy's tunnel, and the answer to it.

    :param sites: addresses that take the tunnel; without any the policy's resolvers are taken.
    """
    tunnel = facts.interfaces.get(policy.interface)
    # Without an address of a family the kill switch refuses its packets: there is nothing to let pass.
    families = [family for family in facts.families if (tunnel.carries(family) if tunnel else family == 4)]
    if not sites:
        sites = [upstream.address for upstream in policy.upstream]
    if policy.snat:
        translated: list[Address] = [policy.snat]
    else:
        translated = [address.ip for address in tunnel.addresses] if tunnel and policy.nat == "masquerade" else []
    saved = Bits(config.connmark(policy), config.host.connmark_mask)
    ways = [
        replace(way, back=questions.route(runner, way.site.example).device or "", connection_mark=saved)
        for lan in lans(config, runner)
        for way in crossings(lan, policy.interface, families, sites, policy.mark, translated)
    ]
    if not ways:
        return Judged(Verdict.UNKNOWN, "no interface of the LAN is up with an address")
    ruleset = _ruleset(runner)
    unread = _unread(runner, ruleset)
    if unread:
        return Judged(Verdict.UNKNOWN, *unread)
    chains = {family: _chains(runner, family, ruleset) for family in {way.family for way in ways}}
    apart = _apart(ways, chains, wans(runner))
    if translated:
        chains = {
            family: [*found, *_before_ours(runner, family, ruleset, translated)] for family, found in chains.items()
        }
    return _judged(
        [passage for way in ways if way.lan not in apart for passage in way.passages(chains[way.family])], runner
    )


def judge_questions_of_lan(config: Config, daemon: Daemon, families: Iterable[Family], runner: Runner) -> Judged | None:
    """Judge the questions of the LAN to this host's dnsmasq; None where it listens at no address of the LAN."""
    asked = []
    for lan in lans(config, runner):
        for family in families:
            own = lan.address(family)
            if own and daemon.listens_at(str(own.ip)):
                asked.append((lan, family))
    if not asked:
        return None
    ruleset = _ruleset(runner)
    if unread := _unread(runner, ruleset):
        return Judged(Verdict.UNKNOWN, *unread)
    chains = {family: _chains(runner, family, ruleset) for family in {family for _, family in asked}}
    found = [passage for lan, family in asked if (passage := dns.from_lan(chains[family], lan, family))]
    return _judged(found, runner)


def judge_questions_into(policy: PolicyConfig, runner: Runner) -> Judged:
    """Judge the questions of this host to the clean resolvers of a policy, and the answers."""
    ruleset = _ruleset(runner)
    if unread := _unread(runner, ruleset):
        return Judged(Verdict.UNKNOWN, *unread)
    found: list[Passage] = []
    for server in policy.upstream:
        outer = questions.route(runner, server.address).device or ""
        chains = _chains(runner, 6 if server.address.version == 6 else 4, ruleset)
        found += dns.into_tunnel(chains, server.address, server.port, policy.interface, outer, policy.mark)
    return _judged(found, runner)


def _apart(ways: Sequence[Crossing], chains: Mapping[Family, Sequence[BaseChain]], outer: Iterable[str]) -> set[str]:
    """The networks that are kept from the Internet altogether, where others are not: nothing is missing there."""
    free = set()
    for way in ways:
        for wan in outer:
            direct = replace(way, tunnel=wan, mark=0, translated=None, back=wan, connection_mark=Bits(0, 0))
            if direct.passages(chains[way.family])[0].verdict is not Verdict.BLOCKED:
                free.add(way.lan)
    return {way.lan for way in ways} - free if free else set()


def _judged(passages: Sequence[Passage], runner: Runner) -> Judged:
    zone = cache(lambda interface: _zone(runner, interface))
    blocked = [passage for passage in passages if passage.verdict is Verdict.BLOCKED]
    if blocked:
        commands = [opening(found, passage.packet, zone) for passage in blocked for found in passage.judged]
        return Judged(Verdict.BLOCKED, _words(blocked, "stopped by", runner), " && ".join(dict.fromkeys(commands)))
    unknown = [passage for passage in passages if passage.verdict is Verdict.UNKNOWN]
    if unknown:
        return Judged(Verdict.UNKNOWN, _words(unknown, "not known, because of", runner))
    if all(passage.packet.local for passage in passages):
        names = ", ".join(dict.fromkeys(passage.packet.iif or passage.packet.oif for passage in passages))
        return Judged(Verdict.PASSES, f"lets questions of {names} pass")
    fresh = [passage.packet for passage in passages if not passage.packet.reply]
    names = ", ".join(dict.fromkeys(packet.iif for packet in fresh))
    versions = " and ".join(dict.fromkeys(f"IPv{packet.family}" for packet in fresh))
    return Judged(Verdict.PASSES, f"lets {versions} of {names} pass, and the replies")


def _words(passages: Iterable[Passage], verb: str, runner: Runner) -> str:
    texts = []
    for passage in passages:
        places: dict[str, dict[str, None]] = {}
        for found in passage.judged:
            places.setdefault(_verb(found, verb), {})[_quoted(found.decided, runner)] = None
        each = (f"{does} {', '.join(rules)}" for does, rules in places.items())
        texts.append(f"{passage.title}: {'; '.join(each)}")
    return "; ".join(texts)


def _verb(found: Judgement, verb: str) -> str:
    return "given another address by" if found.verb is Verb.TRANSLATE else verb


def _quoted(place: Place, runner: Runner) -> str:
    """The rule as its program shows it. In JSON nft gives its handle only."""
    if place.rule.startswith("handle "):
        text = runner.ask("nft", "-a", "-t", "list", "chain", *place.table.split(), place.chain) or ""
        found = re.search(rf"^\s*(.*\S) # {re.escape(place.rule)}$", text, re.MULTILINE)
        if found:
            return f"{place.program} {place.table} {place.chain}: {found[1]}"
    if place.program == "nft":
        return f"{place.program} {place.table} {place.chain}: {place.rule}"
    return f"{place.program} -t {place.table}: {place.rule}"


def _zone(runner: Runner, interface: str) -> Zone:
    found = runner.ask("firewall-cmd", "--permanent", f"--get-zone-of-interface={interface}")
    if found:
        return Zone(found.strip(), True)
    return Zone((runner.ask("firewall-cmd", "--get-default-zone") or "public").strip(), False)


# ---------------------------------------------------------------- the rules of this host


def _ruleset(runner: Runner) -> list[dict[str, Any]] | None:
    """All rules of nftables; None where they cannot be listed."""
    with suppress(ValueError, LookupError):
        return list(json.loads(runner.ask("nft", "-j", "-t", "list", "ruleset") or "")["nftables"])
    return None


def _unread(runner: Runner, ruleset: list[dict[str, Any]] | None) -> tuple[str, str] | None:
    """What cannot be listed although it is there, and what to do."""
    if ruleset is None and runner.has("nft"):
        tables = (runner.ask("nft", "list", "tables") or "").replace("table ", "").splitlines()
        others = {*tables} - {TABLE, *(f"{family} {name}" for family in ("ip", "ip6") for name in (*_TABLES, "nat"))}
        if others:
            return f"nft cannot list its rules as JSON: {', '.join(sorted(others))}", "install nftables with JSON"
    for family, path in _LEGACY.items():
        with suppress(OSError):
            program = _PROGRAMS[family]
            if path.read_text().split() and not any(
                runner.has(f"{program}{suffix}-save")
                and iptables_rules.variant(runner.ask(f"{program}{suffix}-save") or "") == "legacy"
                for suffix in _SUFFIXES
            ):
                return f"the rules of {program}-legacy cannot be listed", f"install {program}-legacy"
    return None


def _chains(runner: Runner, family: Family, ruleset: list[dict[str, Any]] | None) -> list[BaseChain]:
    """What a forwarded packet of a family passes: chains of both iptables, and those of nft."""
    name = "ip" if family == 4 else "ip6"
    tables = {(item["table"]["family"], item["table"]["name"]) for item in ruleset or () if "table" in item}
    wanted = set()
    # To list a table of iptables may be to make it: only those are listed that are there.
    if ruleset is None or any((name, table) in tables for table in _TABLES):
        wanted.add("nf_tables")
    with suppress(OSError):
        if _LEGACY[family].read_text().split():
            wanted.add("legacy")
    found: list[BaseChain] = []
    skip = {("inet", TABLE.split()[-1])}  # what ours stops is not to be opened
    sets = _IpSets(runner)
    for suffix in _SUFFIXES:
        program = f"{_PROGRAMS[family]}{suffix}"
        if not wanted or not runner.has(f"{program}-save"):
            continue
        text = runner.ask(f"{program}-save") or ""
        kind = iptables_rules.variant(text)
        if kind in wanted:
            wanted.remove(kind)
            found += iptables_rules.parse(text, program, sets.holds)
            if kind == "nf_tables":
                skip |= {(name, line[1:].strip()) for line in text.splitlines() if line.startswith("*")}
    return found + nft_rules.parse(ruleset or (), family, _elements(runner), frozenset(skip))


def _before_ours(
    runner: Runner, family: Family, ruleset: list[dict[str, Any]] | None, translated: Iterable[Address]
) -> list[BaseChain]:
    """The chains of nft that may translate the source of a packet before we do: those of iptables come later."""
    heads = [item["chain"] for item in ruleset or () if "chain" in item]
    own = [each["prio"] for each in heads if each.get("type") == "nat" and f"{each['family']} {each['table']}" == TABLE]
    known = frozenset(map(str, translated))
    skip = frozenset({(TABLE.split()[0], TABLE.split()[1])})
    bases = nft_rules.translations(ruleset or (), family, _elements(runner), skip, known)
    return [base for base in bases if base.priority < min(own, default=_SRCNAT)]


def _elements(runner: Runner) -> Callable[[str, str, str], Sequence[Any] | None]:
    """Lists a named set or map when a rule asks for it."""

    @cache
    def elements(family: str, table: str, name: str) -> Sequence[Any] | None:
        for kind in ("set", "map"):
            text = runner.ask("nft", "-j", "list", kind, family, table, name)
            with suppress(ValueError, LookupError):
                for item in json.loads(text or "")["nftables"]:
                    if kind in item:
                        return list(item[kind].get("elem", ()))
        return None

    return elements


class _IpSets:
    """Asks ipset whether a set holds a packet's addresses."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._types: dict[str, tuple[list[str], str]] = {}

    def holds(self, name: str, sides: tuple[str, ...], packet: Packet) -> Truth:
        kinds, family = self._type(name)
        if not kinds or len(sides) < len(kinds):
            return None
        if family and family != {4: "inet", 6: "inet6"}[packet.family]:
            return False
        words = [_part(kind, side, packet) for kind, side in zip(kinds, sides, strict=False)]
        if None in words:
            return None
        # ipset(8): it exits with 1 where the element is not there.
        return self._runner.ask("ipset", "test", name, ",".join(map(str, words))) is not None

    def _type(self, name: str) -> tuple[list[str], str]:
        """What an element is made of, and the family of its addresses; nothing for a set that cannot be listed."""
        if name not in self._types:
            text = self._runner.ask("ipset", "list", "-terse", name) or ""
            kind = re.search(r"^Type: \w+:(\S+)$", text, re.MULTILINE)
            family = re.search(r"^Header: .*\bfamily (inet6?)\b", text, re.MULTILINE)
            self._types[name] = (kind[1].split(",") if kind else [], family[1] if family else "")
        return self._types[name]


def _part(kind: str, side: str, packet: Packet) -> str | None:
    """One dimension of an element (ipset(8), SET TYPES)."""
    match kind:
        case "ip" | "net":
            return str((packet.source if side == "src" else packet.destination).example)
        case "port":
            ports = packet.sports if side == "src" else packet.dports
            return f"{packet.protocol}:{ports[0]}" if len(ports) == 1 else None
        case "iface":
            return packet.iif if side == "src" else packet.oif
    return None
