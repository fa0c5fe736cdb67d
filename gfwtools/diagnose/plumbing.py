"""The links that netfilter and iproute2 are made of, from what :func:`gfwtools.plumbing.updown.look` has seen.

Pure, but for :func:`see`, which looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.diagnose.firewall.crossing import Verdict
from gfwtools.diagnose.firewall.judge import Judged, judge_firewall
from gfwtools.diagnose.ip_rules import OWN, Packet, preference_of, rule_before
from gfwtools.diagnose.lan_way import Astray, astray
from gfwtools.diagnose.link import Link, LinkState
from gfwtools.dnsmasq.conf import is_wired
from gfwtools.plumbing.backend import sets_with
from gfwtools.plumbing.facts import Interface
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.survey import Survey
from gfwtools.plumbing.wanted import CHAIN, MAIN, Clamp, Entry, Nat, Reserved, Route, Rule
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import Way

__all__ = ["LINKS", "UP", "Seen", "is_bootstrapped", "links", "see"]

#: The links of :func:`links`, in their order.
LINKS = (
    "set",
    "jump",
    "mark",
    "endpoint",
    "tunnel",
    "route",
    "ip rule",
    "nat",
    "segments",
    "forwarding",
    "reverse path",
)
UP = "gfwtools up"
_OK, _BROKEN, _SKIPPED = LinkState.OK, LinkState.BROKEN, LinkState.SKIPPED


@dataclass(frozen=True, slots=True)
class Seen:
    """The part of the kernel's state that the pieces do not show."""

    resolver: Address
    """A clean resolver of a family that the tunnel carries."""
    resolver_in_set: bool
    """The clean resolver's address is in the set, so that dnsmasq's own questions take the tunnel."""
    endpoints_in_set: frozenset[Address]
    endpoint_devices: dict[Address, str | None]
    """By which interface the tunnel's own packets leave."""
    own_mark: int
    """The mark of the tunnel's own packets (wg(8), fwmark)."""
    resolver_way: Way
    """The route of a marked packet to the clean resolver."""
    rule_before: str
    """The rule of another program that gives it that route; empty where none is found."""
    reverse_path_filter: int
    """What is in force on the tunnel: the larger one of its own and that of all (ip-sysctl.rst)."""
    astray: tuple[Astray, ...] = ()
    """The LANs whose marked packets leave elsewhere."""
    firewall: Judged | None = None
    """Whether the firewalls let the LAN into the tunnel; None where this host is not a gateway."""


def is_bootstrapped(config: Config, survey: Survey | None) -> bool:
    """Whether bootstrap (or at least ``up``) has ever been here: dnsmasq is wired, or some of the plumbing is there."""
    return is_wired(config) or (survey is not None and survey.is_up)


def see(config: Config, survey: Survey, policy: PolicyConfig, runner: Runner, sites: Sequence[Address] = ()) -> Seen:
    """Ask the kernel.

    :param sites: the addresses that are of interest.
    """
    assert survey.facts is not None
    backend = survey.backend
    assert backend is not None
    tunnel = survey.facts.interfaces.get(policy.interface)
    endpoints = tunnel.endpoints if tunnel else ()
    resolver = _resolver(policy, tunnel)
    way = questions.route(runner, resolver, policy.mark)
    rules = questions.rules(runner, resolver.version)
    return Seen(
        resolver=resolver,
        resolver_in_set=bool(sets_with(runner, backend, policy, resolver)),
        endpoints_in_set=frozenset(e for e in endpoints if sets_with(runner, backend, policy, e)),
        endpoint_devices={e: questions.route(runner, e).device for e in endpoints},
        own_mark=questions.own_mark(runner, policy.interface) if endpoints else 0,
        resolver_way=way,
        rule_before=rule_before(rules, preference_of(config, policy), Packet(OWN, None, resolver, policy.mark), way),
        reverse_path_filter=questions.reverse_path_filter(runner, policy.interface),
        astray=tuple(astray(config, policy, resolver, runner)),
        firewall=judge_firewall(config, policy, survey.facts, runner, sites) if config.host.gateway else None,
    )


