"""The mirrors of one list -> its bytes: asked in order, hedged, each within its limits; the first valid list wins.

Where a mirror is blocked its packets vanish rather than being refused, so a silent mirror must not hold up the others:
the next is asked beside it. Each mirror has a daemon thread with an HTTP client of its own. Blocking calls can then be
left behind whatever they hang in, getaddrinfo() on a dead resolver included, which nothing can interrupt; the thread
that called :func:`fetch` keeps the clock of all of them and never waits longer than their limits.
"""

import os
import re
import stat
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from importlib import import_module
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from urllib.parse import unquote_to_bytes

from gfwtools._version import __version__
from gfwtools.config.model import Fetch
from gfwtools.config.userinfo import masked, masked_proxy
from gfwtools.errors import FetchError, GfwtoolsError

if TYPE_CHECKING:
    import socket
    import ssl

    import httpx

__all__ = ["Fetched", "Progress", "Validators", "fetch"]

MAX_REDIRECTS = 5
#: A validator is kept in state.json and sent back, so it is not let in at any length (octets).
MAX_VALIDATOR = 256
#: What one source says in an error at most (characters); the text may be the network's.
MAX_ANSWER = 240
#: How much is read from a file, or decompressed, at a time (octets).
BLOCK = 256 * 1024


class Validators(NamedTuple):
    """What a source says of its version, as it wrote it (RFC 9110 section 8.8); empty where it says nothing."""

    etag: str = ""
    last_modified: str = ""


class Fetched(NamedTuple):
    """What the winning source gave."""

    data: bytes | None
    """The body without its content coding; None: the source answered 304, what we have is current."""
    source: str
    """The source as it stands in the sources given."""
    validators: Validators
    """To be given to :func:`fetch` the next time, under the same source."""


class Progress(Protocol):
    """Told from worker threads how far a source is."""

    def __call__(self, source: str, received: int, total: int | None) -> None:
        """``received`` octets of ``total`` (None: not known) have come, as they travel: before content decoding."""


def fetch(
    sources: Sequence[str],
    options: Fetch,
    *,
    validators: Mapping[str, Validators] = {},
    accept: Callable[[bytes], object] = (lambda data: None),
    progress: Progress | None = None,
    verify: bool = True,
) -> Fetched:
    """The first complete and valid list of ``sources``: http(s) and ``file:`` URLs, and paths.

    A source is asked when the one before it has failed, or has sent no headers for ``options.hedge`` seconds.
    Connecting (resolver, proxy and TLS included) may take ``options.connect_timeout`` seconds, again after each
    redirect, and the whole of it ``options.timeout``. The body may have ``options.max_bytes`` octets, before and after
    content decoding.

    :param validators: source -> what it said of its version when it gave the list that the caller has.
    :param accept: called in this thread with a complete body; it raises a :class:`GfwtoolsError` when that is no valid
        list. The source has then failed, and the others go on.
    :param verify: False: any certificate will do. Only for ``gfwlist2dnsmasq -i``.
    :raises FetchError: no source gave a list; one line says what each of them answered.
    """
    events: SimpleQueue[tuple[_Mirror, _Event]] = SimpleQueue()
    authorities = _Authorities(verify)
    waiting = deque(sources)
    asked: list[_Mirror] = []

    def ask_next() -> None:
        source = waiting.popleft()
        asked.append(_Mirror(source, options, validators.get(source, Validators()), authorities, progress, events))
        asked[-1].start()

    try:
        while waiting or any(mirror.running for mirror in asked):
            if not asked or (waiting and not asked[-1].running):
                ask_next()
                continue
            moments = [mirror.limit for mirror in asked if mirror.running]
            if waiting and asked[-1].silent:
                moments.append(asked[-1].started + options.hedge)
            try:
                # What has been told counts before what is late: accept() may have taken its time.
                mirror, event = events.get(timeout=max(0.0, min(moments) - time.monotonic()))
            except Empty:
                now = time.monotonic()
                for mirror in asked:
                    if mirror.running and now >= mirror.limit:
                        mirror.fail(mirror.lateness)
                if waiting and asked[-1].silent and now >= asked[-1].started + options.hedge:
                    ask_next()
                continue
            if not mirror.running:
                continue  # it was given up before it told us
            if isinstance(event, _Phase):
                mirror.enter(event)
            elif isinstance(event, _Failed):
                mirror.fail(str(event))
            else:
                try:
                    if event.data is not None:
                        accept(event.data)
                except GfwtoolsError as error:
                    mirror.fail(str(error))
                else:
                    return event
    finally:
        for mirror in asked:
            mirror.cancel()
    answers = "; ".join(f"{_shown(mirror.source)}: {_printable(mirror.answer)}" for mirror in asked)
    told = tuple(_printable(mirror.answer) for mirror in asked)
    raise FetchError(f"no source gave a list: {answers or 'there is no source'}", told)


