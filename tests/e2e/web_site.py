"""``python web_site.py CERTIFICATE FILTERED ADDRESS...``: a web site at ports 443 (TLS) and 80 of each address.

It resets a connection that names the host FILTERED and does not come by the lab's tunnel, as a filter of names on the
way does. ``-`` filters nothing.
"""

import socket
import ssl
import struct
import sys
import threading

#: The tunnel's network in the lab.
TUNNEL = "10.7.0."


class Site:
    def __init__(self, certificate: str, filtered: str) -> None:
        self.filtered = filtered
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def serve(self, address: str, port: int) -> None:
        server = socket.create_server((address, port))
        threading.Thread(target=self._accept, args=(server, port), daemon=True).start()

    def _accept(self, server: socket.socket, port: int) -> None:
        while True:
            connection, peer = server.accept()
            threading.Thread(target=self._answer, args=(connection, port, peer[0]), daemon=True).start()

    def _answer(self, connection: socket.socket, port: int, peer: str) -> None:
        connection.settimeout(5)
        try:
            hello = connection.recv(4096, socket.MSG_PEEK)
            # The name of a ClientHello is not encrypted (RFC 6066 section 3).
            if self.filtered.encode() in hello and not peer.startswith(TUNNEL):
                # Without a lingering end close(2) sends a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif port == 443:
                with self.context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
            else:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            pass
        finally:
            connection.close()


def main() -> None:
    certificate, filtered, *addresses = sys.argv[1:]
    site = Site(certificate, filtered)
    for address in addresses:
        for port in (443, 80):
            site.serve(address, port)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
