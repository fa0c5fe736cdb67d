"""A flow that takes its time, so that something can happen to it in the middle.

``python flow.py serve ADDRESS...`` answers on port 8000 of each; ``python flow.py tcp|udp ADDRESS`` is a client. It
prints ``ready`` in the middle of the flow and at the end what it got: bytes of TCP, answered datagrams of UDP.
"""

import socket
import sys
import threading
import time

PORT = 8000
SIZE = 1_800_000
PIECE = 60_000
DATAGRAMS = 40


def serve(addresses: list[str]) -> None:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        stream = socket.create_server((address, PORT), family=family)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((address, PORT))
        threading.Thread(target=_streams, args=(stream,), daemon=True).start()
        threading.Thread(target=_echo, args=(datagrams,), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def _streams(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_send, args=(connection,), daemon=True).start()


def _send(connection: socket.socket) -> None:
    with connection:
        for _ in range(SIZE // PIECE):
            connection.sendall(b"x" * PIECE)
            time.sleep(0.03)


def _echo(server: socket.socket) -> None:
    while True:
        data, peer = server.recvfrom(100)
        server.sendto(data, peer)


def receive(address: str) -> int:
    """The bytes that came before the end, or before two silent seconds."""
    got = 0
    with socket.create_connection((address, PORT), timeout=4) as connection:
        try:
            while data := connection.recv(65536):
                before, got = got, got + len(data)
                if before < 4 * PIECE <= got:
                    print("ready", flush=True)
        except OSError:
            pass
    return got


def exchange(address: str) -> int:
    """The datagrams of one flow, from one port, that were answered."""
    answered = 0
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.3)
        client.connect((address, PORT))
        for number in range(DATAGRAMS):
            if number == 10:
                print("ready", flush=True)
            try:
                client.send(str(number).encode())
                answered += client.recv(100) == str(number).encode()
            except OSError:
                pass
            time.sleep(0.03)
    return answered


def main() -> None:
    kind, *addresses = sys.argv[1:]
    if kind == "serve":
        serve(addresses)
    else:
        print(receive(addresses[0]) if kind == "tcp" else exchange(addresses[0]), flush=True)


if __name__ == "__main__":
    main()
