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
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.system.networks import wans

__all__ = ["Facts", "Family", "Interface", "families_of", "parse_seed", "read_facts", "seeds_of"]

Family = Literal[4, 6]

#: Tools that are needed with every backend, and the package that has them.
_TOOLS = {"ip": "iproute2", "sysctl": "procps"}


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface: ``up`` as its administrator set it, ``mtu`` in bytes."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    """Those of global scope: a link-local address carries no traffic of the Internet."""
    endpoints: tuple[Address, ...] = ()
    """The outer addresses of its WireGuard peers; none for another kind of tunnel."""

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
        wans=tuple(sorted(wans(runner))) if config.host.gateway or config.dns.listen else (),
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
    return Interface(
        name=name,
        up="UP" in links[0]["flags"],
        mtu=int(links[0]["mtu"]),
        addresses=tuple(
            ip_interface(f"{address['local']}/{address['prefixlen']}")
            for address in links[0].get("addr_info", ())
            if address.get("scope") == "global"
        ),
        endpoints=_endpoints(name, runner),
    )


def _endpoints(name: str, runner: Runner) -> tuple[Address, ...]:
    """Where the tunnel's own packets go; none for a tunnel that is not WireGuard's.

    :raises HostError: it is WireGuard's and cannot be asked: the rule that keeps the tunnel out of itself would go.
    """
    if not runner.has("wg"):
        details = json.loads(runner.ask("ip", "-d", "-j", "link", "show", "dev", name) or "[]")
        kinds = [link.get("linkinfo", {}).get("info_kind") for link in details]
        # Those that run as a program have a socket (wg(8), "configuration protocol").
        if "wireguard" in kinds or Path(f"/run/wireguard/{name}.sock").exists():
            raise HostError("wg: no such program", "install wireguard-tools")
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
