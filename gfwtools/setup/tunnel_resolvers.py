"""The resolvers that a tunnel brings along, as by ``DNS =`` of wg-quick(8). They are not the ISP's.

resolvconf, openresolv, systemd-resolved and NetworkManager put them into one file with the ISP's, or in its place.
dnsmasq would ask them for what is not blocked, and that would go through the tunnel.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address, Config, Paths
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.system.questions import nameservers_in

__all__ = ["RECORDS", "resolvers_of_tunnels"]

#: What resolvconf and openresolv keep for each interface; openresolv since 3.13 below ``keys``.
RECORDS = ("/run/resolvconf/interface/*", "/run/resolvconf/interfaces/*", "/run/resolvconf/keys/*")


def resolvers_of_tunnels(
    config: Config, links: Iterable[Mapping[str, Any]], runner: Runner
) -> dict[str, frozenset[Address]]:
    """The resolvers by interface; an interface that brings none has no entry.

    :param links: the interfaces of this host, as ``ip -j address`` prints them.
    """
    numbers = {str(link.get("ifname")): str(link.get("ifindex", "")) for link in links}
    found = {}
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        words = _words(config.paths, name, numbers.get(name, ""))
        words += _of_network_manager(config.paths, name, runner)
        addresses = frozenset(address for word in words if (address := _address(word)))
        if addresses:
            found[name] = addresses
    return found


def _words(paths: Paths, name: str, number: str) -> list[str]:
    words = _listed(_text(paths.at(f"/etc/wireguard/{name}.conf")), "dns")
    for record in _records(paths, name):
        words += nameservers_in(_text(record))
    if number:
        # systemd-networkd, and what resolvectl(1) has set.
        words += _listed(_text(paths.at(f"/run/systemd/netif/links/{number}")), "dns")
        words += _listed(_text(paths.at(f"/run/systemd/resolve/netif/{number}")), "servers")
    return words


def _records(paths: Paths, name: str) -> Iterator[Path]:
    """The records of an interface: wg-quick names it ``tun.wg0`` where resolvconf has an order of interfaces."""
    for pattern in RECORDS:
        for place in sorted(paths.root.glob(pattern.lstrip("/"))):
            if place.is_file() and (place.name == name or place.name.endswith(f".{name}")):
                yield place


def _listed(text: str, key: str) -> list[str]:
    lines = re.findall(rf"^[ \t]*{key}[ \t]*=[ \t]*([^#\n]*)", text, re.IGNORECASE | re.MULTILINE)
    return [word for line in lines for word in re.split(r"[,\s]+", line.strip())]


def _of_network_manager(paths: Paths, name: str, runner: Runner) -> list[str]:
    if not paths.at("/run/NetworkManager").is_dir() or not runner.has("nmcli"):
        return []
    return (runner.ask("nmcli", "-e", "no", "-g", "IP4.DNS,IP6.DNS", "device", "show", name) or "").split()


def _address(word: str) -> Address | None:
    """``ADDRESS``, and as systemd writes it ``ADDRESS:PORT%INTERFACE#NAME``; a word of ``DNS =`` may be a domain."""
    for text in (word, re.split(r"[%#]", word)[0], word.split("#")[0].rpartition(":")[0]):
        with suppress(ValueError):
            return ip_address(text.strip("[]"))
    return None


def _text(place: Path) -> str:
    return (atomic.read(place) or b"").decode("utf-8", "replace")
