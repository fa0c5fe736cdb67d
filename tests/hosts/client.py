"""``python client.py RESOLVER SITE``: a client of the LAN that never stops, whatever happens to its gateway.

It opens a new name of the blocked site again and again, as a browser does: it asks the resolver, and connects to the
address that it gets. Beside that it knocks at SITE, which is blocked by its address and needs no name. A JSON array a
line says what came of it: the time, the answer, and whom the site saw.
"""

import itertools
import json
import socket
import struct
import sys
import time
from contextlib import suppress

import dns.exception
import dns.message
import dns.query

PAUSE = 0.2
PATIENCE = 1.0


def answer_of(resolver: str, name: str) -> str:
    try:
        found = dns.query.udp(dns.message.make_query(name, "A"), resolver, timeout=PATIENCE)
    except (OSError, dns.exception.DNSException) as error:
        return f"error: {type(error).__name__}"
    return found.answer[-1][0].to_text() if found.answer else "no address"


def seen_by(address: str) -> str:
    try:
        with socket.create_connection((address, 80), timeout=PATIENCE) as connection:
            # It ends with a reset: after a power cut no old connection goes on saying goodbye.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return connection.recv(100).decode()
    except OSError as error:
        return f"error: {error.strerror or error}"


def main() -> None:
    resolver, site = sys.argv[1:]
    knocks = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    print("ready", flush=True)
    for number in itertools.count():
        started = time.time()
        with suppress(OSError):  # refused: as good as the tunnel
            knocks.sendto(b"knock", (site, 9))
        answer = answer_of(resolver, f"c{number}.blocked.example")
        saw = seen_by(answer) if answer[0].isdigit() else ""
        print(json.dumps([started, answer, saw]), flush=True)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
