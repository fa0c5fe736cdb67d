"""Servers on the loopback that misbehave on demand, and the proxies and certificates to reach them by.

A *behaviour* is a function that gets an :class:`Exchange`, one request and the socket it came on, and writes whatever
octets it likes. A :class:`Server` runs it for each request, notes the requests, and on leaving its ``with`` block
ends all of its threads and sockets, whatever they hang in::

    with Server(good(b"||example.org\\n")) as server:
        httpx.get(server.url)
    assert server.requests[0].headers["accept-encoding"] == "gzip"
"""

import datetime
import gzip
import socket
import ssl
import struct
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

#: How long anything here waits for its own threads (seconds); a test that gets there has failed.
PATIENCE = 5.0


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """By name in lower case."""
    at: float
    """time.monotonic()"""


@dataclass(frozen=True)
class Exchange:
    """One request and the connection to answer it on."""

    connection: socket.socket
    request: Request
    server: "Server"

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def respond(self, body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> None:
        """A response with a Content-Length, right or (``length``) wrong."""
        lines = (
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
            *headers,
        )
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def hang(self, seconds: float = 3600.0) -> bool:
        """Do nothing until the server is closed; False: the time is over."""
        return self.server.closing.wait(seconds)


Behaviour = Callable[[Exchange], None]


class Listener(ABC):
    """A loopback socket with a thread for each connection; the base of servers and proxies."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Answer on a connection; it is closed afterwards."""

    def adopt(self, connection: socket.socket) -> None:
        """End this socket as well at the end."""
        with self._lock:
            self._open.add(connection)
            if self.closing.is_set():
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def release(self, connection: socket.socket) -> None:
        """Close it now."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        # Only now, or __exit__ could join a thread that has not begun. It joins the one that runs this after this.
        self._threads.append(thread)

    def __enter__(self) -> Self:
        self.spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        # shutdown() wakes a thread that is blocked in accept(), recv() or send(); close() would not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        deadline = time.monotonic() + PATIENCE
        while self._threads:
            thread = self._threads.pop()
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), "a thread of the server did not end"
        self._socket.close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.adopt(connection)
            self.spawn(self._run, connection)

    def _run(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError):  # the client went away, which is often the point
                self.serve(connection)
        finally:
            self.release(connection)


class Server(Listener):
    """An HTTP server that behaves as told, over TLS with a context."""

    def __init__(self, behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._behaviour = behaviour
        self._tls = tls
        self.requests: list[Request] = []
        #: Set when a client went away while it was being answered.
        self.broken = threading.Event()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/list"

    def serve(self, connection: socket.socket) -> None:
        if self._tls is None:
            self._answer(connection)
            return
        # The handshake comes after the adoption: a client that never begins it must not keep the thread.
        wrapped = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.adopt(wrapped)
        try:
            wrapped.do_handshake()
            self._answer(wrapped)
        finally:
            self.release(wrapped)

    def _answer(self, connection: socket.socket) -> None:
        head = _read_head(connection)
        if not head:
            return
        request = _parse(head)
        self.requests.append(request)
        try:
            self._behaviour(Exchange(connection, request, self))
        except OSError:  # EPIPE or ECONNRESET: the client has had enough
            self.broken.set()
            raise


def _read_head(connection: socket.socket) -> bytes:
    """A request's head; nothing where the client went away before its end."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            return b""
        head += data
    return head


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target, headers, time.monotonic())


# ---------------------------------------------------------------- behaviours


def good(body: bytes, *, etag: str = "", last_modified: str = "", delay: float = 0.0) -> Behaviour:
    """200 with the body after ``delay`` seconds, or 304 to a request that has the validators."""

    def behave(exchange: Exchange) -> None:
        if delay and exchange.hang(delay):
            return
        headers = exchange.request.headers
        validators = [f"ETag: {etag}"] * bool(etag) + [f"Last-Modified: {last_modified}"] * bool(last_modified)
        if "if-none-match" in headers:
            current = bool(etag) and headers["if-none-match"] == etag
        else:
            current = bool(last_modified) and headers.get("if-modified-since") == last_modified
        if current:
            exchange.send("\r\n".join(["HTTP/1.1 304 Not Modified", *validators, "\r\n"]).encode())
        else:
            exchange.respond(body, "200 OK", *validators)

    return behave


def status(line: str, body: bytes = b"sorry", *headers: str) -> Behaviour:
    """A status line's end ("404 Not Found") and a body."""
    return lambda exchange: exchange.respond(body, line, *headers)


