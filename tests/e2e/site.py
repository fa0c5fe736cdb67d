"""``python site.py ADDRESS...``: on port 80 of each, tells whoever connects the address that it was seen with."""

import selectors
import socket
import sys


def main() -> None:
    waiting = selectors.DefaultSelector()
    for address in sys.argv[1:]:
        server = socket.create_server((address, 80), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        waiting.register(server, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in waiting.select():
            server = key.fileobj
            assert isinstance(server, socket.socket)
            connection, peer = server.accept()
            with connection:
                connection.sendall(str(peer[0]).encode())


if __name__ == "__main__":
    main()
