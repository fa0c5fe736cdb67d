"""The plumbing as data: what must be on the host for a configuration, each piece with its reason.

The way of a packet to a blocked site::

    dnsmasq puts the address into a set          AddressSets
    OUTPUT (PREROUTING for the LAN) -> GFWLIST   Jump
    an address in the set is marked              Entry
    and all packets of its connection            Entry
    the mark selects the policy's table          Rule
    whose default route is the tunnel            Route
    which knows only the tunnel's own address    Nat
    and less room in a packet                    Clamp

Nothing is read here and nothing is run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gfwtools.config.model import Address, Config, Network, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Facts, Family, Interface
from gfwtools.render.ipset import seed_networks
from gfwtools.render.not_sites import NOT_SITES, is_no_site

__all__ = [
    "ALL_BITS",
    "CHAIN",
    "KILL_SWITCH_METRIC",
    "MAIN",
    "AddressSets",
    "Clamp",
    "Connmark",
    "Entry",
    "Guard",
    "Jump",
    "Masked",
    "Nat",
    "Reserved",
    "Route",
    "Rule",
    "Sysctl",
    "TableName",
    "Wanted",
    "connmarks",
    "wanted",
]

#: The chain that marks, in both backends.
CHAIN = "GFWLIST"
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
_TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
#: The mask of a whole mark.
ALL_BITS = 0xFFFFFFFF


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
    """One rule of the chain GFWLIST: ``mark`` the packet, ``keep`` that in the connection mark, or leave the chain.

    A None matches any packet.
    """

    why: str
    family: Family | None = None
    answers: bool = False
    """Only packets of a connection that the other side has begun."""
    running: Literal["confirmed", "related"] | None = None
    """Only packets of a connection that is known already, or that belongs to one (FTP's data)."""
    arrives_on: str | None = None
    to: Address | None = None
    to_set_of: PolicyConfig | None = None
    within: Network | None = None
    """Only packets to an address of this network."""
    from_this_host: bool = False
    """Only packets that this host sends itself."""
    to_this_host: bool = False
    """Only packets to an address that this host has."""
    question: Transport | None = None
    """Only packets to port 53, by this protocol."""
    connmark: Masked | None = None
    """Only packets of a connection that has this in its mark."""
    marked: int | None = None
    mark: int | None = None
    keep: Masked | None = None
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
    jumps: tuple[Jump, ...] = ()
    guards: tuple[Guard, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    clamps: tuple[Clamp, ...] = ()
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
        jumps=_jumps(gateway),
        guards=_guards(config, facts),
        reserved=tuple(_reserved(config, facts)),
        clamps=tuple(clamp for tunnel in tunnels for clamp in _clamps(tunnel, facts, gateway=gateway)),
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
    for tunnel in tunnels:
        for endpoint in tunnel.endpoints:
            family: Family = 4 if endpoint.version == 4 else 6
            entries.append(Entry(f"the peer of {tunnel.name} is reached without it", family=family, to=endpoint))
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


def _running(config: Config) -> Iterator[Entry]:
    """A connection keeps the way of its first packet: on another one it would have another source address, and hang.

    The sets have a say in new connections only.
    """
    for policy in config.policies:
        bits = _bits(config, policy)
        why = f"a connection of policy {policy.name}"
        yield Entry(why, connmark=bits, mark=policy.mark, policy=policy.name)
        if not policy.mark & bits.mask:
            # Others save the packet's mark as a whole, over our bits of the connection mark: wg-quick does for UDP.
            saved = Masked(policy.mark, ALL_BITS)
            yield Entry(f"{why} whose mark was saved whole", connmark=saved, mark=policy.mark, policy=policy.name)
        yield Entry(f"policy {policy.name} keeps it", marked=policy.mark, policy=policy.name)
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
    for protocol in _TRANSPORTS:
        # The owner of a listed name could send dnsmasq's questions to the ISP's resolver abroad, where it is silent.
        why = "a resolver of what is not listed is asked directly"
        yield Entry(why, from_this_host=True, question=protocol)


def _guards(config: Config, facts: Facts) -> tuple[Guard, ...]:
    """The resolver is for the LAN. A host has its addresses on every interface, so the WAN could ask at the LAN's.

    At an address of the WAN itself another program of the user may answer.
    """
    if not (config.host.gateway or config.dns.listen):
        return ()
    names = dict.fromkeys((*(policy.interface for policy in config.policies), *facts.wans))
    why = "the resolver of the LAN does not answer what comes from {}"
    return tuple(Guard(name, protocol, why.format(name)) for name in names for protocol in _TRANSPORTS)


def _reserved(config: Config, facts: Facts) -> Iterator[Reserved]:
    if config.dns.layout != "split":
        return
    for policy in config.policies:
        port = config.second_port(policy)
        who = f"the second dnsmasq of policy {policy.name}"
        for protocol in _TRANSPORTS:
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
