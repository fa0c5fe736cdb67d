"""``python asked.py NAME [FROM@]SERVER[%DEVICE][#PORT]...``: asks all at once, by UDP and by TCP.

Prints JSON: as it was written -> [by UDP, by TCP], each the addresses in one text, ``empty`` or ``none``.
"""

import json
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import dns.exception
import dns.message
import dns.query

SECONDS = 1.5


def ask(name: str, way: str, kind: socket.SocketKind) -> str:
    found = re.fullmatch(r"(?:(?P<source>.+)@)?(?P<server>[^%#]+)(?:%(?P<device>[^#]+))?(?:#(?P<port>\d+))?", way)
    assert found
    server, port = found["server"], int(found["port"] or 53)
    question = dns.message.make_query(name, "A")
    by_udp = kind == socket.SOCK_DGRAM
    try:
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as sock:
            if found["device"]:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, found["device"].encode())
            if found["source"]:
                sock.bind((found["source"], 0))
            sock.settimeout(SECONDS)
            if by_udp:
                answer = dns.query.udp(question, server, timeout=SECONDS, port=port, sock=sock)
            else:
                sock.connect((server, port))
                answer = dns.query.tcp(question, server, timeout=SECONDS, sock=sock)
        return " ".join(sorted(str(item) for found in answer.answer for item in found)) or "empty"
    except (OSError, EOFError, dns.exception.DNSException):
        return "none"


def main() -> None:
    name, *ways = sys.argv[1:]
    kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    with ThreadPoolExecutor(2 * len(ways)) as pool:
        asked = {way: [pool.submit(ask, name, way, kind) for kind in kinds] for way in ways}
    print(json.dumps({way: [future.result() for future in futures] for way, futures in asked.items()}))


if __name__ == "__main__":
    main()
