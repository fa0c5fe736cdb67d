"""``python crafted.py DEVICE MAC SOURCE SERVER PORT NAME [fragments]``: a question in packets that no program sends.

They go out by DEVICE to the Ethernet address MAC: to any address, 127.0.0.1 among them, and in fragments of 8 bytes
where that is asked for. Prints ``answered`` where the question's answer came back by DEVICE, else ``none``.
"""

import ipaddress
import secrets
import select
import socket
import struct
import sys
import time

import dns.message

KINDS, SECONDS, UDP, FRAGMENT = {4: 0x0800, 6: 0x86DD}, 1.5, 17, 44


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packets(ends: bytes, datagram: bytes, size: int) -> list[bytes]:
    """The datagram in fragments of ``size`` bytes, each with its IP header (RFC 791, 8200 section 4.5)."""
    number, found = secrets.randbits(16), []
    for at in range(0, len(datagram), size):
        part, more = datagram[at : at + size], at + size < len(datagram)
        if len(ends) == 8:
            where = at // 8 | (0x2000 if more else 0)
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), number, where, 64, UDP, 0) + ends
            found.append(head[:10] + struct.pack("!H", checksum(head)) + head[12:] + part)
        else:
            part = struct.pack("!BBHI", UDP, 0, at | more, number) + part
            found.append(struct.pack("!IHBB", 6 << 28, len(part), FRAGMENT, 64) + ends + part)
    return found


def main() -> None:
    device, mac, source, server, port, name, *how = sys.argv[1:]
    question = dns.message.make_query(name, "A").to_wire()
    addresses = ipaddress.ip_address(source), ipaddress.ip_address(server)
    ends = b"".join(address.packed for address in addresses)
    datagram = struct.pack("!HHHH", 40000 + secrets.randbelow(9000), int(port), 8 + len(question), 0) + question
    pseudo = ends + struct.pack("!IHBB", len(datagram), 0, 0, UDP)
    datagram = datagram[:6] + struct.pack("!H", checksum(pseudo + datagram)) + datagram[8:]
    kind = KINDS[addresses[0].version]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(kind)) as wire:
        wire.bind((device, kind))
        for packet in packets(ends, datagram, 8 if how else 1024):
            wire.sendto(packet, (device, kind, 0, 0, bytes.fromhex(mac.replace(":", ""))))
        deadline = time.monotonic() + SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
            seen, (_, _, direction, *_) = wire.recvfrom(4096)
            # The answer has the question's number, and the first flag behind it.
            if direction != socket.PACKET_OUTGOING and question[:2] + b"\x81" in seen:
                print("answered")
                return
    print("none")


if __name__ == "__main__":
    main()
