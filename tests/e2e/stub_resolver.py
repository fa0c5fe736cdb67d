"""A resolver for tests: ``python stub_resolver.py ADDRESS PORT NET``.

It answers each name with an address of its own, ``NET.x.y`` or ``fd00:NET::xxyy``, so that an address tells which resolver
gave it and for which name. With REFUSED in place of NET it refuses them all.
"""

import socket
import sys
import zlib

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


def address(name: str, net: str, family: int = 4) -> str:
    """The address that the resolver ``net`` ("10.1") gives ``name``."""
    number = zlib.crc32(name.lower().rstrip(".").encode()) & 0xFFFF
    if family == 4:
        return f"{net}.{number >> 8}.{number & 0xFF}"
    return f"fd00:{net.replace('.', ':')}::{number:x}" if number else f"fd00:{net.replace('.', ':')}::"


def main() -> None:
    host, port, net = sys.argv[1:]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((host, int(port)))
    print("ready", flush=True)
    while True:
        data, peer = server.recvfrom(4096)
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        question = query.question[0]
        if net == "REFUSED":
            answer.set_rcode(dns.rcode.REFUSED)
        elif question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            family = 4 if question.rdtype == dns.rdatatype.A else 6
            text = address(question.name.to_text(), net, family)
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, text))
        server.sendto(answer.to_wire(), peer)


if __name__ == "__main__":
    main()