def html() -> Behaviour:
    """What a captive portal says to every request."""
    return status("200 OK", b"<!DOCTYPE html><html><body>Please log in</body></html>", "Content-Type: text/html")


def raw(data: bytes) -> Behaviour:
    """These octets, and the end of the connection."""
    return lambda exchange: exchange.send(data)


def sequence(*behaviours: Behaviour) -> Behaviour:
    """One behaviour after the other, a request each; the last one stays."""
    left = list(behaviours)
    return lambda exchange: (left.pop(0) if len(left) > 1 else left[0])(exchange)


def routes(**behaviours: Behaviour) -> Behaviour:
    """A behaviour by the first part of the path; ``list`` is :attr:`Server.url`'s."""

    def behave(exchange: Exchange) -> None:
        behaviours[exchange.request.target.strip("/").split("/")[0]](exchange)

    return behave


def hang_before_headers() -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.hang()

    return behave


def hang_until_hung_up() -> Behaviour:
    """Say nothing, and note in :attr:`Server.broken` that the client ended the connection."""

    def behave(exchange: Exchange) -> None:
        if not exchange.connection.recv(1) and not exchange.server.closing.is_set():
            exchange.server.broken.set()

    return behave


def hang_within_headers() -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.hang()

    return behave


def hang_after_headers() -> Behaviour:
    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        exchange.hang()

    return behave


def drip(body: bytes, every: float = 1.0) -> Behaviour:
    """The headers at once, then one octet every so many seconds."""

    def behave(exchange: Exchange) -> None:
        exchange.respond(b"", length=len(body))
        for octet in body:
            if exchange.hang(every):
                return
            exchange.send(bytes([octet]))

    return behave


def drip_headers(every: float = 1.0) -> Behaviour:
    """A head that never ends, one octet every so many seconds."""

    def behave(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
        while not exchange.hang(every):
            exchange.send(b"x")

    return behave


def continue_for_ever() -> Behaviour:
    """Interim responses without end, and never a final one."""

    def behave(exchange: Exchange) -> None:
        while not exchange.server.closing.is_set():
            exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    return behave


def close_in_body(body: bytes, after: int) -> Behaviour:
    """A body that ends ``after`` octets although more were promised."""
    return lambda exchange: exchange.respond(body[:after], length=len(body))


def endless(*headers: str) -> Behaviour:
    """A chunked body without end."""

    def behave(exchange: Exchange) -> None:
        lines = ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers, "\r\n")
        exchange.send("\r\n".join(lines).encode())
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        while not exchange.server.closing.is_set():
            exchange.send(chunk)

    return behave


def zipped(body: bytes, *, cut: int = 0, coding: str = "gzip") -> Behaviour:
    """The body with its content coding, ``cut`` octets short of its end (the Content-Length is right)."""
    data = zlib.compress(body) if coding == "deflate" else gzip.compress(body)
    return status("200 OK", data[: len(data) - cut], f"Content-Encoding: {coding}")


def bomb(size: int) -> Behaviour:
    """A gzip body that is a thousandth of the ``size`` (octets) that it unpacks to."""
    block = bytes(1024 * 1024)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # behind it the next block packs to the same
    count, check = size // len(block), 0
    for _ in range(count):
        check = zlib.crc32(block, check)
    head = gzip.compress(b"")[:10]
    data = head + packed * count + packer.flush() + struct.pack("<II", check, count * len(block))
    return status("200 OK", data, "Content-Encoding: gzip")


def redirect(location: str, line: str = "302 Found") -> Behaviour:
    return status(line, b"", f"Location: {location}")


def redirect_chain(length: int, end: Behaviour) -> Behaviour:
    """``length`` redirects, each to a path of its own, and what is at the end of them."""

    def behave(exchange: Exchange) -> None:
        step = int(exchange.request.target.partition("?")[2] or 0)
        if step < length:
            exchange.respond(b"", "301 Moved Permanently", f"Location: /list?{step + 1}")
        else:
            end(exchange)

    return behave


# ---------------------------------------------------------------- no server at all


