"""Facts of this host, a function each: its resolver, the route of a packet, the state of the tunnel.

All other code takes these facts from here, so that two answers cannot differ.
"""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

from gfwtools.config.model import Address, Paths
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner

__all__ = [
    "RESOLV_CONF",
    "Holder",
    "Resolver",
    "Way",
    "handshake_age",
    "holders",
    "nameservers_in",
    "own_mark",
    "received",
    "resolver",
    "reverse_path_filter",
    "route",
    "rules",
    "transferred",
]

RESOLV_CONF = "/etc/resolv.conf"
#: systemd-resolved listens here. It is an address of this host, and never our dnsmasq.
_RESOLVED = ("127.0.0.53", "127.0.0.54")


# ---------------------------------------------------------------- who resolves names


@dataclass(frozen=True, slots=True)
class Resolver:
    """The resolver that this host asks first."""

    address: str
    is_ours: bool
    """Whether it is the host's dnsmasq."""


def resolver(paths: Paths, runner: Runner, dnsmasq: str, listens: Callable[[str], bool]) -> Resolver:
    """The resolver of this host: the first nameserver of /etc/resolv.conf, as the C library reads it.

    Another address of this host than ``dnsmasq`` also counts as our dnsmasq if our dnsmasq listens there.

    :param dnsmasq: the address at which dnsmasq answers by its configuration.
    :param listens: whether a resolver answers at an address, at port 53.
    :raises StoreError: the file is there and cannot be read.
    """
    text = (atomic.read(paths.follow(paths.at(RESOLV_CONF))) or b"").decode("utf-8", "replace")
    usable = (server for server in map(_as_address, nameservers_in(text)) if server)
    first = next(usable, "127.0.0.1")  # without any the C library asks the host itself (resolv.conf(5))
    if first == dnsmasq:
        return Resolver(first, True)
    if first in _RESOLVED or not _is_own(first, runner):
        return Resolver(first, False)
    other = any(holder.address == first and holder.program not in ("dnsmasq", "") for holder in holders(runner))
    return Resolver(first, not other and listens(first))


def nameservers_in(text: str) -> list[str]:
    """The nameservers of a resolv.conf(5): the keyword begins its line, and a comment may follow the address."""
    return re.findall(r"^nameserver[ \t]+([^\s;#]+)", text, re.MULTILINE)


def _as_address(text: str) -> str:
    """An address in the usual spelling; empty for a text that the C library ignores."""
    with suppress(ValueError):
        return str(ip_address(text))
    with suppress(OSError):
        return str(IPv4Address(socket.inet_aton(text)))  # 127.1 is one (inet_aton(3))
    return ""


def _is_own(text: str, runner: Runner) -> bool:
    address = ip_address(text.partition("%")[0])
    return address.is_loopback or route(runner, address).device == "lo"


@dataclass(frozen=True, slots=True)
class Holder:
    """A program that listens at a port: the address without its interface, and the name (at most 15 characters)."""

    address: str
    program: str
    pid: int


def holders(runner: Runner, port: int = 53) -> list[Holder]:
    """The programs that listen at a port in this network namespace (ss(8)). Only root sees their names and numbers."""
    found = []
    for line in (runner.ask("ss", "-H", "-lntup", f"sport = {port}") or "").splitlines():
        words = line.split(None, 6)
        if len(words) < 5 or not words[4].endswith(f":{port}"):
            continue
        address = words[4].removesuffix(f":{port}").partition("%")[0].strip("[]")
        users = re.findall(r'"([^"]*)",pid=(\d+)', words[6] if len(words) > 6 else "") or [("", "0")]
        found += [Holder(address, program, int(pid)) for program, pid in users]
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- ways


@dataclass(frozen=True, slots=True)
class Way:
    """A route from ``ip route get``. Without a device there is none, and ``error`` gives the reason."""

    device: str | None
    source: str | None = None
    gateway: str | None = None
    table: str | None = None
    error: str = ""

    def __str__(self) -> str:
        if self.device is None:
            return self.error or "no way"
        words = [f"dev {self.device}"]
        words += [f"via {self.gateway}"] if self.gateway else []
        words += [f"src {self.source}"] if self.source else []
        return " ".join(words)


def route(runner: Runner, address: Address, mark: int = 0, *, client: Address | None = None, lan: str = "") -> Way:
    """The route of a packet from this host to ``address``; with ``client``, of one that comes from it by ``lan``."""
    words = ["ip", "-N", "-j", "route", "get", str(address), *(["mark", f"{mark:#x}"] if mark else [])]
    words += ["from", str(client), "iif", lan] if client else []
    text = runner.ask(*words)
    try:
        found = json.loads(text or "[]")[0]
        if found.get("type", "unicast") in ("unreachable", "prohibit", "blackhole"):
            return Way(None, error="refused by an unreachable route")
        table = found.get("table")
        return Way(str(found["dev"]), found.get("prefsrc"), found.get("gateway"), None if table is None else str(table))
    except (ValueError, LookupError):
        return Way(None, error="refused: unreachable")


def rules(runner: Runner, family: int) -> list[dict[str, Any]]:
    found = json.loads(runner.ask("ip", f"-{family}", "-N", "-j", "rule") or "[]")
    return found if isinstance(found, list) else []


# ---------------------------------------------------------------- the tunnel


def own_mark(runner: Runner, interface: str) -> int:
    """The mark that WireGuard sets on what it sends (wg(8), fwmark); 0 for none."""
    text = (runner.ask("wg", "show", interface, "fwmark") or "off").strip()
    return 0 if text == "off" else int(text, 0)


def handshake_age(runner: Runner, interface: str) -> int | None:
    """Seconds since the newest handshake with a peer; None where there was no handshake."""
    text = runner.ask("wg", "show", interface, "latest-handshakes") or ""
    newest = max(map(int, re.findall(r"\t(\d+)$", text, re.MULTILINE)), default=0)
    return max(0, int(time.time()) - newest) if newest else None


def received(runner: Runner, interface: str) -> int:
    """Bytes that the tunnel's peers have sent us."""
    both = transferred(runner, interface)
    return both[0] if both else 0


def transferred(runner: Runner, interface: str) -> tuple[int, int] | None:
    """Bytes received from the tunnel's peers and sent to them (wg(8), transfer); None without a peer."""
    text = runner.ask("wg", "show", interface, "transfer") or ""
    peers = re.findall(r"\t(\d+)\t(\d+)$", text, re.MULTILINE)
    return (sum(int(came) for came, _ in peers), sum(int(went) for _, went in peers)) if peers else None


def reverse_path_filter(runner: Runner, interface: str) -> int:
    """The filter in force: the larger of the interface's and that of all (ip-sysctl.rst)."""
    values = [0]
    for name in (interface, "all"):
        with suppress(ValueError):
            values.append(int(runner.ask("sysctl", "-n", f"net/ipv4/conf/{name}/rp_filter") or 0))
    return max(values)
