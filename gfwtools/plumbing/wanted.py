"""The plumbing as data: what must be on the host for a configuration, each piece with its reason.

The way of a packet to a blocked site::

    dnsmasq puts the address into a set          AddressSets
    OUTPUT (PREROUTING for the LAN) -> GFWLIST   Jump
    an address in the set is marked              Entry
    and all packets of its connection            Entry
    the mark selects the policy's table          Rule
    whose default route is the tunnel            Route
    which knows only the tunnel's own address    Nat
    and any other way out is closed              Entry
    and less room in a packet                    Clamp

Nothing is read here and nothing is run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gfwtools.config.model import Address, Config, Network, PolicyConfig, Upstream
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Facts, Family, Interface
from gfwtools.render.ipset import seed_networks
from gfwtools.render.not_sites import NOT_SITES, is_no_site

__all__ = [
    "ALL_BITS",
    "CHAIN",
    "FULL",
    "KILL_SWITCH",
    "KILL_SWITCH_METRIC",
    "MAIN",
    "AddressSets",
    "Answers",
    "Clamp",
    "Connmark",
    "Entry",
    "Guard",
    "Jump",
    "Masked",
    "Nat",
    "Questions",
    "Reserved",
    "Route",
    "Rule",
    "Sysctl",
    "TableName",
    "Wanted",
    "closed",
    "connmarks",
    "wanted",
]

#: The chain that marks, in both backends.
CHAIN = "GFWLIST"
#: The chain that what leaves passes, in both backends.
KILL_SWITCH = "GFWLIST_KILL"
#: The main table (rtnetlink(7)).
MAIN = 254
#: Behind every route that people set, and not the 4294967295 that the kernel has for its own null entry.
KILL_SWITCH_METRIC = 4278198272
#: The kernel's metric for an IPv6 route that names none (IP6_RT_PRIO_USER).
_IPV6_METRIC = 1024
#: Bytes of an IP and a TCP header without options: what of an MTU is not segment (RFC 879, RFC 8200 section 8.3).
_HEADERS: dict[Family, int] = {4: 40, 6: 60}
#: How names are asked for.
Transport = Literal["udp", "tcp"]
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
#: The mask of a whole mark.
ALL_BITS = 0xFFFFFFFF

#: Questions of one client, a second and at once (docs/security.md).
QUESTIONS_RATE, QUESTIONS_BURST = 50, 1000
#: Kilobytes a second and megabytes at once from all clean resolvers together. An address takes 16 bytes of an answer
#: (RFC 1035, section 4.1.3, with a compressed name), so in the five minutes between two looks at the sets no more than
#: 370,000 addresses come. A set takes 1,048,576: it is looked at, and seen to be FULL, long before.
ANSWERS_RATE, ANSWERS_BURST = 12, 2
#: With this many addresses in a set, listed names are refused.
FULL = 100_000


@dataclass(frozen=True, slots=True)
class AddressSets:
    """The sets of a policy (both families, and the unmarked ones for exceptions), and their first elements."""

    policy: PolicyConfig
    seeds: tuple[Network, ...]
    learned: tuple[Address, ...] = ()


class Masked(NamedTuple):
    """Some bits of a connection mark: their value, and which they are."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Connmark:
    """What shows in the connection mark that a connection belongs to a policy, and which way it then takes."""

    policy: str
    bits: Masked
    mark: int
    table: int
    interface: str

    @property
    def forms(self) -> tuple[Masked, Masked]:
        """The connection marks that say it: our bits, or the packet's mark where another program has saved that."""
        return self.bits, Masked(self.mark, ALL_BITS)


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule of a chain of ours: ``mark`` the packet, ``keep`` that in the connection mark, ``drop`` it, or leave the
    chain.

    A None matches any packet.
    """

    why: str
    family: Family | None = None
    answers: bool = False
    """Only packets of a connection that the other side has begun."""
    running: Literal["confirmed", "related"] | None = None
    """Only packets of a connection that is known already, or that belongs to one (FTP's data)."""
    arrives_on: str | None = None
    leaves_by: str | None = None
    leaves_not_by: str | None = None
    from_this_host: bool = False
    """Only packets that this host sends itself."""
    to: Address | None = None
    to_this_host: bool = False
    """Only packets to an address that this host has."""
    to_port: tuple[Transport, int] | None = None
    within: Network | None = None
    """Only packets to an address of this network."""
    to_set_of: PolicyConfig | None = None
    connmark: Masked | None = None
    """Only packets of a connection that has this in its mark."""
    marked: int | None = None
    mark: int | None = None
    keep: Masked | None = None
    drop: bool = False
    policy: str = field(default="", compare=False)
    """The only policy that it is for."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What comes in by ``interface`` for port 53 of an address that another interface has: it is dropped."""

    interface: str
    protocol: Transport
    why: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """The port of a second dnsmasq at 127.0.0.1: who asks it puts the address of any name into a set.

    It is dropped what comes from another host (``net.ipv4.conf.*.route_localnet``), and what other users send.
    """

    port: int
    protocol: Transport
    hook: Literal["INPUT", "OUTPUT"]
    why: str
    users: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """From a hook of the mangle table into the chain GFWLIST."""

    hook: Literal["OUTPUT", "PREROUTING"]
    why: str


@dataclass(frozen=True, slots=True)
class Clamp:
    """The largest TCP segment of a connection, for packets that leave by the tunnel (POSTROUTING) or come from it.

    ``mss`` in bytes; None for what the path's MTU leaves.
    """

    family: Family
    interface: str
    hook: Literal["POSTROUTING", "INPUT", "FORWARD"]
    mss: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Questions:
    """How many packets to port 53 a second one client may send, and how many at once; what is more is dropped."""

    family: Family
    protocol: Transport
    rate: int
    burst: int
    why: str = "one client asks no more than this"


@dataclass(frozen=True, slots=True)
class Answers:
    """From a clean resolver: how many kilobytes a second, and megabytes at once; what is more is dropped. All share
    it."""

    upstream: Upstream
    protocol: Transport
    rate: int
    burst: int
    why: str = "no set is full before it is looked at"


@dataclass(frozen=True, slots=True)
class Nat:
    """The source address of marked packets that leave by the interface: ``to``, or with None the interface's own."""

    family: Family
    mark: int
    interface: str
    to: Address | None
    why: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of ip-rule(8)."""

    family: Family
    preference: int
    table: int
    fwmark: int | None = None
    suppress_prefixlength: int | None = None
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of ip-route(8): destination None is the default, interface None is ``unreachable``."""

    family: Family
    table: int
    destination: Network | None
    interface: str | None
    metric: int
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel parameter by its path below /proc/sys: with slashes, as a name of an interface may hold a dot."""

    key: str
    value: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TableName:
    """A name in rt_tables, so that ``ip rule`` and ``ip route`` speak of the policy."""

    table: int
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The whole plumbing. The default is none: what ``down`` wants."""

    sets: tuple[AddressSets, ...] = ()
    entries: tuple[Entry, ...] = ()
    connmarks: tuple[Connmark, ...] = ()
    kill_switch: tuple[Entry, ...] = ()
    jumps: tuple[Jump, ...] = ()
    guards: tuple[Guard, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    clamps: tuple[Clamp, ...] = ()
    bounds: tuple[Questions | Answers, ...] = ()
    nats: tuple[Nat, ...] = ()
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    table_names: tuple[TableName, ...] = ()


def wanted(config: Config, facts: Facts) -> Wanted:
    """What must be on the host.

    Where a policy's interface is missing or down its marked packets have only the kill switch: they are refused.

    :raises HostError: an address of a policy is of a family that its tunnel does not carry.
    """
    policies = config.policies
    gateway = config.host.gateway
    tunnels = _tunnels(config, facts)
    for policy in policies:
        _check_families(policy, facts.interfaces.get(policy.interface))
    return Wanted(
        sets=tuple(
            AddressSets(policy, facts.seeds.get(policy.name, ()), facts.learned.get(policy.name, ()))
            for policy in policies
        ),
        entries=_entries(config, facts),
        connmarks=connmarks(config),
        kill_switch=_kill_switch(config, facts),
        jumps=_jumps(gateway),
        guards=_guards(config, facts),
        reserved=tuple(_reserved(config, facts)),
        clamps=tuple(clamp for tunnel in tunnels for clamp in _clamps(tunnel, facts, gateway=gateway)),
        bounds=_bounds(config, facts),
        nats=tuple(nat for policy in policies for nat in _nats(policy, facts)),
        rules=tuple(
            rule
            for index, policy in enumerate(policies)
            for rule in _rules(policy, config.host.preference + 2 * index, facts)
        ),
        routes=tuple(dict.fromkeys(route for policy in policies for route in _routes(policy, facts))),
        sysctls=_sysctls(tunnels, gateway, facts),
        table_names=tuple(TableName(policy.table, policy.name) for policy in policies),
    )


def _tunnels(config: Config, facts: Facts) -> list[Interface]:
    """The interfaces of the policies that are there, each once."""
    names = dict.fromkeys(policy.interface for policy in config.policies)
    return [facts.interfaces[name] for name in names if name in facts.interfaces]


def _check_families(policy: PolicyConfig, tunnel: Interface | None) -> None:
    """What the configuration alone does not show: whether the tunnel carries the family of an address."""
    if tunnel is None or not tunnel.addresses:
        return
    where = f"policy.{policy.name}"
    if policy.snat and not tunnel.carries(policy.snat.version):
        raise HostError(
            f"{where}.nat: {policy.nat} is IPv{policy.snat.version} and {tunnel.name} has no such address",
            "give one that it has, or masquerade",
        )
    for network in policy.routes:
        if not tunnel.carries(network.version):
            raise HostError(
                f"{where}.routes: {network} is IPv{network.version} and {tunnel.name} has no such address",
                "give the interface one, or remove the route",
            )
    if not any(tunnel.carries(upstream.address.version) for upstream in policy.upstream):
        first = policy.upstream[0].address
        raise HostError(
            f"{where}.upstream: {first} is IPv{first.version} and {tunnel.name} has no such address",
            "give a resolver that the tunnel reaches",
        )


def _jumps(gateway: bool) -> tuple[Jump, ...]:
    # The mark must be there before the packet is routed: in PREROUTING for what is forwarded; what the host sends
    # itself is routed a second time after OUTPUT when its mark has changed.
    own = Jump("OUTPUT", "what this host sends")
    return (own, Jump("PREROUTING", "what it forwards")) if gateway else (own,)


def _entries(config: Config, facts: Facts) -> tuple[Entry, ...]:
    """The chain GFWLIST, first to last."""
    # The host's own service may be called from an address that is in a set: its answers must leave by where the
    # question came in, or the caller gets them from an address that it does not know.
    entries = [Entry("an answer leaves by where the question came in", answers=True)]
    tunnels = _tunnels(config, facts)
    if config.host.gateway:
        for name in dict.fromkeys(policy.interface for policy in config.policies):
            entries.append(Entry(f"what comes out of {name} is not sent into a tunnel again", arrives_on=name))
    # If the tunnel's own packets to the peer were marked, the tunnel would be sent into itself.
    entries += _peers(tunnels)
    entries += _running(config)
    entries += _never(config)
    for policy in config.policies:
        # Also where the tunnel carries no IPv6: a marked packet is then refused, an unmarked one would leak.
        for family in (4, 6):
            entries.append(Entry(f"policy {policy.name}", family=family, to_set_of=policy, mark=policy.mark))
        why = f"the rest of the connection is for policy {policy.name} too"
        entries.append(Entry(why, marked=policy.mark, keep=_bits(config, policy), policy=policy.name))
        if policy is not config.policies[-1]:
            # Sites of two policies may share an address; without this the last policy would have it.
            entries.append(Entry(f"policy {policy.name} has it already", marked=policy.mark, policy=policy.name))
    return tuple(entries)


def _peers(tunnels: list[Interface]) -> Iterator[Entry]:
    for tunnel in tunnels:
        for endpoint in tunnel.endpoints:
            yield Entry(f"the peer of {tunnel.name} is reached without it", family=_family(endpoint), to=endpoint)


def _family(item: Address | Network) -> Family:
    return 4 if item.version == 4 else 6


def closed(config: Config, facts: Facts) -> Wanted:
    """What ``down --closed`` leaves: what goes to an address in a set is dropped, and no packet is marked or routed."""
    whole = wanted(config, facts)
    return Wanted(sets=whole.sets, kill_switch=whole.kill_switch, bounds=whole.bounds)


def _kill_switch(config: Config, facts: Facts) -> tuple[Entry, ...]:
    """The chain of what leaves: it keeps a packet of a policy off every other way, without ip rules, routes or marks.

    A more specific route of the main table wins over the tunnel on purpose: to local addresses, and by interfaces that
    do not lead to the Internet.
    """
    policies = [policy for policy in config.policies if _is_guarded(policy, facts)]
    if not policies:
        return ()
    whole = Masked(0, ALL_BITS)
    entries = [
        *_refused(config, facts),
        Entry("a connection that is of no policy", running="confirmed", marked=0, connmark=whole),
        Entry("an answer leaves by where the question came in", answers=True),
        Entry("this host itself", leaves_by="lo"),
        *(Entry(f"{name} does not lead to the Internet", leaves_by=name) for name in facts.inside),
        # They bear the mark where wg's fwmark is the same one, and where a tunnel of another kind leaves it on them.
        *_peers(_tunnels(config, facts)),
    ]
    for network in NOT_SITES:
        entries.append(Entry("a local address is no blocked site", family=_family(network), within=network))
    for policy in config.policies:
        for network in policy.routes:
            why = f"a network at the other end of {policy.interface}"
            entries.append(Entry(why, family=_family(network), within=network, leaves_by=policy.interface))
    for policy in policies:
        why = f"policy {policy.name} leaves by {policy.interface} or not at all"
        entries.append(Entry(why, marked=policy.mark, leaves_not_by=policy.interface, drop=True))
        for connmark in _connmarks_of(config, policy):
            entries.append(Entry(why, connmark=connmark, leaves_not_by=policy.interface, drop=True))
    return (*entries, *_without_mark(config, policies))


def _refused(config: Config, facts: Facts) -> Iterator[Entry]:
    """With its questions dropped here, dnsmasq answers listed names with an error: their addresses would not all be in
    the set."""
    for policy in config.policies:
        for address, port in policy.upstream if policy.name in facts.full else ():
            for protocol in TRANSPORTS:
                why = f"the set of policy {policy.name} is full: its names are refused"
                yield Entry(why, family=_family(address), to=address, to_port=(protocol, port), drop=True)


def _bounds(config: Config, facts: Facts) -> tuple[Questions | Answers, ...]:
    questions = [
        Questions(family, protocol, QUESTIONS_RATE, QUESTIONS_BURST)
        for family in facts.families
        for protocol in TRANSPORTS
        if config.host.gateway
    ]
    upstreams = dict.fromkeys(upstream for policy in config.policies for upstream in policy.upstream)
    answers = [
        Answers(upstream, protocol, ANSWERS_RATE, ANSWERS_BURST) for upstream in upstreams for protocol in TRANSPORTS
    ]
    return (*questions, *answers)


def _without_mark(config: Config, policies: list[PolicyConfig]) -> Iterator[Entry]:
    """The end of the chain of what leaves: a packet that the chain GFWLIST would have marked, and has not.

    That chain, or a jump to it, is gone. What it passes without a mark passes here too.
    """
    for policy in config.policies:
        yield Entry(f"it leaves by the tunnel of policy {policy.name}", marked=policy.mark)
    yield from _directly()
    gateway = config.host.gateway
    for name in dict.fromkeys(policy.interface for policy in config.policies if gateway):
        yield Entry(f"what comes out of {name} is not sent into a tunnel again", arrives_on=name)
    for policy in policies:
        for network in seed_networks(policy, ()):
            yield Entry(
                f"the configuration of policy {policy.name} names it",
                family=_family(network),
                within=network,
                from_this_host=not gateway,
                leaves_not_by=policy.interface,
                drop=True,
            )
    yield from _questions()
    for policy in policies:
        for family in (4, 6):
            yield Entry(
                f"what policy {policy.name} lacks the mark on is not for another way",
                family=family,
                from_this_host=not gateway,
                to_set_of=policy,
                leaves_not_by=policy.interface,
                drop=True,
            )


def _is_guarded(policy: PolicyConfig, facts: Facts) -> bool:
    """False where the tunnel's own packets have the mark and their destination is unknown: they would be dropped."""
    tunnel = facts.interfaces.get(policy.interface)
    return tunnel is None or not tunnel.keeps_mark or bool(tunnel.endpoints)


def _connmarks_of(config: Config, policy: PolicyConfig) -> Iterator[Masked]:
    """The connection marks of a policy."""
    bits = _bits(config, policy)
    yield bits
    if not policy.mark & bits.mask:
        # Others save the packet's mark as a whole, over our bits of the connection mark: wg-quick does for UDP.
        yield Masked(policy.mark, ALL_BITS)


def _running(config: Config) -> Iterator[Entry]:
    """A connection keeps the way of its first packet: on another one it would have another source address, and hang.

    The sets have a say in new connections only.
    """
    for policy in config.policies:
        why = f"a connection of policy {policy.name}"
        for connmark in _connmarks_of(config, policy):
            saved = " whose mark was saved whole" if connmark.mask == ALL_BITS else ""
            yield Entry(f"{why}{saved}", connmark=connmark, mark=policy.mark, policy=policy.name)
        yield Entry(f"policy {policy.name} keeps it", marked=policy.mark, policy=policy.name)
    yield from _directly()


def _directly() -> Iterator[Entry]:
    # Not "state NEW": that is also what is sent again while no answer has come, with the source address of before.
    yield Entry("a connection that began directly stays direct", running="confirmed")
    yield Entry("and so does one that belongs to it", running="related")


def _never(config: Config) -> Iterator[Entry]:
    """What is not sent into a tunnel, though its address is in a set: the owner of a listed name chose the address.

    What the configuration names itself wins: the clean resolver may have a private address, and so may the networks at
    the other end (``routes``).
    """
    for policy in config.policies:
        networks = filter(is_no_site, policy.routes)
        for network, sets in (*((seed, None) for seed in seed_networks(policy, ())), *((n, policy) for n in networks)):
            family: Family = 4 if network.version == 4 else 6
            why = f"the configuration of policy {policy.name} names it"
            yield Entry(why, family, within=network, to_set_of=sets, mark=policy.mark, policy=policy.name)
        why = f"the rest of the connection is for policy {policy.name} too"
        yield Entry(why, marked=policy.mark, keep=_bits(config, policy), policy=policy.name)
        yield Entry(f"policy {policy.name} has it already", marked=policy.mark, policy=policy.name)
    yield Entry("this host is reached without a tunnel", to_this_host=True)
    for net in NOT_SITES:
        yield Entry("not a site of the Internet", family=4 if net.version == 4 else 6, within=net)
    yield from _questions()


def _questions() -> Iterator[Entry]:
    # The owner of a listed name could send dnsmasq's questions to the ISP's resolver abroad, where it is silent.
    for protocol in TRANSPORTS:
        why = "a resolver of what is not listed is asked directly"
        yield Entry(why, from_this_host=True, to_port=(protocol, 53))


def _guards(config: Config, facts: Facts) -> tuple[Guard, ...]:
    """The resolver is for the LAN. A host has its addresses on every interface, so the WAN could ask at the LAN's.

    At an address of the WAN itself another program of the user may answer.
    """
    if not (config.host.gateway or config.dns.listen):
        return ()
    names = dict.fromkeys((*(policy.interface for policy in config.policies), *facts.wans))
    why = "the resolver of the LAN does not answer what comes from {}"
    return tuple(Guard(name, protocol, why.format(name)) for name in names for protocol in TRANSPORTS)


def _reserved(config: Config, facts: Facts) -> Iterator[Reserved]:
    if config.dns.layout != "split":
        return
    for policy in config.policies:
        port = config.second_port(policy)
        who = f"the second dnsmasq of policy {policy.name}"
        for protocol in TRANSPORTS:
            yield Reserved(port, protocol, "INPUT", f"{who} is for this host")
            if facts.resolver_users:
                yield Reserved(port, protocol, "OUTPUT", f"{who} is for the first one", facts.resolver_users)


def connmarks(config: Config) -> tuple[Connmark, ...]:
    """One for each policy."""
    return tuple(
        Connmark(policy.name, _bits(config, policy), policy.mark, policy.table, policy.interface)
        for policy in config.policies
    )


def _bits(config: Config, policy: PolicyConfig) -> Masked:
    return Masked(config.connmark(policy), config.host.connmark_mask)


def _clamps(tunnel: Interface, facts: Facts, *, gateway: bool) -> Iterator[Clamp]:
    for family in facts.families:
        # After routing, where the way of the host's own packets is known: a mark given in OUTPUT has changed it.
        yield Clamp(family, tunnel.name, "POSTROUTING", None, f"segments fit into {tunnel.name}")
        # "What the path leaves" would be wrong this way round: the kernel looks up the route back to the site without
        # a mark, and finds the MTU of the WAN.
        mss = max(tunnel.mtu - _HEADERS[family], 1)
        why = f"and so do those that answer what comes from {tunnel.name}"
        yield Clamp(family, tunnel.name, "INPUT", mss, why)
        if gateway:
            yield Clamp(family, tunnel.name, "FORWARD", mss, why)


def _nats(policy: PolicyConfig, facts: Facts) -> list[Nat]:
    """A packet got its source address before it was marked: the WAN's, or the LAN client's. The peer knows neither."""
    if policy.nat == "none":
        return []
    why = f"the peer of {policy.interface} knows only its address"
    # An address to translate to is of one family; the other one takes the interface's own.
    return [
        Nat(
            family,
            policy.mark,
            policy.interface,
            policy.snat if policy.snat and policy.snat.version == family else None,
            why,
        )
        for family in facts.families
    ]


def _rules(policy: PolicyConfig, preference: int, facts: Facts) -> list[Rule]:
    rules = []
    for family in facts.families:
        rules.append(
            Rule(
                family,
                preference,
                MAIN,
                suppress_prefixlength=0,
                why="every route but the default one is for marked packets too: the LAN, other VPNs; and what comes "
                "from there passes the reverse-path filter",
            )
        )
        rules.append(
            Rule(
                family, preference + 1, policy.table, fwmark=policy.mark, why=f"marked packets of policy {policy.name}"
            )
        )
    return rules


def _routes(policy: PolicyConfig, facts: Facts) -> list[Route]:
    tunnel = facts.interfaces.get(policy.interface)
    routes = []
    for family in facts.families:
        routes.append(
            Route(
                family,
                policy.table,
                None,
                None,
                KILL_SWITCH_METRIC,
                "without the tunnel marked packets are refused, they do not leave by the WAN",
            )
        )
        # The kernel takes no route over an interface that is down, and drops those it had.
        if tunnel and tunnel.up and tunnel.carries(family):
            metric = 0 if family == 4 else _IPV6_METRIC
            routes.append(Route(family, policy.table, None, tunnel.name, metric, f"marked packets take {tunnel.name}"))
    for network in policy.routes:
        if tunnel and tunnel.up:
            net_family: Family = 4 if network.version == 4 else 6
            metric = 0 if net_family == 4 else _IPV6_METRIC
            routes.append(
                Route(net_family, MAIN, network, tunnel.name, metric, f"a network at the other end of {tunnel.name}")
            )
    return routes


def _sysctls(tunnels: list[Interface], gateway: bool, facts: Facts) -> tuple[Sysctl, ...]:
    sysctls = [
        Sysctl(
            f"net/ipv4/conf/{tunnel.name}/rp_filter",
            "2",
            "replies come by the tunnel and the unmarked route back is the WAN: a strict filter drops them",
        )
        for tunnel in tunnels
    ]
    if gateway:
        sysctls.append(Sysctl("net/ipv4/ip_forward", "1", "a gateway forwards"))
        if 6 in facts.families and any(tunnel.carries(6) for tunnel in tunnels):
            # With forwarding on, the kernel forgets default routes from router advertisements unless accept_ra is 2
            # (ip-sysctl.rst): that must come first.
            sysctls += [
                Sysctl(f"net/ipv6/conf/{name}/accept_ra", "2", "its default route stays when IPv6 is forwarded")
                for name in facts.advertised
            ]
            sysctls.append(Sysctl("net/ipv6/conf/all/forwarding", "1", "a gateway forwards"))
    return tuple(sysctls)