class _Failed(Exception):
    """Why a source gave no list."""


class _Phase(Enum):
    """How far a source is; told by its thread."""

    CONNECTING = 1
    CONNECTED = 2
    HEADERS = 3


_Event = _Phase | _Failed | Fetched


def _import_httpx() -> None:
    """Import httpx without its command line, which it brings along wherever click and rich are installed: 40 ms of 90.

    A module that is None in ``sys.modules`` cannot be imported (the Python reference, "The module cache"), and httpx is
    made to do without this one.
    """
    modules = cast("dict[str, object]", sys.modules)
    if "httpx" in modules:
        return
    modules["httpx._main"] = None
    try:
        import_module("httpx")
        import_module("httpcore")  # httpx imports it with its first client, when the mirror's time has begun
    finally:
        modules.pop("httpx._main", None)  # another thread may have been as fast


class _Authorities:
    """Whom TLS trusts, made once for all mirrors: to read the certificates of the authorities takes 30 ms."""

    def __init__(self, verify: bool) -> None:
        self._verify = verify
        self._lock = threading.Lock()  # a redirect from http to https is met by a worker
        self._contexts: dict[str, ssl.SSLContext] = {}

    def context(self, scheme: str) -> "ssl.SSLContext":
        """What to reach a URL of ``scheme`` with.

        :raises _Failed: the certificates cannot be read.
        """
        with self._lock:
            if scheme not in self._contexts:
                self._contexts[scheme] = self._trusted() if scheme == "https" else self._nobody()
            return self._contexts[scheme]

    def _trusted(self) -> "ssl.SSLContext":
        import httpx

        try:
            return httpx.create_ssl_context(verify=self._verify)
        except OSError as error:  # SSL_CERT_FILE names no file of certificates
            raise _Failed(f"the trusted certificates cannot be read: {error.strerror or error}") from None

    @staticmethod
    def _nobody() -> "ssl.SSLContext":
        """httpx wants one for http as well: were TLS ever spoken with this one, that would fail."""
        import ssl

        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Mirror:
    """A source that is asked: its thread, and what the thread that keeps the clock knows of it."""

    def __init__(
        self,
        source: str,
        options: Fetch,
        validators: Validators,
        authorities: _Authorities,
        progress: Progress | None,
        events: "SimpleQueue[tuple[_Mirror, _Event]]",
    ) -> None:
        self.source = source
        self.answer = ""
        self.running = True
        self.started = time.monotonic()
        scheme = re.match(r"(https?)://", source, re.IGNORECASE)
        self._web = scheme[1].lower() if scheme else ""
        self._phase = _Phase.CONNECTING if self._web else _Phase.CONNECTED
        self._phase_began = self.started
        self._options = options
        self._validators = Validators(_validator(validators.etag), _past(_validator(validators.last_modified)))
        self._proxy = options.proxy  # of the request under way, where the environment may have one
        self._at_proxy = False  # whether it is still the proxy that is to blame
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
            _import_httpx()
            try:
                self._authorities.context(self._web)
            except _Failed as failure:
                self.fail(str(failure))
                return
        self.started = self._phase_began = time.monotonic()
        try:
            threading.Thread(target=self._work, name=f"fetch {_shown(self.source)}", daemon=True).start()
        except RuntimeError:  # clone(2): EAGAIN or ENOMEM, and Python does not say which
            self.fail("not enough memory, or too many processes, for a thread")

    def enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._phase_began = time.monotonic()

    def fail(self, answer: str) -> None:
        self.answer = answer
        self.cancel()

    def cancel(self) -> None:
        """Make the thread end soon, where it can be made to; it tells nothing more that counts."""
        self.running = False
        with self._lock:
            self._cancelled = True
            self._hang_up()

    @property
    def silent(self) -> bool:
        """Whether it has sent no headers (those of a redirect are no answer) and may yet."""
        return self.running and self._phase is not _Phase.HEADERS

    @property
    def limit(self) -> float:
        """The moment at which it has had its time."""
        return min(self._connect_limit, self.started + self._options.timeout)

    @property
    def lateness(self) -> str:
        """What to say of it at :attr:`limit`."""
        if self._connect_limit <= self.started + self._options.timeout:
            return self._no_connection
        return self._no_headers if self._phase is not _Phase.HEADERS else self._not_complete

    @property
    def _connect_limit(self) -> float:
        if self._phase is not _Phase.CONNECTING:
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
        outcome: _Event
        try:
            outcome = self._ask() if self._web else self._read()
        except _Failed as failure:
            outcome = failure
        except OSError as error:
            outcome = _Failed(error.strerror or str(error))
        except MemoryError:
            outcome = _Failed("not enough memory")
        except Exception as error:
            # A library's mistake on odd input is this mirror's failure, not that of the others.
            outcome = _Failed(f"{type(error).__name__}: {error}")
        finally:
            self._hold(None)
        self._tell(outcome)

    def _tell(self, event: _Event) -> None:
        self._events.put((self, event))

    def _received(self, octets: int, total: int | None) -> None:
        """Tell how far it is.

        :raises _Failed: it shall stop here. The thread that keeps the clock may be busy in accept(), so look here too.
        """
        if self._cancelled:
            raise _Failed("cancelled")
        if time.monotonic() >= self.started + self._options.timeout:
            raise _Failed(self._not_complete)
        if self._progress is not None:
            self._progress(self.source, octets, total)

    def _too_large(self) -> _Failed:
        return _Failed(f"larger than fetch.max_bytes, {self._options.max_bytes} bytes")

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

    def _read(self) -> Fetched:
        """The file that the source names.

        :raises _Failed: it names none, or one that is no regular file or too large.
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

    def _ask(self) -> Fetched:
        """What the URL gives, at the end of its redirects.

        :raises _Failed: no list; the message says what it was.
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
                self._tell(_Phase.CONNECTING)
            raise _Failed(f"more than {MAX_REDIRECTS} redirects")
        except httpx.InvalidURL as error:
            if masked(self.source) != self.source:  # what httpx says may be a piece of the password
                raise _Failed("no URL; give /, ?, # and @ of a name or password as %2F, %3F, %23 and %40") from None
            raise _Failed(f"no URL: {error}") from None
        except httpx.HTTPError as error:
            raise _Failed(self._explained(error)) from None

    def _proxy_for(self, url: "httpx.URL") -> str:
        """The configured proxy or, without one, that of the environment; empty for none.

        :raises _Failed: it is none.
        """
        import httpx

        try:
            proxy = self._options.proxy
            if not proxy:
                from gfwtools.proxies import environment_proxy

                port = url.port or (443 if url.scheme == "https" else 80)
                proxy = environment_proxy(url.scheme, url.raw_host.decode("ascii"), port)
            if proxy:
                httpx.Proxy(proxy)  # it knows more of host names than we do
        except httpx.InvalidURL as error:
            raise _Failed(f"the proxy {masked_proxy(proxy)}: no URL: {error}") from None
        except ValueError as error:
            raise _Failed(str(error)) from None
        return proxy

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Told by httpx what it does (its "trace" extension)."""
        if event.endswith(".connect_tcp.complete"):
            # The duplicate stays good when TLS takes over the descriptor, and is never one that was closed and reused.
            self._hold(info["return_value"].get_extra_info("socket").dup())
        elif event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self._at_proxy = False
            self._tell(_Phase.CONNECTED)
        elif event.endswith((".receive_response_headers.complete", ".setup_socks5_connection.complete")):
            self._at_proxy = False  # the answer to CONNECT: what comes next, TLS at first, is the mirror's

    def _answered(self, response: "httpx.Response") -> Fetched:
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
            raise _Failed(f"{_status(status)}{unasked}")
        self._tell(_Phase.HEADERS)
        length = response.headers.get("content-length", "")
        total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if total is not None and total > self._options.max_bytes:
            raise self._too_large()
        body = _Body(response.headers.get("content-encoding", ""), self._options.max_bytes)
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
            return self._not_complete if self._phase is _Phase.HEADERS else self._no_headers
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
            return f"the certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        return str(error).rstrip(".") or type(error).__name__


class _Body:
    """A body as it comes, without its content coding (RFC 9110 section 8.4.1), never larger than a limit."""

    def __init__(self, coding: str, limit: int) -> None:
        """:raises _Failed: the coding is one that was not asked for."""
        coding = coding.strip().lower()
        if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise _Failed(f"Content-Encoding {coding!r} was not asked for")
        self._limit = limit
        self._plain = BytesIO()
        self._inflater = None if coding in ("", "identity") else _inflater()

    def feed(self, data: bytes) -> bool:
        """Take what came next; False: the body is too large, and was left there.

        :raises _Failed: the compressed data is broken.
        """
        if self._inflater is None:
            self._plain.write(data)
            return self._plain.tell() <= self._limit
        while data:
            if self._inflater.eof:
                self._inflater = _inflater()  # RFC 1952 section 2.2: a gzip file is a series of members
            try:
                block = self._inflater.decompress(data, BLOCK)
            except zlib.error as error:
                raise _Failed(f"the compressed data is broken: {error}") from None
            self._plain.write(block)
            if self._plain.tell() > self._limit:
                return False
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        return True

    def complete(self) -> bytes:
        """All of it.

        :raises _Failed: the compressed data ends too early.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise _Failed("the compressed data is cut short")
        return self._plain.getvalue()


