"""Which interfaces lead to the LAN."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from gfwtools.config.model import Address, Config
from gfwtools.system.commands import Runner
from gfwtools.system.networks import is_virtual, wans

__all__ = ["Lan", "lan_of", "lans"]


@dataclass(frozen=True, slots=True)
class Lan:
    """An interface to the LAN, and this host's addresses there."""

    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]

    def address(self, family: int) -> IPv4Interface | IPv6Interface | None:
        """The address whose network the clients have: a private one if there is one."""
        own = [address for address in self.addresses if address.version == family]
        return next((address for address in own if address.is_private), own[0] if own else None)

    def client(self, family: int) -> Address | None:
        """An address of the network that is not this host's: high up, where few rules and leases are."""
        own = self.address(family)
        if own is None:
            return None
        size, first = own.network.num_addresses, own.network.network_address
        high = first + min(size - 2, 0xFFFE) if size > 2 else first
        return high - 1 if high == own.ip and size > 3 else high


def lans(config: Config, runner: Runner) -> list[Lan]:
    """The interfaces by which clients come: those of ``dns.listen``, else all that are neither tunnel nor WAN.

    A gateway with one leg has its clients where its WAN is.
    """
    tunnels = {policy.interface for policy in config.policies}
    found = [lan for lan in _all(runner) if lan.name not in tunnels]
    listening = {address for address in config.dns.listen if not address.is_loopback}
    if listening:
        return [lan for lan in found if listening & {address.ip for address in lan.addresses}]
    wan = wans(runner)
    inner = [lan for lan in found if lan.name not in wan and not is_virtual(lan.name)]
    private = [lan for lan in inner if any(address.is_private for address in lan.addresses)]
    return private or inner or [lan for lan in found if lan.name in wan and any(a.is_private for a in lan.addresses)]


def lan_of(name: str, runner: Runner) -> Lan | None:
    """The interface of that name, where it can lead to a LAN."""
    return next((lan for lan in _all(runner) if lan.name == name), None)


def _all(runner: Runner) -> Iterator[Lan]:
    """All interfaces that are up, with a link layer and an address."""
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "address", "show", "up") or "[]")
    for link in links:
        addresses = tuple(
            ip_interface(f"{entry['local']}/{entry['prefixlen']}")
            for entry in link.get("addr_info", ())
            if "local" in entry and entry.get("scope") == "global"
        )
        if addresses and link.get("link_type") == "ether":
            yield Lan(str(link["ifname"]), addresses)
