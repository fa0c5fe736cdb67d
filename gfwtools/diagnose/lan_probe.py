"""Does a packet of the LAN really cross this host into the tunnel, and does the answer come back?

A frame that a program sends on an interface goes out to the wire, and never in. So the frame goes into a tap device of
ours, and a filter of tc hands it to the LAN's interface, as if it had come from its wire (tc-mirred(8), ingress
redirect). That works on a plain interface, a bridge, a VLAN and a bond alike, and changes nothing on them. The packet
has the address of a client that does not exist. It passes netfilter and the routing as every other one does, and a
packet socket shows by which interface it leaves.

Nothing stays: the kernel removes the tap device, with its filter, when the process that holds it ends, be it by
SIGKILL. The entry in the neighbour table ages as any other one does.
"""

import fcntl
import json
import os
import secrets
import select
import socket
import struct
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address
from gfwtools.diagnose.lan import Lan
from gfwtools.diagnose.lan_frames import RST, SYN, Flow, arp_claim, arp_probe, filter_of, parse
from gfwtools.errors import HostError
from gfwtools.system.commands import Command, CommandError, Runner

__all__ = ["Crossed", "entrance", "neighbour", "probe_from", "watch"]

#: Seconds until the question is repeated (RFC 6298, section 2), until all is given up, and for a claim by ARP.
REPEAT = 1.0
TIMEOUT = 3.0
CLAIM = 0.4
#: Linux's own names for these (linux/if_tun.h, linux/if_ether.h, asm-generic/socket.h).
_TUNSETIFF, _IFF_TUN, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0001, 0x0002, 0x1000
_ETH_P_ALL, _ETH_P_ARP = 0x0003, 0x0806
_SO_ATTACH_FILTER = 26
_LEASES = "/var/lib/misc/dnsmasq.leases"
#: So many free addresses are tried at once.
CANDIDATES = 4


@dataclass
class Crossed:
    """What was seen of one connection."""

    client: Address
    site: Address
    entered: bool = False
    """The packet was seen to come in by the LAN's interface."""
    left_by: str = ""
    """The interface by which it left; empty for none."""
    answered_by: str = ""
    """The interface by which the answer came; empty for none."""
    delivered: bool = False
    """An answer left to the client by the LAN's interface."""

    @property
    def refused_here(self) -> bool:
        """This host itself answered in the site's name (REJECT --reject-with tcp-reset)."""
        return self.delivered and not self.answered_by

    @property
    def well(self) -> bool:
        return self.delivered and bool(self.left_by and self.answered_by)

    def __str__(self) -> str:
        words = [f"a packet from {self.client} to {self.site}"]
        words.append(f"left by {self.left_by}" if self.left_by else "did not leave this host")
        if self.refused_here:
            words.append("and this host refused it")
        elif self.left_by and not self.answered_by:
            words.append(f"and no answer came within {TIMEOUT:g} s")
        elif self.answered_by:
            words.append(f"the answer came by {self.answered_by}")
            words.append("and reached the LAN" if self.delivered else "and did not reach the LAN")
        return " ".join(words) if len(words) < 4 else f"{words[0]} {words[1]}; {words[2]} {words[3]}"


def probe_from(lan: Lan, site: Address, runner: Runner, leases: Path = Path(_LEASES)) -> Crossed:
    """Send the first packet of a connection as a client of ``lan``, and watch it.

    :raises HostError: that cannot be done here.
    """
    link = _link(lan, runner)
    mac = bytes([0x02, *secrets.token_bytes(5)])  # locally administered
    try:
        return _probe(lan, site, link, mac, runner, leases)
    except OSError as error:  # root of a container may lack CAP_NET_RAW, and the interface may go away meanwhile
        raise HostError(
            f"no packet can be sent at {lan.name}: {error.strerror}", "run it as root of the host"
        ) from None


def _probe(lan: Lan, site: Address, link: str, mac: bytes, runner: Runner, leases: Path) -> Crossed:
    with ExitStack() as stack:
        client = _free_address(lan, site.version, mac, runner, leases)
        port = 32768 + secrets.randbelow(28000)
        flow = Flow(client, site, port, secrets.randbits(32), mac, bytes.fromhex(link.replace(":", "")))
        tap = stack.enter_context(entrance(lan.name, link, runner))
        stack.enter_context(neighbour(lan.name, flow.client, flow.client_mac, runner))
        return _cross(flow, lan, tap, stack.enter_context(watch(site)))


def _link(lan: Lan, runner: Runner) -> str:
    """The Ethernet address of the LAN's interface.

    :raises HostError: it has no carrier: what it sends is dropped unseen.
    """
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "link", "show", "dev", lan.name) or "[{}]")
    if "LOWER_UP" not in links[0].get("flags", ()):
        raise HostError(f"{lan.name} has no carrier", "plug it in, or give another interface to --from")
    return str(links[0]["address"])


# ---------------------------------------------------------------- the parts that are removed again


