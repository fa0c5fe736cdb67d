"""``python send.py ADDRESS...``: sends a datagram to port 9 and the first packet of a connection to port 80 of each."""

import socket
import sys
from contextlib import suppress


def main() -> None:
    for address in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.sendto(b"x", (address, 9))
        with socket.socket(family, socket.SOCK_STREAM) as sender:
            sender.settimeout(0.05)
            with suppress(OSError):
                sender.connect((address, 80))


if __name__ == "__main__":
    main()
