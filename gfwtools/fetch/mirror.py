"""One source that is asked, in a thread of its own: a file, or a URL with its redirects."""

import os
import re
import stat
import struct
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gfwtools._version import __version__
from gfwtools.config.model import Fetch
from gfwtools.config.userinfo import masked, masked_proxy
from gfwtools.fetch.body import BLOCK, Body
from gfwtools.fetch.tls import Authorities, import_httpx
from gfwtools.fetch.values import Event, FailedError, Fetched, Phase, Progress, Validators, shown
from gfwtools.lists.addresses import is_inside

if TYPE_CHECKING:
    import socket

    import httpx

__all__ = ["Mirror", "clock_hint"]

MAX_REDIRECTS = 5
#: 2024 in seconds since 1970: a router without a battery begins before, at 1970 or at the date of its image.
OLDEST_CLOCK = 1_704_067_200
#: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (X509_verify_cert_error_string(3)).
_OUT_OF_TIME = (9, 10)
#: A validator is kept in state.json and sent back, so it is not let in at any length (octets).
MAX_VALIDATOR = 256


class Mirror:
    """A source that is asked: its thread, and what the thread that keeps the clock knows of it."""

    def __init__(
        self,
        source: str,
        options: Fetch,
        validators: Validators,
        authorities: Authorities,
        progress: Progress | None,
        events: "SimpleQueue[tuple[Mirror, Event]]",
    ) -> None:
        self.source = source
        self.answer = ""
        self.running = True
        self.started = time.monotonic()
        scheme = re.match(r"(https?)://", source, re.IGNORECASE)
        self._web = scheme[1].lower() if scheme else ""
        self._phase = Phase.CONNECTING if self._web else Phase.CONNECTED
        self._phase_began = self.started
        self._options = options
        self._validators = Validators(_validator(validators.etag), _past(_validator(validators.last_modified)))
        self._proxy = options.proxy  # of the request under way, where the environment may have one
        self._at_proxy = False  # whether it is still the proxy that is to blame
        self._may_go_inside: bool | None = None  # whether the source itself is inside; None before it is connected
        self._progress = progress
        self._events = events
        self._authorities = authorities
        # Shared by both threads: whether to stop, and a duplicate of the socket that the worker may be blocked on.
        self._lock = threading.Lock()
        self._cancelled = False
        self._socket: socket.socket | None = None

    # ------------------------------------------------------------ called by the thread that keeps the clock

    def start(self) -> None:
        """Begin; the clock starts after the imports, which take a second on a small router."""
        if self._web:
            import_httpx()
            try:
                self._authorities.context(self._web)
            except FailedError as failure:
                self.fail(str(failure))
                return
        self.started = self._phase_began = time.monotonic()
        try:
            threading.Thread(target=self._work, name=f"fetch {shown(self.source)}", daemon=True).start()
        except RuntimeError:  # clone(2): EAGAIN or ENOMEM, and Python does not say which
            self.fail("not enough memory, or too many processes, for a thread")

    def enter(self, phase: Phase) -> None:
        self._phase = phase
        self._phase_began = time.monotonic()

    def fail(self, answer: str) -> None:
        self.answer = answer
        self.cancel()

    def cancel(self) -> None:
        """Make the thread end soon, where that is possible. Its later events do not count."""
        self.running = False
        with self._lock:
            self._cancelled = True
            self._hang_up()

    @property
    def silent(self) -> bool:
        """Whether it has sent no headers (those of a redirect are no answer) and may yet."""
        return self.running and self._phase is not Phase.HEADERS

    @property
    def limit(self) -> float:
        """The moment at which its time is over."""
        return min(self._connect_limit, self.started + self._options.timeout)

    @property
    def lateness(self) -> str:
        """The answer of a mirror that has reached its :attr:`limit`."""
        if self._connect_limit <= self.started + self._options.timeout:
            return self._no_connection
        return self._no_headers if self._phase is not Phase.HEADERS else self._not_complete

    @property
    def _connect_limit(self) -> float:
        if self._phase is not Phase.CONNECTING:
            return float("inf")
        return self._phase_began + self._options.connect_timeout

    @property
    def _no_connection(self) -> str:
        through = " through the proxy" if self._proxy else ""
        return f"no connection{through} within {self._options.connect_timeout:g} s"

    @property
    def _no_headers(self) -> str:
        return f"no answer within {self._options.timeout:g} s"

    @property
    def _not_complete(self) -> str:
        return f"not complete within {self._options.timeout:g} s"

    # ------------------------------------------------------------ called by the worker

    def _work(self) -> None:
        outcome: Event
        try:
            outcome = self._ask() if self._web else self._read()
        except FailedError as failure:
            outcome = failure
        except OSError as error:
            outcome = FailedError(error.strerror or str(error))
        except MemoryError:
            outcome = FailedError("not enough memory")
        except Exception as error:
            # A library's mistake on odd input is this mirror's failure, not that of the others.
            outcome = FailedError(f"{type(error).__name__}: {error}")
        finally:
            self._hold(None)
        self._tell(outcome)

    def _tell(self, event: Event) -> None:
        self._events.put((self, event))

    def _received(self, octets: int, total: int | None) -> None:
        """Report the progress.

        :raises FailedError: the worker must stop. It checks the time itself: the clock's thread may be in accept().
        """
        if self._cancelled:
            raise FailedError("cancelled")
        if time.monotonic() >= self.started + self._options.timeout:
            raise FailedError(self._not_complete)
        if self._progress is not None:
            self._progress(self.source, octets, total)

    def _too_large(self) -> FailedError:
        return FailedError(f"larger than fetch.max_bytes, {self._options.max_bytes} bytes")

    def _hold(self, held: "socket.socket | None") -> None:
        """Keep a duplicate of the socket in use, so that :meth:`cancel` can wake a thread that is blocked on it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = held
            if self._cancelled:
                self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            import socket  # 4 ms, and a file needs none

            with suppress(OSError):  # the other side was faster
                # shutdown() wakes the thread. Without the linger time of 0, which makes close() send a reset, a mirror
                # in the middle of its body may be left before a closed window until its kernel gives up (socket(7)).
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._socket.shutdown(socket.SHUT_RDWR)

    # ------------------------------------------------------------ files

    def _read(self) -> Fetched[bytes | None]:
        """The file that the source names.

        :raises FailedError: there is no such file, or it is too large, or not a regular file.
        :raises OSError: the system says so.
        """
        path = _path(self.source)
        # Opening a device can do things (a watchdog starts, a tape rewinds) and opening a FIFO blocks: look before.
        _require_regular(os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _require_regular(status)
            body = BytesIO()
            while block := file.read(BLOCK):
                body.write(block)
                if body.tell() > self._options.max_bytes:  # counted, for st_size is 0 in /proc and a file can grow
                    raise self._too_large()
                self._received(body.tell(), status.st_size or None)
        return Fetched(body.getvalue(), self.source, Validators())

    # ------------------------------------------------------------ HTTP

    def _ask(self) -> Fetched[bytes | None]:
        """What the URL gives, at the end of its redirects.

        :raises FailedError: the source gave no list; the message has its answer.
        """
        from http.cookiejar import CookieJar

        import httpx

        headers = {"User-Agent": f"gfwtools/{__version__}", "Accept": "*/*", "Accept-Encoding": "gzip"}
        if self._validators.etag:
            headers["If-None-Match"] = self._validators.etag
        if self._validators.last_modified:
            headers["If-Modified-Since"] = self._validators.last_modified
        try:
            request = httpx.Request("GET", self.source, headers=headers)
            seen = {str(request.url)}
            cookies = CookieJar()
            for _ in range(MAX_REDIRECTS + 1):
                context = self._authorities.context(request.url.scheme)
                self._proxy = self._proxy_for(request.url)
                self._at_proxy = bool(self._proxy)
                if self._proxy:
                    self._look_at_name(request.url.host)
                proxy = self._proxy or None
                with httpx.Client(verify=context, proxy=proxy, cookies=cookies, trust_env=False) as client:
                    left = max(0.01, self.started + self._options.timeout - time.monotonic())
                    timeout = httpx.Timeout(left, connect=min(left, self._options.connect_timeout))
                    request.extensions = {"timeout": timeout.as_dict(), "trace": self._trace}
                    response = client.send(request, stream=True)
                    try:
                        if not response.has_redirect_location:
                            return self._answered(response)
                        request = _redirect(response, seen)
                    finally:
                        response.close()
                self._tell(Phase.CONNECTING)
            raise FailedError(f"more than {MAX_REDIRECTS} redirects")
        except httpx.InvalidURL as error:
            if masked(self.source) != self.source:  # what httpx says may be a piece of the password
                raise FailedError(
                    "not a URL; write /, ?, # and @ of a name or password as %2F, %3F, %23 and %40"
                ) from None
            raise FailedError(f"not a URL: {error}") from None
        except httpx.HTTPError as error:
            raise FailedError(self._explained(error)) from None

    def _proxy_for(self, url: "httpx.URL") -> str:
        """The configured proxy or, without one, that of the environment; empty for none.

        :raises FailedError: the value is not a proxy.
        """
        import httpx

        try:
            proxy = self._options.proxy
            if not proxy:
                from gfwtools.fetch.proxy import environment_proxy

                port = url.port or (443 if url.scheme == "https" else 80)
                proxy = environment_proxy(url.scheme, url.raw_host.decode("ascii"), port)
            if proxy:
                httpx.Proxy(proxy)  # it knows more of host names than we do
        except httpx.InvalidURL as error:
            raise FailedError(f"the proxy {masked_proxy(proxy)}: not a URL: {error}") from None
        except ValueError as error:
            raise FailedError(str(error)) from None
        return proxy

    def _look_at(self, address: str) -> None:
        """A request goes to ``address``. A redirect to an address of this host, its LAN or its provider is refused, or
        a mirror could have this host ask what only it can reach. A source that is inside itself may lead there.

        :raises FailedError: it is refused.
        """
        inside = is_inside(address)
        if self._may_go_inside is None:
            self._may_go_inside = inside
        elif inside and not self._may_go_inside:
            raise FailedError(f"redirected to {address}, an address of this host or its LAN; that is not followed")

    def _look_at_name(self, host: str) -> None:
        """The same of a host that the proxy resolves: an address in any spelling, or a name of its own LAN.

        :raises FailedError: it is refused.
        """
        import socket

        from gfwtools.lists.hostname import LOCAL

        try:
            self._look_at(str(socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0][4][0]))
        except (OSError, UnicodeError):
            self._look_at("127.0.0.1" if host.rstrip(".").rpartition(".")[2].lower() in LOCAL else host)

    def _address_of(self, host: str, port: int) -> str:
        """Where a request goes that is about to connect. Where a redirect may not lead inside, it is the address that
        was looked at: a name that is resolved a second time may have another one.

        :raises FailedError: it is refused.
        """
        if self._proxy or self._may_go_inside is not False:
            return host
        import socket

        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return host  # httpx reports it in a moment
        for _, _, _, _, place in found:
            self._look_at(str(place[0]))
        for family, _, _, _, place in found:
            with socket.socket(family, socket.SOCK_DGRAM) as way, suppress(OSError):
                way.connect(place)  # sends nothing, and fails where no route leads there
                return str(place[0])
        return str(found[0][4][0])

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """httpx calls this for each of its steps (its "trace" extension)."""
        if event.endswith(".connect_tcp.started"):
            info["host"] = self._address_of(info["host"], info["port"])
        elif event.endswith(".connect_tcp.complete"):
            connected = info["return_value"].get_extra_info("socket")
            # The duplicate stays good when TLS takes over the descriptor, and is never one that was closed and reused.
            self._hold(connected.dup())
            if not self._proxy:  # of the source itself, and of any other, were the address above not the one in use
                self._look_at(str(connected.getpeername()[0]))
        elif event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self._at_proxy = False
            self._tell(Phase.CONNECTED)
        elif event.endswith((".receive_response_headers.complete", ".setup_socks5_connection.complete")):
            self._at_proxy = False  # the answer to CONNECT: what comes next, TLS at first, is the mirror's

    def _answered(self, response: "httpx.Response") -> Fetched[bytes | None]:
        """The list in a response that is no redirect."""
        etag, modified = (_validator(response.headers.get(name, "")) for name in ("etag", "last-modified"))
        fresh = Validators(etag, _past(modified, response.headers.get("date", "")))
        status = response.status_code
        if status == HTTPStatus.NOT_MODIFIED and self._validators != Validators():
            # RFC 9110 section 15.4.5: it repeats what a 200 would have said, and may leave out Last-Modified.
            had = self._validators
            return Fetched(
                None, self.source, Validators(fresh.etag or had.etag, fresh.last_modified or had.last_modified)
            )
        if status != HTTPStatus.OK:
            unasked = " to a request without condition" if status == HTTPStatus.NOT_MODIFIED else ""
            raise FailedError(f"{_status(status)}{unasked}")
        self._tell(Phase.HEADERS)
        length = response.headers.get("content-length", "")
        total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if total is not None and total > self._options.max_bytes:
            raise self._too_large()
        body = Body(response.headers.get("content-encoding", ""), self._options.max_bytes)
        received = 0
        for chunk in response.iter_raw():
            received += len(chunk)
            if received > self._options.max_bytes or not body.feed(chunk):
                raise self._too_large()
            self._received(received, total)
        return Fetched(body.complete(), self.source, fresh)

    def _explained(self, error: "httpx.HTTPError") -> str:
        """An error of httpx in the words of the system, where one is behind it, and whose fault it is."""
        import httpx

        if isinstance(error, httpx.ConnectTimeout):
            return self._no_connection
        if isinstance(error, httpx.TimeoutException):
            return self._not_complete if self._phase is Phase.HEADERS else self._no_headers
        if isinstance(error, httpx.ProxyError):
            return f"the proxy refused: {error}"
        whose = f"the proxy {masked_proxy(self._proxy)}: " if self._at_proxy else ""
        return f"{whose}{self._reason(error)}"

    @staticmethod
    def _reason(error: "httpx.HTTPError") -> str:
        import ssl

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = clock_hint(time.time()) if cause.verify_code in _OUT_OF_TIME else ""
            return f"the certificate is not accepted: {cause.verify_message}{hint}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        return str(error).rstrip(".") or type(error).__name__


def clock_hint(now: float) -> str:
    """What to say of this host's clock where a certificate is not valid at ``now``, seconds since 1970."""
    date = time.strftime("%Y-%m-%d", time.gmtime(now))
    if now < OLDEST_CLOCK:
        return f"; this host's clock says {date}, which is wrong; set it (date, or NTP)"
    return f"; if {date} is not today's date, set this host's clock"


