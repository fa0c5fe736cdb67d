"""What the host has that the wanted state depends on. It is read, never changed."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Literal

from gfwtools.config.model import Address, Config, Network, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.resolver_users import resolver_users
from gfwtools.render.ipset import seed_networks
from gfwtools.render.not_sites import is_no_site
from gfwtools.storage import atomic
from gfwtools.system import networks
from gfwtools.system.commands import Runner

__all__ = ["Facts", "Family", "Interface", "families_of", "parse_seed", "read_facts", "seeds_of"]

Family = Literal[4, 6]

#: Tools that are needed with every backend, and the package that has them.
_TOOLS = {"ip": "iproute2", "sysctl": "procps"}
#: Tunnels inside of the kernel that send the packet itself, with a new header and its old mark (ip-link(8), TYPE).
_KEEP_MARK = frozenset(("ipip", "sit", "ip6tnl", "gre", "ip6gre", "gretap", "ip6gretap", "erspan", "vxlan", "geneve"))
_KEEP_MARK |= frozenset(("vti", "vti6", "xfrm", "ppp", "l2tp"))
#: An interface with routes to this many addresses, a sixteenth of the Internet, leads there: two routes of half of it
#: are a default route by another name, and so are the thirty that leave out private networks. IPv6's is 2000::/3.
_MUCH: dict[int, int] = {4: 1 << 28, 6: 1 << 121}


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: ``up`` as its administrator set it, ``mtu`` in bytes."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """Those of global scope: a link-local address carries no traffic of the Internet."""
    endpoints: tuple[Address, ...] = ()
    """The outer addresses of its peers: WireGuard's, or the remote of a tunnel that has one; none where unknown."""
    keeps_mark: bool = False
    """Its own packets, outside, have the mark of those that they carry."""

    def carries(self, family: int) -> bool:
        """Has it an address of this family? One without any address is taken for a plain IPv4 link."""
        if not self.addresses:
            return family == 4
        return any(address.version == family for address in self.addresses)


@dataclass(frozen=True, slots=True)
class Facts:
    """What :func:`~gfwtools.plumbing.wanted.wanted` needs to know of the host."""

    families: tuple[Family, ...] = (4, 6)
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    """Name -> interface, for those of the policies that are there."""
    seeds: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    """Policy -> what is in its sets before any answer."""
    learned: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    """Policy -> addresses that dnsmasq had learned when the plumbing was taken down."""
    advertised: tuple[str, ...] = ()
    """Interfaces with an IPv6 default route from a router advertisement."""
    inside: tuple[str, ...] = ()
    """Interfaces that have routes to public networks of their own, and do not lead to the Internet."""
    full: frozenset[str] = frozenset()
    """Policies with a set that takes no more."""
    wans: tuple[str, ...] = ()
    """Interfaces to the Internet, of a host that answers names for others."""
    resolver_users: tuple[int, ...] = ()
    """The users that may ask a second dnsmasq: root, and that of the main one. Empty where it is not known."""


def read_facts(config: Config, runner: Runner) -> Facts:
    """Look at the host. What is in the sets (``seeds``, ``learned``) depends on its backend, and is not looked for.

    :raises HostError: a tool is missing.
    """
    for tool, package in _TOOLS.items():
        if not runner.has(tool):
            raise HostError(f"{tool}: no such program", f"install {package}")
    families = families_of(runner)
    interfaces = {}
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        interface = _interface(name, runner)
        if interface:
            interfaces[name] = interface
    return Facts(
        families=families,
        interfaces=interfaces,
        advertised=_advertised(runner) if config.host.gateway and 6 in families else (),
        inside=_inside(config, families, runner),
        wans=tuple(sorted(networks.wans(runner))) if config.host.gateway or config.dns.listen else (),
        resolver_users=resolver_users(config) if config.dns.layout == "split" else (),
    )


def families_of(runner: Runner) -> tuple[Family, ...]:
    """Without the module, or with ipv6.disable=1, there is no IPv6 and nothing to leak by."""
    return (4, 6) if runner.ask("ip", "-6", "-j", "rule") is not None else (4,)


# ---------------------------------------------------------------- interfaces


def _interface(name: str, runner: Runner) -> Interface | None:
    """The interface, or None where there is none of that name."""
    text = runner.ask("ip", "-j", "address", "show", "dev", name)
    if text is None:
        return None
    links: list[dict[str, Any]] = [link for link in json.loads(text) if link.get("ifname") == name]
    if not links:
        return None
    details: list[dict[str, Any]] = json.loads(runner.ask("ip", "-d", "-j", "link", "show", "dev", name) or "[]")
    link = details[0] if details else {}
    return Interface(
        name=name,
        up="UP" in links[0]["flags"],
        mtu=int(links[0]["mtu"]),
        addresses=tuple(
            ip_interface(f"{address['local']}/{address['prefixlen']}")
            for address in links[0].get("addr_info", ())
            if address.get("scope") == "global"
        ),
        endpoints=_endpoints(name, link, runner),
        keeps_mark=_kind(link) in _KEEP_MARK,
    )