def _inflater() -> "zlib._Decompress":
    """For gzip and zlib data (HTTP's "deflate"), told apart by their first octets."""
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


def _redirect(response: "httpx.Response", seen: set[str]) -> "httpx.Request":
    """The request that a redirect asks for; its URL is put among those ``seen``.

    :raises _Failed: it is one that is not made.
    """
    request = response.next_request
    assert request is not None
    target = str(request.url.copy_with(fragment=None))
    if request.url.scheme not in ("http", "https"):
        raise _Failed(f"redirected to {_shown(target)}, which is no http(s) URL")
    if response.url.scheme == "https" and request.url.scheme == "http":
        raise _Failed(f"redirected from https to {_shown(target)}; a redirect to http is not followed")
    if target in seen:
        raise _Failed(f"redirected in a loop, again to {_shown(target)}")
    seen.add(target)
    return request


def _path(source: str) -> bytes | str:
    """The path that a ``file:`` URL (RFC 8089) or a plain path names.

    :raises _Failed: it is a URL of another kind, or of a file on another host.
    """
    if source[:5].lower() == "file:":
        rest = source[5:]
        if rest.startswith("//"):
            host, _, rest = rest[2:].partition("/")
            if host.lower() not in ("", "localhost"):
                raise _Failed("a file on another host cannot be read; give file:///PATH")
            rest = f"/{rest}"
        if not rest.startswith("/"):
            raise _Failed("the path is not absolute; give file:///PATH")
        path: bytes | str = unquote_to_bytes(rest)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        raise _Failed("neither http(s) nor file:; give an http(s) URL, a file: URL or a path")
    else:
        path = source
    if b"\0" in os.fsencode(path):
        raise _Failed("a path has no NUL in it")
    return path


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Failed("a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise _Failed("not a regular file")


def _status(code: int) -> str:
    """A status in the standard's own words; those that the server writes beside the number are anybody's."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _validator(value: str) -> str:
    """A validator that can be kept and sent back, or the empty text."""
    return value if len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable() else ""


def _past(modified: str, told: str = "") -> str:
    """A Last-Modified, or the empty text where it is later than the Date that was ``told`` with it, or else than now:
    it would be later than any change to come, and the list never be fetched again (RFC 9110 section 8.8.2.1)."""
    if not modified:
        return ""
    from email.utils import mktime_tz, parsedate_tz

    date, clock = parsedate_tz(modified), parsedate_tz(told)
    if not date:
        return modified  # no date at all, which a server may compare as a text
    try:
        return modified if mktime_tz(date) <= (mktime_tz(clock) if clock else time.time()) else ""
    except (ValueError, OverflowError):  # of a year that there is not
        return ""


def _printable(text: str) -> str:
    """One line without control or formatting characters, and of an end."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
    return text if len(text) <= MAX_ANSWER else f"{text[: MAX_ANSWER - 3]}..."


def _shown(source: str) -> str:
    """A source as an error names it: without the name and password that a URL may have."""
    return _printable(masked(source))