@contextmanager
def refused() -> Iterator[str]:
    """A URL whose port nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/list"


@contextmanager
def unreachable(scheme: str = "http") -> Iterator[str]:
    """A URL to connect to which hangs: the queue of its listening socket is full, so that the kernel drops the SYN."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        try:
            for _ in range(4):  # a backlog of 0 takes one connection; those after it stay in SYN-SENT
                client = socket.socket()
                waiting.append(client)
                client.setblocking(False)
                client.connect_ex(listening.getsockname())
            yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/list"
        finally:
            for client in waiting:
                client.close()


class Mute(Listener):
    """Takes connections and says nothing: a TLS handshake or a SOCKS greeting that is swallowed."""

    def url(self, scheme: str = "https") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/list"

    def serve(self, connection: socket.socket) -> None:
        self.closing.wait()


# ---------------------------------------------------------------- proxies


class Proxy(Listener):
    """What HTTP and SOCKS proxies share: they connect, relay, and note where to."""

    def __init__(self) -> None:
        super().__init__()
        #: The HOST:PORT of each connection that was asked for.
        self.asked: list[str] = []

    def _connect(self, host: str, port: int) -> socket.socket:
        self.asked.append(f"{host}:{port}")
        upstream = socket.create_connection((host, port), PATIENCE)
        upstream.settimeout(None)
        self.adopt(upstream)
        return upstream

    def _relay(self, client: socket.socket, upstream: socket.socket) -> None:
        """Both ways, until both sides have said all."""
        answered = threading.Event()

        def back() -> None:
            _pump(upstream, client)
            answered.set()

        self.spawn(back)
        _pump(client, upstream)
        answered.wait()
        self.release(upstream)


class HttpProxy(Proxy):
    """CONNECT for https (RFC 9110 section 9.3.6), the absolute form for http (RFC 9112 section 3.2.2)."""

    def __init__(self, refuse: str = "") -> None:
        super().__init__()
        self._refuse = refuse

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        head = _read_head(connection)
        if not head:
            return
        request = _parse(head)
        if self._refuse:
            connection.sendall(f"HTTP/1.1 {self._refuse}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        if request.method == "CONNECT":
            host, _, port = request.target.partition(":")
            upstream = self._connect(host, int(port))
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            authority, _, path = request.target.removeprefix("http://").partition("/")
            host, _, port = authority.partition(":")
            upstream = self._connect(host, int(port or 80))
            upstream.sendall(head.replace(request.target.encode(), b"/" + path.encode(), 1))
        self._relay(connection, upstream)


class SocksProxy(Proxy):
    """SOCKS 5 without authentication (RFC 1928), CONNECT only, to names and IPv4 addresses."""

    @property
    def url(self) -> str:
        return f"socks5://127.0.0.1:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        _, methods = _exactly(connection, 2)
        _exactly(connection, methods)
        connection.sendall(b"\x05\x00")
        _, _, _, kind = _exactly(connection, 4)
        if kind == 3:
            host = _exactly(connection, _exactly(connection, 1)[0]).decode()
        else:
            host = socket.inet_ntoa(_exactly(connection, 4))
        port = int.from_bytes(_exactly(connection, 2), "big")
        upstream = self._connect(host, port)
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
        self._relay(connection, upstream)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the client went away")
        data += more
    return data


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# ---------------------------------------------------------------- certificates


class Authority:
    """A certificate authority of our own, and what servers show that have something to do with it, or nothing."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def write(self, path: Path) -> Path:
        """The authority's certificate, for SSL_CERT_FILE."""
        self._authority.cert_pem.write_to_path(path)
        return path

    def good(self) -> ssl.SSLContext:
        return _serving(self._authority.issue_cert("127.0.0.1", "localhost"))

    def expired(self) -> ssl.SSLContext:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return _serving(self._authority.issue_cert("127.0.0.1", not_before=now - 2 * day, not_after=now - day))

    def not_yet_valid(self) -> ssl.SSLContext:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return _serving(self._authority.issue_cert("127.0.0.1", not_before=now + day, not_after=now + 2 * day))

    def of_another_name(self) -> ssl.SSLContext:
        return _serving(self._authority.issue_cert("other.example"))

    @staticmethod
    def unknown() -> ssl.SSLContext:
        """A certificate of an authority that nobody knows."""
        return _serving(trustme.CA().issue_cert("127.0.0.1"))

    @staticmethod
    def self_signed() -> ssl.SSLContext:
        """A certificate that vouches for itself: that of an authority that nobody knows."""
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with authority.private_key_pem.tempfile() as key, authority.cert_pem.tempfile() as certificate:
            context.load_cert_chain(certificate, key)
        return context


def _serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