def _kind(link: Mapping[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def _endpoints(name: str, link: Mapping[str, Any], runner: Runner) -> tuple[Address, ...]:
    """Where the tunnel's own packets go; none where only the program knows that holds the tunnel.

    :raises HostError: it is WireGuard's and cannot be asked: the rule that keeps the tunnel out of itself would go.
    """
    # WireGuard that runs as a program has a socket (wg(8), "configuration protocol").
    is_wireguard = _kind(link) == "wireguard" or Path(f"/run/wireguard/{name}.sock").exists()
    if is_wireguard and not runner.has("wg"):
        raise HostError("wg: no such program", "install wireguard-tools")
    if _kind(link) in _KEEP_MARK:
        data = link["linkinfo"].get("info_data", {})
        remotes = (ip_address(data[key]) for key in ("remote", "remote6") if data.get(key, "any") != "any")
        return tuple(remote for remote in remotes if not remote.is_unspecified)
    return parse_endpoints(runner.ask("wg", "show", name, "endpoints") or "")


def parse_endpoints(text: str) -> tuple[Address, ...]:
    """The output of ``wg show IFACE endpoints`` (wg(8)), where host names are resolved already: the addresses.

    A line is a key, a tab, and ``203.0.113.1:51820``, ``[2001:db8::1]:51820`` or ``(none)``.
    """
    hosts = re.findall(r"\t\[?([0-9a-fA-F.:]+?)(?:%[^\]]*)?\]?:\d+$", text, re.MULTILINE)
    return tuple(sorted({ip_address(host) for host in hosts}, key=lambda address: (address.version, int(address))))


def _advertised(runner: Runner) -> tuple[str, ...]:
    routes = json.loads(runner.ask("ip", "-6", "-j", "route", "show", "default", "proto", "ra") or "[]")
    # A route over several routers has its interfaces in "nexthops".
    hops = [hop for route in routes for hop in (route, *route.get("nexthops", ()))]
    return tuple(dict.fromkeys(hop["dev"] for hop in hops if "dev" in hop))


def _inside(config: Config, families: Iterable[Family], runner: Runner) -> tuple[str, ...]:
    """The interfaces that lead to public networks, such as a LAN with addresses of the ISP, and not to the Internet."""
    wans = networks.wans(runner)
    tunnels = {policy.interface for policy in config.policies}
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "link", "show", "up") or "[]")
    found = []
    # On a host that is not on the Internet yet, the interface that will lead there looks like any other.
    for link in links if wans else ():
        if "ifname" not in link or "master" in link or "LOOPBACK" in link["flags"]:
            continue
        name = link["ifname"]
        if name in wans or name in tunnels:
            continue
        # Asked for one device: a table may hold a million routes.
        routes = [
            ip_network(route["dst"]) if route["dst"] != "default" else None
            for family in families
            for route in json.loads(
                runner.ask("ip", f"-{family}", "-j", "route", "show", "table", "all", "dev", name) or "[]"
            )
            if "type" not in route
        ]
        public = [route for route in routes if route and not is_no_site(route)]
        much = any(sum(r.num_addresses for r in public if r.version == family) >= _MUCH[family] for family in families)
        if public and not much and None not in routes:
            found.append(name)
    return tuple(sorted(found))


# ---------------------------------------------------------------- seeds


def seeds_of(files: Iterable[Path], policy: PolicyConfig) -> tuple[Network, ...]:
    """What ``update`` wrote to the first of the files that is there, and what the configuration says itself."""
    for path in files:
        data = atomic.read(path)
        if data is not None:
            return tuple(seed_networks(policy, parse_seed(data.decode("utf-8", "replace"), path)))
    return tuple(seed_networks(policy, ()))


_SEED_LINE = re.compile(r"add (?:element inet \S+ \S+ \{(?P<many>[^}]*)\}|\S+ (?P<one>[^\s{]+)(?: -exist)?)")


def parse_seed(text: str, path: Path) -> list[Network]:
    """The networks in a seed file, be it for ``ipset restore`` or for ``nft -f``.

    :raises HostError: one of them is not a network; the message has its line.
    """
    networks = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _SEED_LINE.fullmatch(line)
        if not match:
            continue
        for word in (match["many"] or match["one"]).split(","):
            try:
                networks.append(ip_network(word.strip()))
            except ValueError:
                raise HostError(
                    f"{path}: line {number}: {word.strip()!r} is not a network", "run: gfwtools update --force"
                ) from None
    return networks