def _resolver(policy: PolicyConfig, tunnel: Interface | None) -> Address:
    addresses = [upstream.address for upstream in policy.upstream]
    return next((a for a in addresses if tunnel and tunnel.carries(a.version)), addresses[0])


def links(config: Config, survey: Survey, policy: PolicyConfig, seen: Seen, *, dropped: int = 0) -> list[Link]:
    """Every link of :data:`LINKS` for ``policy``.

    :param dropped: replies that the reverse-path filter has dropped while we asked.
    """
    facts = survey.facts
    assert facts is not None
    pieces = [piece for piece in survey.pieces if not _is_of_others(piece, survey, policy)]
    tunnel = facts.interfaces.get(policy.interface)
    up = tunnel is not None and tunnel.up
    return [
        _set(pieces, policy, seen),
        _jump(pieces),
        _mark(pieces),
        _endpoint(pieces, survey, policy, seen),
        _tunnel(policy, survey),
        _route(pieces, policy) if up else Link("route", _SKIPPED, found=f"{policy.interface} is not up"),
        _rule(pieces, config, policy, seen, judged=up),
        _nat(pieces, policy),
        _segments(pieces, policy) if tunnel else Link("segments", _SKIPPED, found="no interface"),
        _forwarding(pieces, config, policy, seen),
        _reverse_path(policy, seen, dropped) if tunnel else Link("reverse path", _SKIPPED, found="no interface"),
    ]


def _is_of_others(piece: Piece, survey: Survey, policy: PolicyConfig) -> bool:
    """A piece that is another policy's alone, or one that is only too many."""
    if piece.extra:
        return True
    match piece.subject:
        case PolicyConfig(name=name):
            return name != policy.name
        case Entry(to_set_of=PolicyConfig(name=name)):
            return name != policy.name
        case Entry(policy=name) if name:
            return name != policy.name
        case Entry(to=address) if address is not None:
            assert survey.facts is not None
            tunnel = survey.facts.interfaces.get(policy.interface)
            return tunnel is None or address not in tunnel.endpoints
        case Entry(arrives_on=name) | Clamp(interface=name) if name is not None:
            return name != policy.interface
        case Nat(mark=mark):
            return mark != policy.mark
        case Route(table=table, interface=name):
            return table not in (policy.table, MAIN) or (table == MAIN and name != policy.interface)
    return False


def _bad(pieces: Iterable[Piece], *kinds: Kind) -> list[Piece]:
    return [piece for piece in pieces if piece.kind in kinds and piece.state is not State.OK]


def _words(pieces: Sequence[Piece]) -> str:
    first = pieces[0]
    text = f"{first.name}: {first.state.value.lower()}" + (f": {first.detail}" if first.detail else "")
    return f"{text} (and {len(pieces) - 1} more)" if len(pieces) > 1 else text


def _link(name: str, expected: str, bad: Sequence[Piece], ok: str = "") -> Link:
    broken = [piece for piece in bad if piece.state is not State.UNKNOWN]
    if broken:
        return Link(name, _BROKEN, expected, _words(broken), UP)
    if bad:
        return Link(name, LinkState.UNKNOWN, expected, _words(bad), bad[0].remedy or UP)
    return Link(name, _OK, expected, ok or expected)


def _set(pieces: Sequence[Piece], policy: PolicyConfig, seen: Seen) -> Link:
    expected = f"sets of policy {policy.name}, with the clean resolver {seen.resolver} in them"
    bad = _bad(pieces, Kind.SETS)
    if bad:
        return Link("set", _BROKEN, expected, _words(bad), UP)
    if not seen.resolver_in_set:
        return Link("set", _BROKEN, expected, f"{seen.resolver} is in none of them", UP)
    return Link("set", _OK, expected, expected)


def _jump(pieces: Sequence[Piece]) -> Link:
    return _link(
        "jump",
        f"packets pass the chain {CHAIN}",
        [piece for piece in _bad(pieces, Kind.JUMP) if not isinstance(piece.subject, Reserved)],
    )


