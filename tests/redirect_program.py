"""``python redirect_program.py SOURCE TARGET``: fetch from a mirror at SOURCE, an address, that redirects to TARGET.

It runs in namespaces of its own (network, mounts), where the loopback has 8.8.4.4 and 192.168.7.7 as well. Of TARGET,
``PORT`` is the port of a server on all addresses. Printed are the answer and at which addresses that server was asked.
A resolver knows three names: ``public.example`` (8.8.4.4), ``inside.example`` (192.168.7.7), and ``rebind.example``,
which is 8.8.4.4 when it is asked for the first time and 127.0.0.1 from then on.
"""

import socket
import subprocess
import sys
import tempfile
import threading

from gfwtools.config.model import Fetch
from gfwtools.errors import FetchError
from gfwtools.fetch.race import fetch

PUBLIC = "8.8.4.4"
LIST = b"||example.org\n"
NAMES = {b"public": [PUBLIC], b"inside": ["192.168.7.7"], b"rebind": [PUBLIC, "127.0.0.1"]}


def answer(listener: socket.socket, head: str, seen: list[str]) -> None:
    while True:
        connection, _ = listener.accept()
        seen.append(connection.getsockname()[0].removeprefix("::ffff:"))
        with connection:
            connection.recv(65536)
            connection.sendall(head.encode() + LIST)


def serve(address: str, head: str) -> tuple[int, list[str]]:
    if address:
        listener = socket.create_server((address, 0))
    else:
        listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    seen: list[str] = []
    threading.Thread(target=answer, args=(listener, head, seen), daemon=True).start()
    return listener.getsockname()[1], seen


def resolve(server: socket.socket) -> None:
    """Answer questions for an address of IPv4 (RFC 1035 section 4); of IPv6 there is none."""
    while True:
        question, client = server.recvfrom(512)
        label, end = question[13 : 13 + question[12]], question.index(b"\0", 12) + 5
        found = b""
        if question[end - 4 : end - 2] == b"\0\1" and label in NAMES:
            addresses = NAMES[label]
            address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
            found = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
        head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
        server.sendto(head + question[12:end] + found, client)


def main() -> None:
    source, target = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as conf:
        conf.write(b"nameserver 127.0.0.1\n")
        conf.flush()
        for command in (
            "ip link set lo up",
            f"ip address add {PUBLIC}/32 dev lo",
            "ip address add 192.168.7.7/32 dev lo",
            f"mount --bind {conf.name} /etc/resolv.conf",
        ):
            subprocess.run(command.split(), check=True)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=resolve, args=(server,), daemon=True).start()
        good = f"HTTP/1.1 200 OK\r\nContent-Length: {len(LIST)}\r\nConnection: close\r\n\r\n"
        inside, seen = serve("", good)
        target = target.replace("PORT", str(inside))
        length = f"Content-Length: {len(LIST)}\r\nConnection: close"
        outside, _ = serve(source, f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n{length}\r\n\r\n")
        try:
            said = "list" if fetch([f"http://{source}:{outside}/list"], Fetch()).data == LIST else "another"
        except FetchError as error:
            said = error.answers[0]
        print(said, " ".join(seen), sep="\n")


if __name__ == "__main__":
    main()
