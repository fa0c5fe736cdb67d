"""Does dnsmasq answer what comes in by the WAN, or out of a tunnel?

The question comes in by that interface as from its wire (:func:`gfwtools.diagnose.lan_probe.entrance`), so that it
passes every firewall and dnsmasq's own lines. Its sender is the next router of the WAN, or an address at the other end
of the tunnel. What it asks for is the generation of our files: another resolver that answers there is none of ours.
"""

import json
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any

from gfwtools.config.model import Address, Config
from gfwtools.diagnose.lan import lans
from gfwtools.diagnose.lan_frames import checksum
from gfwtools.diagnose.lan_probe import entrance, neighbour, watch
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.wire import question
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Facts
from gfwtools.render.generation import Generation, generation_of
from gfwtools.system.commands import Runner
from gfwtools.system.networks import wans

__all__ = ["Heard", "Side", "ask_from_outside", "remedy_for"]

#: So many addresses of this host are asked at by each interface.
LIMIT = 8
#: Seconds for an answer to leave behind that to a later question of ours.
GRACE = 0.1
_TXT, _UDP = 16, 17
_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Side:
    """An interface behind which clients are not to be answered."""

    name: str
    mac: str
    """Its Ethernet address; empty for one without."""
    clients: tuple[Address, ...]
    """Who asks: one of each family."""
    servers: tuple[Address, ...]
    """The addresses of this host that are asked at."""
    own: tuple[Address, ...] = ()
    """The addresses of the interface itself."""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer that left this host."""

    side: Side
    server: Address

    def __str__(self) -> str:
        return f"dnsmasq answers at {self.server} what comes in by {self.side.name}"


def ask_from_outside(config: Config, daemon: Daemon, facts: Facts, runner: Runner) -> tuple[list[Side], list[Heard]]:
    """Ask by each interface to the Internet that does not lead to the LAN too, and by each tunnel.

    :returns: the sides that could be asked from, and the answers.
    :raises HostError: that cannot be done here.
    """
    generation = _generation(config)
    if generation is None or daemon.port != 53:
        return [], []
    sides, heard = [], []
    for side in _sides(config, facts, runner):
        found = _ask(side, generation, daemon, runner)
        if found is not None:
            sides.append(side)
            heard += [Heard(side, server) for server in found]
    return sides, heard


def remedy_for(heard: Sequence[Heard]) -> str:
    """At an address of the WAN itself it is a line of the user's that has dnsmasq answer."""
    names = sorted({found.side.name for found in heard if found.server in found.side.own})
    lines = " and ".join(f"except-interface={name}" for name in names)
    return f"add {lines} to the configuration of dnsmasq, and restart it" if names else "gfwtools up"


def _generation(config: Config) -> Generation | None:
    try:
        with config.dnsmasq_conf(config.policies[0]).open("rb") as file:
            found = generation_of(file.read(_HEAD))
    except OSError:
        return None
    return found if found and found.text else None


# ---------------------------------------------------------------- the sides


def _sides(config: Config, facts: Facts, runner: Runner) -> Iterator[Side]:
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "address", "show", "up") or "[]")
    by_name = {str(link["ifname"]): link for link in links if link}  # one that is down is listed as {}
    served = lans(config, runner)
    tunnels = list(facts.interfaces)
    outer = [name for name in sorted(wans(runner)) if name not in tunnels and name not in {lan.name for lan in served}]
    inner = [address.ip for lan in served for address in lan.addresses if lan.name not in outer]
    for name in (*outer, *tunnels):
        link = by_name.get(name, {})
        found = [
            ip_interface(f"{entry['local']}/{entry['prefixlen']}")
            for entry in link.get("addr_info", ())
            if entry.get("scope") == "global"
        ]
        own = [interface.ip for interface in found]
        # By IPv6 never a router: the kernel is given the Ethernet address of who asks.
        clients = _routers(name, runner) if name in outer else []
        clients += [_beside(interface) for interface in found if name in tunnels or interface.version == 6]
        # At the tunnel's own address the user may have dnsmasq answer.
        servers = tuple(dict.fromkeys((*inner, *(own if name in outer else ()))))[:LIMIT]
        families = {server.version for server in servers}
        asking = tuple({client.version: client for client in clients if client.version in families}.values())
        if asking:
            mac = str(link.get("address", "")) if link.get("link_type") == "ether" else ""
            yield Side(name, mac, asking, servers, tuple(own))