def _redirect(response: "httpx.Response", seen: set[str]) -> "httpx.Request":
    """The request that a redirect asks for; its URL is put among those ``seen``.

    :raises FailedError: it is one that is not made.
    """
    request = response.next_request
    assert request is not None
    target = str(request.url.copy_with(fragment=None))
    if request.url.scheme not in ("http", "https"):
        raise FailedError(f"redirected to {shown(target)}, which is not an http(s) URL")
    if response.url.scheme == "https" and request.url.scheme == "http":
        raise FailedError(f"redirected from https to {shown(target)}; a redirect to http is not followed")
    if target in seen:
        raise FailedError(f"redirected in a loop, again to {shown(target)}")
    seen.add(target)
    return request


def _path(source: str) -> bytes | str:
    """The path that a ``file:`` URL (RFC 8089) or a plain path names.

    :raises FailedError: it is a URL of another kind, or of a file on another host.
    """
    if source[:5].lower() == "file:":
        rest = source[5:]
        if rest.startswith("//"):
            host, _, rest = rest[2:].partition("/")
            if host.lower() not in ("", "localhost"):
                raise FailedError("a file on another host cannot be read; use file:///PATH")
            rest = f"/{rest}"
        if not rest.startswith("/"):
            raise FailedError("the path is not absolute; use file:///PATH")
        path: bytes | str = unquote_to_bytes(rest)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise FailedError("neither http(s) nor file:; use an http(s) URL, a file: URL or a path")
    else:
        path = source
    if b"\0" in os.fsencode(path):
        raise FailedError("the path has a NUL byte; remove it")
    return path


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise FailedError("a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise FailedError("not a regular file")


def _status(code: int) -> str:
    """A status in the standard's own words; the server's own words are not trusted."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _validator(value: str) -> str:
    """A validator that can be kept and sent back, or the empty text."""
    return value if len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable() else ""


def _past(modified: str, sent: str = "") -> str:
    """A Last-Modified, or the empty text where it is later than ``sent``, the answer's Date (without one: than now).
    It would be later than any future change, and the list would never be fetched again (RFC 9110 section 8.8.2.1)."""
    if not modified:
        return ""
    from email.utils import mktime_tz, parsedate_tz

    date, clock = parsedate_tz(modified), parsedate_tz(sent)
    if not date:
        return modified  # no date at all, which a server may compare as a text
    try:
        return modified if mktime_tz(date) <= (mktime_tz(clock) if clock else time.time()) else ""
    except (ValueError, OverflowError):  # of a year that there is not
        return ""
