"""The frames of one TCP connection as a LAN client sends them, and the packets of it that an interface shows. Pure."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from gfwtools.config.model import Address

__all__ = ["PORT", "RST", "SYN", "Flow", "Seen", "arp_claim", "arp_probe", "checksum", "filter_of", "parse"]

PORT = 443
SYN, RST = 0x02, 0x04
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection from a client that does not exist. Its first sequence number marks it, also where its addresses are
    translated."""

    client: Address
    site: Address
    port: int
    sequence: int
    client_mac: bytes
    gateway_mac: bytes

    def frame(self, flags: int, sequence: int, acknowledged: int = 0) -> bytes:
        """An Ethernet frame with a segment without data (RFC 9293, section 3.1; a maximum segment size in a SYN)."""
        options = struct.pack("!BBH", 2, 4, 1220) if flags & SYN else b""
        offset = (20 + len(options)) // 4 << 4
        segment = (
            struct.pack("!HHIIBBHHH", self.port, PORT, sequence, acknowledged, offset, flags, 64240, 0, 0) + options
        )
        source, destination = self.client.packed, self.site.packed
        if self.client.version == 4:
            pseudo = source + destination + struct.pack("!BBH", 0, 6, len(segment))
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), sequence & 0xFFFF, 0x4000, 64, 6, 0)
            head += source + destination
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        else:
            pseudo = source + destination + struct.pack("!IHBB", len(segment), 0, 0, 6)
            head = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + source + destination
        segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
        kind = _IPV4 if self.client.version == 4 else _IPV6
        return self.gateway_mac + self.client_mac + struct.pack("!H", kind) + head + segment


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_probe(address: IPv4Address, mac: bytes) -> bytes:
    """The question whether an address is in use (RFC 5227, section 2.1.1): its sender has no address yet."""
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + mac + bytes(4) + bytes(6) + address.packed
    return b"\xff" * 6 + mac + struct.pack("!H", _ARP) + body


def arp_claim(frame: bytes) -> IPv4Address | None:
    """The address that the sender of an ARP packet says it has."""
    if len(frame) < 42 or frame[12:14] != struct.pack("!H", _ARP):
        return None
    address = IPv4Address(frame[28:32])
    return address if int(address) else None


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet of the flow: from the client to the site, or the answer to the first one."""

    answer: bool
    source: Address
    destination: Address
    flags: int
    sequence: int


def parse(packet: bytes, flow: Flow) -> Seen | None:
    """The packet from its IP header on; None where it is of another connection."""
    width = 4 if flow.site.version == 4 else 16
    if not packet or packet[0] >> 4 != flow.site.version:
        return None
    start = (packet[0] & 15) * 4 if width == 4 else 40
    place = 12 if width == 4 else 8
    protocol = packet[9] if width == 4 and len(packet) > 9 else packet[6] if len(packet) > 6 else 0
    if protocol != 6 or len(packet) < start + 20:
        return None
    make = type(flow.site)
    source, destination = make(packet[place : place + width]), make(packet[place + width : place + 2 * width])
    from_port, to_port, sequence, acknowledged, _, flags = struct.unpack_from("!HHIIBB", packet, start)
    if destination == flow.site and to_port == PORT and sequence == flow.sequence:
        return Seen(False, source, destination, flags, sequence)
    if source == flow.site and from_port == PORT and acknowledged == flow.sequence + 1 & 0xFFFFFFFF:
        return Seen(True, source, destination, flags, sequence)
    return None


#: Classic BPF (linux/bpf_common.h): load a word of the packet, compare, return.
_WORD, _EQUAL, _RETURN = 0x20, 0x15, 0x06


def filter_of(site: Address) -> bytes:
    """A socket filter for packets from ``site`` or to it, from their IP header on: a gateway carries many others."""
    words = [int.from_bytes(site.packed[at : at + 4]) for at in range(0, len(site.packed), 4)]
    first = 12 if site.version == 4 else 8
    code: list[tuple[int, int, int, int]] = []
    for side in (0, 1):
        for index, word in enumerate(words):
            left = len(words) - index - 1  # comparisons that are still to come for this side
            code.append((_WORD, 0, 0, first + 4 * (side * len(words) + index)))
            # The next side begins behind what is left of this one and its own return.
            code.append((_EQUAL, 0, 2 * left + 1, word))
        code.append((_RETURN, 0, 0, 0xFFFF))
    code.append((_RETURN, 0, 0, 0))
    return b"".join(struct.pack("=HBBI", *each) for each in code)