def _mark(pieces: Sequence[Piece]) -> Link:
    bad = [piece for piece in _bad(pieces, Kind.CHAIN) if _way_out(piece) is None]
    return _link("mark", f"{CHAIN} marks packets to an address in the set", bad)


def _way_out(piece: Piece) -> Address | None:
    """The peer that the piece keeps out of its own tunnel."""
    return piece.subject.to if isinstance(piece.subject, Entry) else None


def _endpoint(pieces: Sequence[Piece], survey: Survey, policy: PolicyConfig, seen: Seen) -> Link:
    """The tunnel's own packets must not be sent into the tunnel."""
    assert survey.facts is not None
    name = "endpoint"
    tunnel = survey.facts.interfaces.get(policy.interface)
    if not tunnel or not tunnel.endpoints:
        return Link(name, _SKIPPED, found=f"{policy.interface} has no WireGuard peer with an address")
    expected = f"packets to {', '.join(map(str, tunnel.endpoints))} stay out of {policy.interface}"
    if seen.own_mark == policy.mark:
        found = f"{policy.interface} marks its own packets with {policy.mark:#x}, the policy's mark"
        return Link(name, _BROKEN, expected, found, f"wg set {policy.interface} fwmark 0")
    without = {_way_out(piece) for piece in _bad(pieces, Kind.CHAIN)}
    notes = []
    for endpoint in tunnel.endpoints:
        if endpoint in without and endpoint in seen.endpoints_in_set:
            found = f"{endpoint} is in the set and no RETURN comes before the mark: the tunnel is sent into itself"
            return Link(name, _BROKEN, expected, found, UP)
        if endpoint in without:
            notes.append(f"{endpoint} has no RETURN, and is in no set yet")
        device = seen.endpoint_devices.get(endpoint)
        if device == policy.interface:
            found = f"{endpoint} is routed into {device} itself"
            return Link(name, _BROKEN, expected, found, f"ip route get {endpoint}")
    devices = ", ".join(sorted({device or "nothing" for device in seen.endpoint_devices.values()}))
    return Link(name, _OK, expected, "; ".join(notes) or f"by {devices}")


def _tunnel(policy: PolicyConfig, survey: Survey) -> Link:
    assert survey.facts is not None
    tunnel = survey.facts.interfaces.get(policy.interface)
    expected = f"{policy.interface} is there and up"
    if tunnel is None:
        return Link("tunnel", _BROKEN, expected, "there is no such interface", f"wg-quick up {policy.interface}")
    if not tunnel.up:
        return Link("tunnel", _BROKEN, expected, "it is down", f"ip link set {policy.interface} up && {UP}")
    return Link("tunnel", _OK, expected, ", ".join(map(str, tunnel.addresses)) or "up")


def _route(pieces: Sequence[Piece], policy: PolicyConfig) -> Link:
    bad = _bad_routes(pieces, policy)
    return _link("route", f"table {policy.table}: default dev {policy.interface}", bad)


def _bad_routes(pieces: Iterable[Piece], policy: PolicyConfig) -> list[Piece]:
    """Those of the policy's table: its default route, and the kill switch."""
    bad = _bad(pieces, Kind.ROUTE)
    return [piece for piece in bad if isinstance(piece.subject, Route) and piece.subject.table == policy.table]