def _routers(name: str, runner: Runner) -> list[Address]:
    """The next routers of the WAN."""
    routes = json.loads(runner.ask("ip", "-4", "-j", "route", "show", "default") or "[]")
    hops = [hop for route in routes for hop in (route, *route.get("nexthops", ()))]
    return [ip_address(hop["gateway"]) for hop in hops if hop.get("dev") == name and "gateway" in hop]


def _beside(interface: IPv4Interface | IPv6Interface) -> Address:
    """Another address of the same network."""
    if isinstance(interface, IPv6Interface):
        return IPv6Address(int(interface.ip) >> 64 << 64 | secrets.randbits(64))
    network = interface.network
    if network.num_addresses <= 2:
        return interface.ip + 1
    return network[1] if network[1] != interface.ip else network[2]


# ---------------------------------------------------------------- the questions


def _ask(side: Side, generation: Generation, daemon: Daemon, runner: Runner) -> list[Address] | None:
    """The addresses at which an answer left; None where a question was not seen to come in."""
    port, number = 32768 + secrets.randbelow(28000), secrets.randbits(16)
    asked = question(number, generation.name, _TXT)
    # The second one is locally administered, and nobody's.
    mac, source = bytes.fromhex(side.mac.replace(":", "")), bytes([0x02, *secrets.token_bytes(5)])
    pairs = [(client, server) for client in side.clients for server in side.servers if client.version == server.version]
    heard: set[Address] = set()
    came = 0
    try:
        with ExitStack() as stack:
            device = stack.enter_context(entrance(side.name, side.mac, runner))
            listeners = [stack.enter_context(watch(client)) for client in side.clients]
            for client in side.clients:
                if mac and client.version == 6:
                    stack.enter_context(neighbour(side.name, client, source, runner))
            for client, server in pairs:
                kind = struct.pack("!H", 0x0800 if client.version == 4 else 0x86DD)
                head = mac + source + kind if mac else b""
                os.write(device, head + _packet(client, server, port, asked))
            # dnsmasq answers one after the other: what it has not answered now it will not.
            daemon.is_up()
            end = time.monotonic() + GRACE
            while (left := end - time.monotonic()) > 0:
                ready, _, _ = select.select(listeners, [], [], left)
                for listener in ready:
                    packet, (interface, _, direction, *_) = listener.recvfrom(4096)
                    outgoing = direction == socket.PACKET_OUTGOING
                    came += not outgoing and interface == side.name and asked in packet
                    if outgoing and generation.text.encode() in packet and struct.pack("!H", number) in packet:
                        heard |= {server for client, server in pairs if server.packed in packet[:40]}
    except OSError as error:
        raise HostError(f"no packet can be sent at {side.name}: {error.strerror}") from None
    return sorted(heard, key=str) if came >= len(pairs) else None


def _packet(client: Address, server: Address, port: int, payload: bytes) -> bytes:
    """A datagram to port 53 with its IP header (RFC 768, 791, 8200)."""
    length = 8 + len(payload)
    ends = client.packed + server.packed
    datagram = struct.pack("!HHHH", port, 53, length, 0) + payload
    if isinstance(client, IPv4Address):
        pseudo = ends + struct.pack("!BBH", 0, _UDP, length)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, secrets.randbits(16), 0, 64, _UDP, 0) + ends
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        pseudo = ends + struct.pack("!IHBB", length, 0, 0, _UDP)
        head = struct.pack("!IHBB", 6 << 28, length, _UDP, 64) + ends
    return head + datagram[:6] + struct.pack("!H", checksum(pseudo + datagram) or 0xFFFF) + datagram[8:]
