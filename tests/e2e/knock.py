"""``python knock.py ADDRESS...``: one try of TCP port 80 and of UDP port 53 at each, all at once."""

import socket
import sys
import time
from contextlib import suppress

SECONDS = 0.4


def main() -> None:
    sockets = []
    for address in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 53)):
            each = socket.socket(family, kind)
            sockets.append(each)
            each.setblocking(False)
            with suppress(OSError):  # it is under way, or refused at once
                each.connect((address, port))
                each.send(b"x")
    time.sleep(SECONDS)


if __name__ == "__main__":
    main()
