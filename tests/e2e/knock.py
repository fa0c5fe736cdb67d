"""``python knock.py SITE... RESOLVER``: one try of TCP port 80 and of UDP port 443 at each, and of UDP port 53 at the
resolver, all at once.
"""

import socket
import sys
import time
from contextlib import suppress

SECONDS = 0.4


def main() -> None:
    sockets = []
    *sites, resolver = sys.argv[1:]
    tries = [
        (site, kind) for site in (*sites, resolver) for kind in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 443))
    ]
    for address, (kind, port) in [*tries, (resolver, (socket.SOCK_DGRAM, 53))]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        each = socket.socket(family, kind)
        sockets.append(each)
        each.setblocking(False)
        with suppress(OSError):  # it is under way, or refused at once
            each.connect((address, port))
            each.send(b"x")
    time.sleep(SECONDS)


if __name__ == "__main__":
    main()
