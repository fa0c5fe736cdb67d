"""``python redirect_program.py TARGET``: fetch from a mirror on a public address that redirects to TARGET.

It runs in a network namespace of its own, where the loopback has 8.8.4.4 as well. Of TARGET, ``PORT`` is the port of a
server on 127.0.0.1 (and ``OUTSIDE`` that of one on 8.8.4.4). Printed are the answer and how many connections that server
has seen.
"""

import socket
import subprocess
import sys
import threading

from gfwtools.config.model import Fetch
from gfwtools.errors import FetchError
from gfwtools.fetch.race import fetch

PUBLIC = "8.8.4.4"
LIST = b"||example.org\n"


def answer(listener: socket.socket, head: str, seen: list[str]) -> None:
    while True:
        connection, peer = listener.accept()
        seen.append(peer[0])
        with connection:
            connection.recv(65536)
            connection.sendall(head.encode() + LIST)


def serve(address: str, head: str) -> tuple[int, list[str]]:
    listener = socket.create_server((address, 0))
    seen: list[str] = []
    threading.Thread(target=answer, args=(listener, head, seen), daemon=True).start()
    return listener.getsockname()[1], seen


def main() -> None:
    source, target = sys.argv[1:]
    for command in ("ip link set lo up", f"ip address add {PUBLIC}/32 dev lo", "ip address add 192.168.7.7/32 dev lo"):
        subprocess.run(command.split(), check=True)
    good = f"HTTP/1.1 200 OK\r\nContent-Length: {len(LIST)}\r\nConnection: close\r\n\r\n"
    inside, seen = serve("", good)
    target = target.replace("PORT", str(inside))
    moved = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: {len(LIST)}\r\nConnection: close\r\n\r\n"
    outside, _ = serve(source, moved)
    try:
        said = "list" if fetch([f"http://{source}:{outside}/list"], Fetch()).data == LIST else "another"
    except FetchError as error:
        said = error.answers[0]
    print(said, len(seen), sep="\n")


if __name__ == "__main__":
    main()