def _rule(pieces: Sequence[Piece], config: Config, policy: PolicyConfig, seen: Seen, *, judged: bool) -> Link:
    preference = preference_of(config, policy)
    expected = f"rule {preference}: mark {policy.mark:#x} looks up table {policy.table}, and no other rule comes first"
    own = (preference - 1, preference)
    bad = [p for p in _bad(pieces, Kind.RULE) if isinstance(p.subject, Rule) and p.subject.preference in own]
    if bad:
        return Link("ip rule", _BROKEN, expected, _words(bad), UP)
    # Where the route itself is missing, the way says nothing of the rules.
    whole = not _bad_routes(pieces, policy)
    if judged and whole and seen.resolver_way.device != policy.interface:
        way = f"marked packets leave by {seen.resolver_way.device or 'nothing'}"
        if not seen.rule_before:
            remedy = f"ip route get {seen.resolver} mark {policy.mark:#x}"
            return Link("ip rule", _BROKEN, expected, way, remedy)
        family = "-6 " if seen.resolver.version == 6 else ""
        remedy = f"ip {family}rule del {seen.rule_before}"
        return Link("ip rule", _BROKEN, expected, f"{way}: ip rule {seen.rule_before} comes first", remedy)
    if judged and whole and seen.astray:
        return Link("ip rule", _BROKEN, expected, "; ".join(map(str, seen.astray)), seen.astray[0].remedy)
    return Link("ip rule", _OK, expected, expected)


def _nat(pieces: Sequence[Piece], policy: PolicyConfig) -> Link:
    if policy.nat == "none":
        return Link("nat", _SKIPPED, found='nat = "none"')
    expected = f"what leaves by {policy.interface} has its address ({policy.nat})"
    return _link("nat", expected, _bad(pieces, Kind.NAT))


def _segments(pieces: Sequence[Piece], policy: PolicyConfig) -> Link:
    """Of what this host sends itself, and of all that leaves by the tunnel."""
    bad = [p for p in _bad(pieces, Kind.CLAMP) if isinstance(p.subject, Clamp) and not _is_forwarded(p)]
    return _link("segments", f"segments of TCP fit into {policy.interface}", bad)


def _is_forwarded(piece: Piece) -> bool:
    return isinstance(piece.subject, Clamp) and piece.subject.hook == "FORWARD"


def _forwarding(pieces: Sequence[Piece], config: Config, policy: PolicyConfig, seen: Seen) -> Link:
    if not config.host.gateway:
        return Link("forwarding", _SKIPPED, found="not a gateway (host.gateway)")
    expected = "the LAN's packets are forwarded, in segments that fit"
    switches = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    bad = [
        *filter(_is_forwarded, _bad(pieces, Kind.CLAMP)),
        *(p for p in _bad(pieces, Kind.SYSCTL) if p.subject in switches),
    ]
    firewall = seen.firewall
    if bad or firewall is None:
        return _link("forwarding", expected, bad)
    found = f"the firewall {firewall.words}" if firewall.verdict is Verdict.PASSES else f"firewall: {firewall.words}"
    states = {Verdict.PASSES: _OK, Verdict.BLOCKED: _BROKEN, Verdict.UNKNOWN: LinkState.UNKNOWN}
    return Link("forwarding", states[firewall.verdict], expected, found, firewall.remedy)


def _reverse_path(policy: PolicyConfig, seen: Seen, dropped: int) -> Link:
    expected = f"no strict filter on {policy.interface}: rp_filter is 2 or 0"
    key = f"net.ipv4.conf.{policy.interface.replace('.', '/')}.rp_filter"
    if seen.reverse_path_filter == 1:
        count = f"; {dropped} packets dropped meanwhile (IPReversePathFilter)" if dropped else ""
        return Link("reverse path", _BROKEN, expected, f"1: replies from the tunnel are dropped{count}", UP)
    return Link("reverse path", _OK, expected, f"{seen.reverse_path_filter} ({key})")


def dropped_by_filter(path: Path = Path("/proc/net/netstat")) -> int:
    """Packets that the reverse-path filter has dropped in this network namespace so far."""
    try:
        return parse_netstat(path.read_text("ascii", "replace")).get("IPReversePathFilter", 0)
    except OSError:
        return 0


def parse_netstat(text: str) -> dict[str, int]:
    """/proc/net/netstat: a line with names and one with numbers, both behind the same word; TcpExt counts here."""
    lines = [line.split() for line in text.splitlines()]
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        if names and names[0] == "TcpExt:":
            return {name: int(number) for name, number in zip(names[1:], numbers[1:], strict=False)}
    return {}
