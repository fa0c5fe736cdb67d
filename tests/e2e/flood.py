"""``python flood.py SERVER SECONDS``: questions for new free names as fast as they go, and how many were answered."""

import socket
import sys
import time
from contextlib import suppress

from gfwtools.dnsmasq.wire import question


def main() -> None:
    end = time.monotonic() + float(sys.argv[2])
    asked = answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.connect((sys.argv[1], 53))
        port.setblocking(False)
        while time.monotonic() < end:
            with suppress(OSError):
                port.send(question(asked & 0xFFFF, f"n{asked}.free.example", "A"))
                asked += 1
            with suppress(OSError):
                while port.recv(4096):
                    answered += 1
        time.sleep(0.5)
        with suppress(OSError):
            while port.recv(4096):
                answered += 1
    print(asked, answered)


if __name__ == "__main__":
    main()