@contextmanager
def entrance(interface: str, mac: str, runner: Runner) -> Iterator[int]:
    """A device of ours; a frame that is written to it comes in by ``interface``.

    :param mac: the Ethernet address of the interface; empty for one without, which takes packets and not frames.
    :raises HostError: that cannot be done here.
    """
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"/dev/net/tun: {error.strerror}", "modprobe tun") from None
    try:
        request = struct.pack("16sH22x", b"gfwprobe%d", (_IFF_TAP if mac else _IFF_TUN) | _IFF_NO_PI)
        try:
            answer = fcntl.ioctl(device, _TUNSETIFF, request)
        except OSError as error:
            raise HostError(f"no tap device can be made: {error.strerror}") from None
        name = answer[:16].rstrip(b"\0").decode()
        if not runner.has("tc"):
            raise HostError("tc: no such program", "install iproute2 (iproute2-tc, tc-full)")
        with suppress(CommandError):  # a kernel without IPv6
            runner.change(Command(("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")))
        try:
            # With the address of the LAN's interface the frame is for this host.
            runner.change(Command(("ip", "link", "set", "dev", name, *(("address", mac) if mac else ()), "up")))
            runner.change(Command(("tc", "qdisc", "add", "dev", name, "ingress")))
            words = f"tc filter add dev {name} parent ffff: protocol all u32 match u32 0 0"
            words += " action mirred ingress redirect dev"
            runner.change(Command((*words.split(), interface)))
        except CommandError as error:
            raise HostError(
                f"the kernel cannot hand a frame to {interface}: {error.said}", "modprobe act_mirred"
            ) from None
        yield device
    finally:
        os.close(device)


@contextmanager
def neighbour(interface: str, client: Address, client_mac: bytes, runner: Runner) -> Iterator[None]:
    """The host knows the client's Ethernet address, as it does of a client that has just asked for it."""
    entry = (str(client), "dev", interface)
    mac = client_mac.hex(":")
    try:  # a signal may end the command behind its effect
        runner.change(Command(("ip", "neigh", "replace", *entry, "lladdr", mac, "nud", "reachable")))
        yield
    finally:
        with suppress(CommandError):
            runner.change(Command(("ip", "neigh", "del", *entry)))


@contextmanager
def watch(site: Address) -> Iterator[socket.socket]:
    """All packets from or to an address on every interface, from their IP headers on (packet(7), SOCK_DGRAM)."""
    code = array("B", filter_of(site))
    address, size = code.buffer_info()  # it must live until the call is done
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", size // 8, address))
        yield listener


# ---------------------------------------------------------------- a free address


def _free_address(lan: Lan, version: int, mac: bytes, runner: Runner, leases: Path) -> Address:
    """An address of the LAN that is free.

    :raises HostError: there is none.
    """
    own = lan.address(version)
    if own is None:
        raise HostError(f"{lan.name} has no IPv{version} address")
    network = own.network
    if isinstance(own.ip, IPv6Address):
        return network.network_address + secrets.randbits(min(64, 128 - network.prefixlen))
    taken = {address.ip for address in lan.addresses} | _known(lan, runner) | _leased(leases)
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    # From the top, where few address pools reach.
    free = (IPv4Address(number) for number in range(last, max(first, last - 250) - 1, -1))
    candidates = [address for address in free if address not in taken][:CANDIDATES]
    claimed = _claimed(lan, candidates, mac)
    found = next((address for address in candidates if address not in claimed), None)
    if found is None:
        raise HostError(f"every address of {network} that was tried is in use")
    return found


def _known(lan: Lan, runner: Runner) -> set[Address]:
    entries = json.loads(runner.ask("ip", "-j", "neigh", "show", "dev", lan.name) or "[]")
    return {ip_address(entry["dst"]) for entry in entries if "dst" in entry}


def _leased(path: Path) -> set[Address]:
    """The addresses that dnsmasq has leased: their devices may only be asleep."""
    found: set[Address] = set()
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, IndexError):
                found.add(ip_address(line.split()[2]))
    return found


def _claimed(lan: Lan, candidates: Sequence[IPv4Address], mac: bytes) -> set[IPv4Address]:
    """Those whose owners answer by ARP."""
    claimed: set[IPv4Address] = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as asker:
        asker.bind((lan.name, _ETH_P_ARP))
        for address in candidates:
            asker.send(arp_probe(address, mac))
        deadline = time.monotonic() + CLAIM
        while (left := deadline - time.monotonic()) > 0 and select.select([asker], [], [], left)[0]:
            claim = arp_claim(asker.recv(2048))
            if claim:
                claimed.add(claim)
    return claimed


# ---------------------------------------------------------------- the packet


def _cross(flow: Flow, lan: Lan, tap: int, listener: socket.socket) -> Crossed:
    crossed = Crossed(flow.client, flow.site)
    started = time.monotonic()
    sent = 0
    while (now := time.monotonic()) < started + TIMEOUT and not crossed.delivered:
        if now >= started + sent * REPEAT:
            os.write(tap, flow.frame(SYN, flow.sequence))
            sent += 1
        wait = min(started + sent * REPEAT, started + TIMEOUT) - time.monotonic()
        if select.select([listener], [], [], max(0.0, wait))[0]:
            packet, (interface, _, direction, *_) = listener.recvfrom(2048)
            _note(crossed, flow, lan, packet, str(interface), int(direction))
    if crossed.answered_by and not crossed.refused_here:
        # The site and the host's conntrack need not wait for a client that does not exist.
        os.write(tap, flow.frame(RST, flow.sequence + 1 & 0xFFFFFFFF))
    if not crossed.entered:
        raise HostError(f"the frame was not seen to come in by {lan.name}")
    return crossed


def _note(crossed: Crossed, flow: Flow, lan: Lan, packet: bytes, interface: str, direction: int) -> None:
    seen = parse(packet, flow)
    if seen is None:
        return
    outgoing = direction == socket.PACKET_OUTGOING
    if not seen.answer:
        if outgoing:
            crossed.left_by = crossed.left_by or interface
        elif interface == lan.name:
            crossed.entered = True
    elif outgoing and interface == lan.name and seen.destination == flow.client:
        crossed.delivered = True
    elif not outgoing and interface != lan.name:
        crossed.answered_by = crossed.answered_by or interface
