"""Fetching, against servers that misbehave; times are a tenth or less of the defaults."""

import gzip
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from unittest.mock import patch

import pytest
from faults import (
    Authority,
    Behaviour,
    Exchange,
    HttpProxy,
    Mute,
    Server,
    SocksProxy,
    bomb,
    close_in_body,
    continue_for_ever,
    drip,
    drip_headers,
    endless,
    good,
    hang_after_headers,
    hang_before_headers,
    hang_until_hung_up,
    hang_within_headers,
    html,
    raw,
    redirect,
    redirect_chain,
    refused,
    routes,
    sequence,
    status,
    unreachable,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st

from gfwtools._version import __version__
from gfwtools.config.model import Fetch
from gfwtools.errors import FetchError, ListError
from gfwtools.fetch.body import Body
from gfwtools.fetch.mirror import MAX_REDIRECTS, MAX_VALIDATOR, clock_hint
from gfwtools.fetch.proxy import environment_proxy
from gfwtools.fetch.race import fetch, hedges
from gfwtools.fetch.values import Fetched, Validators

LIST = b"||example.org\n"
OTHER = b"||example.net\n"
QUICK = Fetch(timeout=1.0, connect_timeout=0.4, hedge=0.15, max_bytes=1024 * 1024)
#: For the tests in which nothing may be late: only a failure moves on, and none is because the machine was busy.
PATIENT = Fetch(timeout=20.0, connect_timeout=10.0, hedge=15.0, max_bytes=1024 * 1024)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine's is used."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test. Before they do, which would free it, every mirror's thread has ended."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Server(*arguments))
        deadline = time.monotonic() + 3
        while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch ")]:
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that the machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path / "authority.pem")))
    return authority


Serve = Callable[..., Server]


def nothing_to_say(data: bytes) -> None:
    """Accept whatever it is."""


def answer(source: str, options: Fetch = PATIENT, accept: Callable[[bytes], None] = nothing_to_say) -> str:
    """What a source that fails is said to have answered."""
    with pytest.raises(FetchError) as caught:
        fetch([source], options, accept=accept)
    message = str(caught.value)
    assert message.isprintable()
    prefix = f"no source gave a list: {source}: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


class Clock:
    """A clock that goes on when :func:`fetch` waits for a moment, and nothing has come meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        #: Seconds in which whatever comes by itself has come, so that nothing but the clock is waited for.
        self.settled = 0.5

    def passed(self, action: Callable[[], object]) -> float:
        """The seconds that went by for ``action``."""
        began = self.now
        action()
        return round(self.now - began, 3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    class Queue(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            assert timeout is not None
            try:
                return super().get(timeout=min(timeout, made.settled))
            except Empty:
                made.now += timeout
                raise

    monkeypatch.setattr("gfwtools.fetch.race.SimpleQueue", Queue)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


# ---------------------------------------------------------------- order and hedging


def test_the_first_mirror_that_answers_wins_and_no_other_is_asked(serve: Serve) -> None:
    first, second = serve(good(LIST)), serve(good(OTHER))
    assert fetch([first.url, second.url], PATIENT) == Fetched(LIST, first.url, Validators())
    assert not second.requests


def test_a_request_says_who_asks_and_takes_gzip_only(serve: Serve) -> None:
    server = serve(good(LIST))
    fetch([server.url], PATIENT)
    headers = server.requests[0].headers
    assert headers["user-agent"] == f"gfwtools/{__version__}"
    assert headers["accept-encoding"] == "gzip"
    assert "if-none-match" not in headers
    assert "if-modified-since" not in headers


@pytest.mark.parametrize("silence", [hang_before_headers(), hang_within_headers(), drip_headers(0.05)])
def test_beside_a_mirror_without_headers_the_next_is_asked_after_the_hedge(serve: Serve, silence: Behaviour) -> None:
    first, second = serve(silence), serve(good(OTHER))
    assert fetch([first.url, second.url], QUICK).source == second.url
    assert first.requests


def test_within_the_hedge_a_silent_mirror_has_its_chance(serve: Serve) -> None:
    first, second = serve(good(LIST, delay=0.5)), serve(good(OTHER))
    assert fetch([first.url, second.url], PATIENT).source == first.url
    assert not second.requests


def test_a_failure_moves_on_at_once(serve: Serve) -> None:
    first, second = serve(status("404 Not Found")), serve(good(LIST))
    # With such a hedge nothing but the failure can have moved on.
    assert fetch([first.url, second.url], PATIENT._replace(hedge=3600)).source == second.url
    assert first.requests


def test_a_mirror_that_has_sent_headers_is_waited_for(serve: Serve) -> None:
    # The headers come long before the hedge is over, and the last byte long after it.
    first, second = serve(drip(LIST, every=0.2)), serve(good(OTHER))
    assert len(LIST) * 0.2 > 1.5
    assert fetch([first.url, second.url], PATIENT._replace(hedge=1.5)).data == LIST
    assert not second.requests


def test_a_late_answer_still_wins_where_the_others_have_none(serve: Serve) -> None:
    first, second = serve(good(LIST, delay=0.5)), serve(hang_before_headers())
    assert fetch([first.url, second.url], QUICK._replace(timeout=10)).source == first.url
    assert len(second.requests) == 1


def test_the_failure_of_a_hedged_mirror_asks_no_third_while_the_second_answers(serve: Serve, clock: Clock) -> None:
    first_failed = threading.Event()

    def until_the_first_has_failed(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(OTHER))
        while clock.now < began + 3:
            if exchange.hang(0.01):
                return
        first_failed.set()
        exchange.send(OTHER)

    slow, third = serve(until_the_first_has_failed), serve(good(LIST))
    began = clock.now
    with unreachable() as first:
        assert fetch([first, slow.url, third.url], Fetch()).source == slow.url
    assert first_failed.is_set()
    assert not third.requests


def test_a_failure_moves_on_at_once_beside_a_silent_mirror_as_well(serve: Serve) -> None:
    # The first one answers after one hedge and before a second one would be over: the third has answered by then.
    silent, missing, third = serve(good(OTHER, delay=2.8)), serve(status("404 Not Found")), serve(good(LIST))
    sources = [silent.url, missing.url, third.url]
    assert fetch(sources, PATIENT._replace(hedge=1.5)).source == third.url
    assert missing.requests


def test_with_hedge_zero_all_mirrors_are_asked_at_once(serve: Serve) -> None:
    all_asked = threading.Barrier(4)

    def together(exchange: Exchange) -> None:
        all_asked.wait(PATIENT.timeout)
        good(LIST)(exchange)

    servers = [serve(together) for _ in range(4)]
    assert fetch([server.url for server in servers], PATIENT._replace(hedge=0)).data == LIST


def test_a_mirror_that_lost_is_hung_up(serve: Serve) -> None:
    silent, mirror = serve(hang_until_hung_up()), serve(good(LIST))
    fetch([silent.url, mirror.url], PATIENT._replace(hedge=0.1))
    assert silent.broken.wait(3)


def test_a_mirror_that_lost_before_it_was_connected_is_asked_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, mirror = serve(hang_before_headers()), serve(good(LIST))
    over = threading.Event()
    resolve = socket.getaddrinfo

    def hang(host: object, *arguments: Any, **keywords: Any) -> Any:
        if host == "slow.example":
            over.wait(30)
        return resolve("127.0.0.1", *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    slow = silent.url.replace("127.0.0.1", "slow.example")
    try:
        assert fetch([slow, mirror.url], PATIENT._replace(hedge=0.1)).source == mirror.url
    finally:
        over.set()  # it connects now, and its thread must end all the same (see serve)
    time.sleep(0.1)
    assert not silent.requests


def test_a_mirror_that_lost_while_its_body_came_is_hung_up(serve: Serve) -> None:
    def late_and_endless(exchange: Exchange) -> None:
        if not exchange.hang(0.3):
            endless()(exchange)

    lost, mirror = serve(late_and_endless), serve(good(LIST, delay=0.4))
    assert fetch([lost.url, mirror.url], PATIENT._replace(hedge=0.1, max_bytes=2**40)).source == mirror.url
    assert lost.broken.wait(3)


def test_of_mirrors_under_way_together_the_first_complete_one_wins(serve: Serve) -> None:
    def late_and_slow(exchange: Exchange) -> None:
        if not exchange.hang(0.2):
            drip(LIST, every=0.3)(exchange)

    slow, quick = serve(late_and_slow), serve(good(OTHER, delay=0.4))
    assert fetch([slow.url, quick.url], PATIENT._replace(hedge=0.1)).source == quick.url


def test_a_mirror_that_failed_once_is_good_the_next_time(serve: Serve) -> None:
    server = serve(sequence(status("503 Service Unavailable"), good(LIST)))
    assert answer(server.url) == "503 Service Unavailable"
    assert fetch([server.url], PATIENT).data == LIST


# ---------------------------------------------------------------- what is accepted


def test_a_mirror_whose_body_is_no_list_has_failed_and_the_next_wins(serve: Serve) -> None:
    def accept(data: bytes) -> None:
        if data.startswith(b"<"):
            raise ListError("this is a web page")

    portal, mirror = serve(html()), serve(good(LIST))
    assert fetch([portal.url, mirror.url], PATIENT, accept=accept).source == mirror.url
    assert answer(portal.url, accept=accept) == "this is a web page"


def test_what_accept_makes_of_a_body_in_the_callers_thread_is_returned(serve: Serve) -> None:
    fetched = fetch([serve(good(LIST)).url], PATIENT, accept=lambda data: (len(data), threading.get_ident()))
    assert fetched.data == (len(LIST), threading.get_ident())


def test_a_mistake_in_accept_is_not_taken_for_the_mirrors(serve: Serve) -> None:
    def accept(data: bytes) -> None:
        raise ZeroDivisionError

    first, second = serve(good(LIST)), serve(good(LIST))
    with pytest.raises(ZeroDivisionError):
        fetch([first.url, second.url], PATIENT, accept=accept)
    assert not second.requests


def test_a_list_that_came_in_time_is_taken_although_accepting_another_took_long(serve: Serve) -> None:
    def accept(data: bytes) -> None:
        if data == LIST:
            time.sleep(0.7)
            raise ListError("not this one")

    first, second = serve(good(LIST, delay=0.25)), serve(good(OTHER, delay=0.25))
    assert fetch([first.url, second.url], QUICK._replace(timeout=0.6), accept=accept).source == second.url


def test_a_list_that_came_too_late_is_not_taken_because_accepting_another_took_long(serve: Serve) -> None:
    def accept(data: bytes) -> None:
        if data == LIST:
            time.sleep(1.2)
            raise ListError("not this one")

    first, second = serve(good(LIST, delay=0.25)), serve(drip(OTHER, every=0.06))
    with pytest.raises(FetchError, match=r"not this one; .*: not complete within 0\.6 s"):
        fetch([first.url, second.url], QUICK._replace(timeout=0.6), accept=accept)


# ---------------------------------------------------------------- errors


def test_an_error_names_every_source_and_what_it_answered_in_one_line(serve: Serve) -> None:
    missing = serve(status("404 Not Found"))
    with refused() as closed, unreachable() as dead, pytest.raises(FetchError) as caught:
        fetch([missing.url, closed, dead, "/no/such/file"], QUICK)
    assert str(caught.value) == (
        f"no source gave a list: {missing.url}: 404 Not Found; {closed}: Connection refused; "
        f"{dead}: no connection within 0.4 s; /no/such/file: No such file or directory"
    )


def test_without_a_source_there_is_no_list() -> None:
    with pytest.raises(FetchError, match="there is no source"):
        fetch([], PATIENT)


@pytest.mark.parametrize("line", ["204 No Content", "206 Partial Content", "302 Found", "404 Not Found", "500 Oops"])
def test_only_a_200_is_a_list(serve: Serve, line: str) -> None:
    said = answer(serve(status(line, b"" if line.startswith("204") else LIST)).url)
    assert said == line.replace("Oops", "Internal Server Error")


@pytest.mark.parametrize(
    "hostile",
    [
        b"HTTP/1.1 404 \x1b[31mred\x07\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 299 \x1b[31mred\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: \x1b[31mred\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://\x1b[31mred/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://a:b@[\r\nContent-Length: 0\r\n\r\n",
        b"\x1b[31mSSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n\x1b[31m\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"",
    ],
)
def test_an_error_has_no_control_characters_of_the_network_and_an_end(serve: Serve, hostile: bytes) -> None:
    assert 0 < len(answer(serve(raw(hostile)).url)) <= 240


def test_the_message_of_accept_is_cleaned_as_well(serve: Serve) -> None:
    def accept(data: bytes) -> None:
        raise ListError("line\none\x1b[31m \u202e" + "x" * 1000)

    assert answer(serve(good(LIST)).url, accept=accept).startswith("line one?[31m ?xxx")


def test_an_error_does_not_tell_the_password_of_a_url(serve: Serve) -> None:
    server = serve(status("401 Unauthorized"))
    with pytest.raises(FetchError) as caught:
        fetch([server.url.replace("//", "//me:s3cret@")], PATIENT)
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert "s3cret" not in str(caught.value)
    assert "//***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("source", ["http://", "http://[", "http://a b/", f"http://{'a' * 70}.example/", "https://:0/"])
def test_a_url_that_is_none_is_the_failure_of_that_source_alone(serve: Serve, source: str) -> None:
    server = serve(good(LIST))
    assert fetch([source, server.url], PATIENT).source == server.url


def test_a_mirror_for_which_there_is_no_thread_has_failed_and_one_under_way_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if "none.example" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    server = serve(good(LIST))
    monkeypatch.setattr(threading.Thread, "start", fail)
    none = "http://none.example/l"
    assert answer(none) == "not enough memory, or too many processes, for a thread"
    assert fetch([none, server.url], PATIENT).source == server.url


def test_a_body_for_which_there_is_no_memory_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_bytes(LIST)
    monkeypatch.setattr("gfwtools.fetch.mirror.BytesIO", lambda: (_ for _ in ()).throw(MemoryError))
    assert answer(str(tmp_path / "list")) == "not enough memory"


# ---------------------------------------------------------------- time limits


def test_a_connection_that_hangs_is_given_up_at_the_connect_limit(clock: Clock) -> None:
    said = []
    with unreachable() as source:
        assert clock.passed(lambda: said.append(answer(source, PATIENT))) == PATIENT.connect_timeout
    assert said == ["no connection within 10 s"]


def test_a_tls_handshake_that_hangs_counts_as_connecting() -> None:
    with Mute() as mute:
        assert answer(mute.url("https"), QUICK) == "no connection within 0.4 s"


def test_a_resolver_that_hangs_counts_as_connecting(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    over = threading.Event()

    def hang(*arguments: object, **keywords: object) -> None:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert clock.passed(lambda: answer("https://mirror.example/list")) == PATIENT.connect_timeout
    finally:
        over.set()


def test_a_name_that_does_not_resolve_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert answer("https://mirror.example/list") == "Name or service not known"


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_hangs_counts_as_connecting(scheme: str) -> None:
    with Mute() as mute:
        options = QUICK._replace(proxy=f"{scheme}://127.0.0.1:{mute.port}")
        assert answer("https://mirror.example/list", options) == "no connection through the proxy within 0.4 s"


@pytest.mark.parametrize(
    ("first", "waits"),
    [(2.0, [2, 1, 0.5, 0.25, 0.25, 0.25]), (0.3, [0.3, 0.25, 0.25]), (0.1, [0.1, 0.1, 0.1]), (0.0, [0, 0, 0])],
)
def test_with_each_silent_mirror_the_hedge_halves_down_to_a_quarter_of_a_second(
    first: float, waits: list[float]
) -> None:
    assert list(islice(hedges(first), len(waits))) == waits


def test_behind_five_mirrors_that_drop_all_packets_the_sixth_is_asked_after_4_s(serve: Serve, clock: Clock) -> None:
    clock.settled = 1.0
    asked_at = []

    def note(exchange: Exchange) -> None:
        asked_at.append(clock.now)
        good(LIST)(exchange)

    began, sixth = clock.now, serve(note)
    with ExitStack() as stack:
        dead = [stack.enter_context(unreachable()) for _ in range(5)]
        assert fetch([*dead, sixth.url], Fetch()).source == sixth.url
    assert [at - began for at in asked_at] == [4.0]


def test_a_mirror_that_refuses_leaves_the_hedge_of_the_next_one_as_it_was(clock: Clock) -> None:
    clock.settled = 0.2
    with unreachable() as silent, refused() as refusing, unreachable() as last:

        def nothing() -> None:
            with pytest.raises(FetchError):
                fetch([refusing, refusing, silent, last], Fetch())

        assert clock.passed(nothing) == 2 + 3


def test_six_mirrors_that_drop_every_packet_take_five_hedges_and_one_connect_limit(clock: Clock) -> None:
    clock.settled = 0.05  # nothing comes
    with ExitStack() as stack:
        sources = [stack.enter_context(unreachable()) for _ in range(6)]

        def nothing() -> None:
            with pytest.raises(FetchError):
                fetch(sources, Fetch())

        assert clock.passed(nothing) == 2 + 1 + 0.5 + 0.25 + 0.25 + 3


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (hang_before_headers(), "no answer within 20 s"),
        (hang_within_headers(), "no answer within 20 s"),
        (drip_headers(0.1), "no answer within 20 s"),
        (continue_for_ever(), "no answer within 20 s"),
        (hang_after_headers(), "not complete within 20 s"),
        (drip(LIST * 100, every=0.1), "not complete within 20 s"),
        (endless(), "not complete within 20 s"),
    ],
    ids=["before", "within", "drip-headers", "continue", "after", "drip", "endless"],
)
def test_whatever_hangs_is_cut_off_at_the_total_limit(
    serve: Serve, clock: Clock, behaviour: Behaviour, said: str
) -> None:
    server, answers = serve(behaviour), []
    options = PATIENT._replace(max_bytes=2**40)
    assert clock.passed(lambda: answers.append(answer(server.url, options))) == PATIENT.timeout
    assert answers == [said]


def test_the_total_limit_counts_over_redirects(serve: Serve, clock: Clock) -> None:
    def late(exchange: Exchange) -> None:
        clock.now += 9  # not yet the limit, each time
        redirect_chain(9, good(LIST))(exchange)

    server = serve(late)
    assert answer(server.url) == "no answer within 20 s"
    assert len(server.requests) < 9


@pytest.mark.parametrize("hang", ["server", "resolver"])
def test_a_mirror_that_hangs_does_not_hold_the_exit_of_the_process(serve: Serve, hang: str) -> None:
    silent, mirror = serve(hang_before_headers()), serve(good(LIST))
    script = f"""
        import socket, sys, time
        from gfwtools.config.model import Fetch
        from gfwtools.fetch.race import fetch
        real = socket.getaddrinfo
        def resolve(host, *rest, **more):
            if host == "hangs.example":
                time.sleep(60)
            return real(host, *rest, **more)
        socket.getaddrinfo = resolve
        first = {silent.url!r} if {hang!r} == "server" else "http://hangs.example/"
        fetched = fetch([first, {mirror.url!r}], Fetch(timeout=50, connect_timeout=40, hedge=0.1))
        print(fetched.source, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=15
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, mirror.url, "")


# ---------------------------------------------------------------- bodies


def test_a_body_that_is_shorter_than_promised_is_a_failure(serve: Serve) -> None:
    assert "without sending complete message body" in answer(serve(close_in_body(LIST, 3)).url)


def test_a_chunked_body_without_its_last_chunk_is_a_failure(serve: Serve) -> None:
    server = serve(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n||exa\r\n"))
    assert "without sending complete message body" in answer(server.url)


def test_a_server_that_closes_without_a_word_is_a_failure(serve: Serve) -> None:
    assert answer(serve(raw(b"")).url) == "Server disconnected without sending a response"


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
def test_a_compressed_body_is_unpacked(serve: Serve, coding: str) -> None:
    body = LIST * 70_000  # several blocks
    assert fetch([serve(zipped(body, coding=coding)).url], PATIENT).data == body


def test_a_gzip_body_may_have_several_members(serve: Serve) -> None:
    data = gzip.compress(LIST) + gzip.compress(b"") + gzip.compress(OTHER)
    assert fetch([serve(status("200 OK", data, "Content-Encoding: gzip")).url], PATIENT).data == LIST + OTHER


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_gzip_body_that_is_cut_short_is_a_failure(serve: Serve, cut: int) -> None:
    assert answer(serve(zipped(LIST * 100, cut=cut)).url) == "the compressed data is cut short"


def test_an_empty_body_that_is_called_gzip_is_a_failure(serve: Serve) -> None:
    assert answer(serve(status("200 OK", b"", "Content-Encoding: gzip")).url) == "the compressed data is cut short"


def test_a_body_that_is_no_gzip_and_says_so_is_a_failure(serve: Serve) -> None:
    assert answer(serve(status("200 OK", LIST, "Content-Encoding: gzip")).url).startswith("the compressed data is brok")


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_a_coding_that_was_not_asked_for_is_a_failure(serve: Serve, coding: str) -> None:
    said = answer(serve(status("200 OK", LIST, f"Content-Encoding: {coding}")).url)
    assert said == f"Content-Encoding '{coding}' was not asked for"


@given(
    body=st.binary(max_size=2000),
    members=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=9),
    block=st.integers(1, 600),
)
def test_a_compressed_body_comes_out_whole_however_it_is_cut(
    body: bytes, members: int, sizes: list[int], block: int
) -> None:
    data = gzip.compress(body) * members
    inflated = Body("gzip", len(body) * members)
    chunk_sizes = cycle(sizes)
    at = 0
    with patch("gfwtools.fetch.body.BLOCK", block):
        while at < len(data):
            size = next(chunk_sizes)
            assert inflated.feed(data[at : at + size])
            at += size
    assert inflated.complete() == body * members


# ---------------------------------------------------------------- sizes

TOO_LARGE = "larger than fetch.max_bytes, 1048576 bytes"


def test_a_body_of_just_the_limit_is_taken_and_one_octet_more_is_not(serve: Serve) -> None:
    limit = QUICK.max_bytes
    for behaviour in (good, zipped):
        assert len(fetch([serve(behaviour(b"x" * limit)).url], PATIENT).data or b"") == limit
        assert answer(serve(behaviour(b"x" * (limit + 1))).url) == TOO_LARGE


def test_a_content_length_above_the_limit_is_refused_at_once(serve: Serve) -> None:
    def promise(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n")
        exchange.hang()

    server = serve(promise)
    assert answer(server.url) == TOO_LARGE  # and not that it was not complete within the limit


def test_a_body_without_end_is_cut_off_at_the_limit(serve: Serve) -> None:
    server = serve(endless())
    assert answer(server.url) == TOO_LARGE
    assert server.broken.wait(3)


def test_the_limit_counts_before_content_decoding_as_well(serve: Serve) -> None:
    empty = gzip.compress(b"") * 60_000  # more than the limit as it travels, and nothing once unpacked
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{len(empty):x}\r\n"
    assert answer(serve(raw(head.encode() + empty + b"\r\n0\r\n\r\n")).url) == TOO_LARGE


def test_a_gzip_bomb_is_refused_at_the_limit_with_bounded_memory(serve: Serve) -> None:
    server = serve(bomb(64 * 1024 * 1024))
    fetch([serve(good(LIST)).url], PATIENT)  # the imports are not what is measured
    tracemalloc.start()
    try:
        assert answer(server.url) == TOO_LARGE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


# ---------------------------------------------------------------- validators


def test_validators_are_kept_and_a_304_says_that_the_list_is_current(serve: Serve) -> None:
    server = serve(good(LIST, etag='W/"a1"', last_modified="Thu, 06 Aug 2026 01:02:03 GMT"))
    first = fetch([server.url], PATIENT)
    assert first.validators == Validators('W/"a1"', "Thu, 06 Aug 2026 01:02:03 GMT")
    accepted: list[bytes] = []
    again = fetch([server.url], PATIENT, validators={server.url: first.validators}, accept=accepted.append)
    assert again == Fetched(None, server.url, first.validators)
    assert not accepted
    headers = server.requests[1].headers
    assert headers["if-none-match"] == 'W/"a1"'
    assert headers["if-modified-since"] == "Thu, 06 Aug 2026 01:02:03 GMT"


def test_a_304_may_bring_a_newer_validator_and_leave_one_out(serve: Serve) -> None:
    server = serve(raw(b'HTTP/1.1 304 Not Modified\r\nETag: "2"\r\n\r\n'))
    held = Validators('"1"', "Thu, 06 Aug 2026 01:02:03 GMT")
    fetched = fetch([server.url], PATIENT, validators={server.url: held})
    assert fetched == Fetched(None, server.url, held._replace(etag='"2"'))


def test_a_date_alone_is_validator_enough(serve: Serve) -> None:
    server = serve(good(LIST, last_modified="Thu, 06 Aug 2026 01:02:03 GMT"))
    held = fetch([server.url], PATIENT).validators
    assert fetch([server.url], PATIENT, validators={server.url: held}).data is None


def test_a_list_that_changed_is_fetched_anew(serve: Serve) -> None:
    server = serve(good(LIST, etag='"2"'))
    fetched = fetch([server.url], PATIENT, validators={server.url: Validators('"1"')})
    assert fetched == Fetched(LIST, server.url, Validators('"2"'))


def test_a_validator_goes_to_its_own_mirror_only(serve: Serve) -> None:
    first, second = serve(status("500 Oops")), serve(good(LIST, etag='"1"'))
    fetched = fetch([first.url, second.url], PATIENT, validators={first.url: Validators('"1"')})
    assert fetched.data == LIST
    assert first.requests[0].headers["if-none-match"] == '"1"'
    assert "if-none-match" not in second.requests[0].headers


def test_a_304_that_was_not_asked_for_is_a_failure(serve: Serve) -> None:
    server = serve(raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"))
    assert answer(server.url) == "304 Not Modified to a request without condition"


@pytest.mark.parametrize("bad", ['"' + "x" * MAX_VALIDATOR + '"', '"\x1b[31m"', '"\xe9"'])
def test_a_validator_that_cannot_be_kept_is_left_out(serve: Serve, bad: str) -> None:
    server = serve(status("200 OK", LIST, f"ETag: {bad}", f"Last-Modified: {bad}"))
    assert fetch([server.url], PATIENT).validators == Validators()


@pytest.mark.parametrize(
    ("modified", "told", "kept"),
    [
        ("Thu, 06 Aug 2020 01:02:03 GMT", "Thu, 06 Aug 2020 01:02:03 GMT", True),
        ("Thu, 06 Aug 2020 01:02:04 GMT", "Thu, 06 Aug 2020 01:02:03 GMT", False),
        ("Thu, 06 Aug 2099 01:02:03 GMT", "", False),
        ("Thu, 06 Aug 2020 01:02:03 GMT", "", True),
        ("Thu, 06 Aug 2099 01:02:03 GMT", "no date", False),
        ("Thu, 06 Aug 99999 01:02:03 GMT", "", False),
        ("no date", "Thu, 06 Aug 2020 01:02:03 GMT", True),
    ],
)
def test_a_date_later_than_the_answer_itself_is_not_kept(serve: Serve, modified: str, told: str, kept: bool) -> None:
    dates = [f"Last-Modified: {modified}", *([f"Date: {told}"] if told else [])]
    server = serve(status("200 OK", LIST, *dates))
    assert fetch([server.url], PATIENT).validators == Validators("", modified if kept else "")


def test_a_date_of_the_future_that_was_kept_once_is_not_sent(serve: Serve) -> None:
    server = serve(good(LIST))
    held = Validators('"1"', "Thu, 06 Aug 2099 01:02:03 GMT")
    assert fetch([server.url], PATIENT, validators={server.url: held}).data == LIST
    assert "if-modified-since" not in server.requests[0].headers
    assert server.requests[0].headers["if-none-match"] == '"1"'


def test_a_validator_with_a_newline_is_not_sent(serve: Serve) -> None:
    server = serve(good(LIST))
    assert fetch([server.url], PATIENT, validators={server.url: Validators('"1"\r\nX-Evil: 1')}).data == LIST
    assert "x-evil" not in server.requests[0].headers


# ---------------------------------------------------------------- redirects


def test_redirects_are_followed_and_the_source_keeps_its_name(serve: Serve) -> None:
    server = serve(redirect_chain(MAX_REDIRECTS, good(LIST, etag='"1"')))
    assert fetch([server.url], PATIENT) == Fetched(LIST, server.url, Validators('"1"'))


def test_a_redirect_may_lead_to_another_server(serve: Serve) -> None:
    other = serve(good(LIST))
    assert fetch([serve(redirect(other.url, "308 Permanent Redirect")).url], PATIENT).data == LIST


def test_more_redirects_than_five_are_a_failure(serve: Serve) -> None:
    server = serve(redirect_chain(MAX_REDIRECTS + 1, good(LIST)))
    assert answer(server.url) == "more than 5 redirects"
    assert len(server.requests) == MAX_REDIRECTS + 1


def test_a_redirect_loop_is_said_to_be_one(serve: Serve) -> None:
    server = serve(routes(list=redirect("/a"), a=redirect("/b"), b=redirect("/list#again")))
    assert answer(server.url) == f"redirected in a loop, again to {server.url}"
    assert len(server.requests) == 3


def test_a_redirect_from_https_to_http_is_not_followed(serve: Serve, trusted: Authority) -> None:
    plain = serve(good(LIST))
    secure = serve(redirect(plain.url), trusted.good())
    said = answer(secure.url)
    assert said == f"redirected from https to {plain.url}; a redirect to http is not followed"
    assert not plain.requests


def test_a_redirect_from_http_to_https_is_followed(serve: Serve, trusted: Authority) -> None:
    secure = serve(good(LIST), trusted.good())
    assert fetch([serve(redirect(secure.url)).url], PATIENT).data == LIST


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_http_only(serve: Serve, target: str) -> None:
    assert "not an http(s) URL" in answer(serve(redirect(target)).url)


def test_the_connect_limit_holds_again_after_a_redirect(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    options = QUICK._replace(timeout=10)
    with unreachable() as dead:
        assert answer(serve(redirect(dead)).url, options) == "no connection within 0.4 s"
    over = threading.Event()
    resolve = socket.getaddrinfo

    def hang(host: object, *arguments: Any, **keywords: Any) -> Any:
        if host == "hangs.example":
            over.wait(30)
        return resolve("127.0.0.1", *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert answer(serve(redirect("http://hangs.example:9/")).url, options) == "no connection within 0.4 s"
    finally:
        over.set()


# ---------------------------------------------------------------- TLS


def test_a_certificate_of_a_trusted_authority_is_accepted(serve: Serve, trusted: Authority) -> None:
    assert fetch([serve(good(LIST), trusted.good()).url], PATIENT).data == LIST


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("self_signed", "self-signed certificate"),
        ("unknown", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("not_yet_valid", "certificate is not yet valid"),
        ("of_another_name", "IP address mismatch"),
    ],
)
def test_any_other_certificate_is_not_accepted(serve: Serve, trusted: Authority, kind: str, said: str) -> None:
    server = serve(good(LIST), getattr(trusted, kind)())
    got = answer(server.url)
    assert got.startswith("the certificate is not accepted: ")
    assert said in got
    assert not server.requests
    assert fetch([server.url], PATIENT, verify=False).data == LIST  # what -i of the shell script asks for


@pytest.mark.parametrize("kind", ["expired", "not_yet_valid"])
def test_a_certificate_out_of_its_time_has_the_hosts_clock_beside_it(
    serve: Serve, trusted: Authority, kind: str
) -> None:
    before = time.strftime("%Y-%m-%d", time.gmtime())
    said = answer(serve(good(LIST), getattr(trusted, kind)()).url)
    after = time.strftime("%Y-%m-%d", time.gmtime())
    assert said.endswith(tuple(f"if {day} is not today's date, set this host's clock" for day in (before, after)))


@pytest.mark.parametrize(("now", "date"), [(0, "1970-01-01"), (1_577_836_800, "2020-01-01")])
def test_a_clock_that_is_years_behind_is_called_wrong(now: float, date: str) -> None:
    assert f"this host's clock says {date}, which is wrong; set it" in clock_hint(now)


def test_a_certificate_refused_for_another_reason_says_nothing_of_the_clock(serve: Serve, trusted: Authority) -> None:
    assert "clock" not in answer(serve(good(LIST), trusted.unknown()).url)


def test_plain_http_on_the_port_of_https_is_a_failure(serve: Serve) -> None:
    server = serve(good(LIST))
    assert answer(server.url.replace("http:", "https:"), QUICK).startswith(("TLS failed", "no connection"))


def test_trusted_certificates_that_cannot_be_read_are_no_crash(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    (tmp_path / "list").write_bytes(LIST)
    assert fetch(["https://mirror.example/", str(tmp_path / "list")], PATIENT).source == str(tmp_path / "list")
    assert answer("https://mirror.example/").startswith("the trusted certificates cannot be read: ")
    assert answer(serve(redirect("https://mirror.example/")).url).startswith("the trusted certificates cannot be read")


def test_plain_http_needs_no_certificates(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    assert fetch([serve(good(LIST)).url], PATIENT).data == LIST


def test_a_redirect_from_http_to_https_is_verified(serve: Serve, trusted: Authority) -> None:
    secure = serve(good(LIST), trusted.unknown())
    assert answer(serve(redirect(secure.url)).url).startswith("the certificate is not accepted: ")
    assert not secure.requests


def test_a_redirect_may_set_a_cookie_that_the_next_one_wants(serve: Serve) -> None:
    first = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nSet-Cookie: seen=1\r\nContent-Length: 0\r\n\r\n"
    server = serve(routes(list=raw(first), b=redirect("/c"), c=good(LIST)))
    assert fetch([server.url], PATIENT).data == LIST
    assert [request.headers.get("cookie") for request in server.requests] == [None, "seen=1", "seen=1"]


# ---------------------------------------------------------------- proxies


def test_an_http_proxy_is_asked_for_http(serve: Serve) -> None:
    server = serve(good(LIST))
    with HttpProxy() as proxy:
        assert fetch([server.url], PATIENT._replace(proxy=proxy.url)).data == LIST
    assert proxy.asked == [server.url.removeprefix("http://").removesuffix("/list")]


def test_an_http_proxy_is_asked_for_a_tunnel_for_https(serve: Serve, trusted: Authority) -> None:
    server = serve(good(LIST), trusted.good())
    with HttpProxy() as proxy:
        assert fetch([server.url], PATIENT._replace(proxy=proxy.url)).data == LIST
    assert proxy.asked == [server.url.removeprefix("https://").removesuffix("/list")]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_resolves_the_names(serve: Serve, trusted: Authority, scheme: str) -> None:
    server = serve(good(LIST), trusted.good())
    with SocksProxy() as proxy:
        url = server.url.replace("127.0.0.1", "localhost")
        assert fetch([url], PATIENT._replace(proxy=proxy.url.replace("socks5", scheme))).data == LIST
    assert proxy.asked == [url.removeprefix("https://").removesuffix("/list")]


def test_a_proxy_that_refuses_is_named_as_such() -> None:
    with HttpProxy(refuse="403 Forbidden") as proxy:
        said = answer("https://mirror.example/list", PATIENT._replace(proxy=proxy.url))
    assert said == "the proxy refused: 403 Forbidden"


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h", "https"])
@pytest.mark.parametrize("mirror", ["http", "https"])
def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(scheme: str, mirror: str) -> None:
    with refused() as closed:
        place = closed.removeprefix("http://").partition("/")[0]
        said = answer(f"{mirror}://mirror.example/list", PATIENT._replace(proxy=f"{scheme}://me:SECRET@{place}"))
    assert said == f"the proxy {scheme}://***@{place}: Connection refused"


def test_a_proxy_of_the_environment_whose_name_is_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **keywords: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert answer("https://mirror.example/list") == "the proxy http://proxy.invalid:3128: Name or service not known"


def test_what_fails_behind_a_proxy_is_the_mirrors_fault(serve: Serve, authority: Authority) -> None:
    server = serve(good(LIST), authority.good())  # which nobody trusts
    with HttpProxy() as http, SocksProxy() as socks:
        for proxy in (http, socks):
            said = answer(server.url, PATIENT._replace(proxy=proxy.url))
            assert said.startswith("the certificate is not accepted: ")
            assert proxy.asked


def test_the_proxies_of_the_environment_count(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good(LIST))
    with HttpProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        fetch([server.url], PATIENT)
        assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetch([server.url], PATIENT)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    "odd", ["fe80::/10", "[::1]", "[fe80::1%eth0]", "localhost:*", "例子.example", "http://[", "a:b"]
)
def test_an_odd_entry_of_no_proxy_stops_no_mirror_and_the_others_count(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    server = serve(good(LIST))
    monkeypatch.setenv("no_proxy", f"{odd},mirror.example")
    assert fetch([server.url], PATIENT).data == LIST
    with HttpProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert fetch([server.url], PATIENT).data == LIST
        assert len(proxy.asked) == 1
        monkeypatch.setenv("no_proxy", f"{odd},127.0.0.1")
        assert fetch([server.url], PATIENT).data == LIST
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("entries", "url", "spared"),
    [
        ("", "https://mirror.example", False),
        ("*", "https://mirror.example", True),
        ("other.example, *", "https://mirror.example", True),
        ("mirror.example", "https://mirror.example", True),
        ("EXAMPLE", "https://mirror.example.", True),
        (".mirror.example", "https://a.mirror.example", True),
        ("*.mirror.example", "https://a.mirror.example", True),
        ("irror.example", "https://mirror.example", False),
        ("例子.cn", "https://xn--fsqu00a.cn", True),
        ("mirror.example:443", "https://mirror.example", True),
        ("mirror.example:443", "http://mirror.example", False),
        ("mirror.example:*", "http://mirror.example", True),
        ("http://mirror.example", "http://mirror.example", True),
        ("http://mirror.example", "https://mirror.example", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3:80", "http://10.1.2.3", True),
        ("10.1.2.3:81", "http://10.1.2.3", False),
        ("3", "http://10.1.2.3", False),
        ("fe80::/10", "http://[fe80::1]", True),
        ("[fe80::]/10", "http://[fe80::1]", True),
        ("::1", "http://[::1]", True),
        ("[::1]:80", "http://[::1]", True),
        ("[::1]:81", "http://[::1]", False),
    ],
)
def test_no_proxy_is_read_as_curl_reads_it(
    monkeypatch: pytest.MonkeyPatch, entries: str, url: str, spared: bool
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", entries)
    scheme, _, host = url.partition("://")
    port = 443 if scheme == "https" else 80
    assert environment_proxy(scheme, host.strip("[]"), port) == ("" if spared else "http://proxy.example:3128")


def test_the_proxy_of_a_scheme_goes_before_the_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.example:3128/")
    monkeypatch.setenv("HTTPS_PROXY", "http://other.example")
    assert environment_proxy("http", "mirror.example", 80) == "http://proxy.example:3128"
    assert environment_proxy("https", "mirror.example", 443) == "http://other.example"


def test_a_socks_proxy_of_the_environment_may_be_written_as_gnome_does(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(good(LIST))
    with SocksProxy() as proxy:
        monkeypatch.setenv("all_proxy", f"socks://127.0.0.1:{proxy.port}/")
        assert fetch([server.url], PATIENT).data == LIST
    assert proxy.asked == [server.url.removeprefix("http://").removesuffix("/list")]


@pytest.mark.parametrize("name", ["all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize(
    "value", ["socks4://me:SEC/RET@10.0.0.1:1080", "me:SECRET@10.0.0.1:x", "http://me:SECRET@[::1"]
)
def test_a_variable_that_names_no_proxy_is_named_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = answer("https://mirror.example/list")
    assert said.startswith(f"the environment variable {name}: '")
    assert said.endswith(" is not a proxy; use http://HOST:PORT or socks5://HOST:PORT")
    assert "SEC" not in said


def test_the_configured_proxy_goes_before_that_of_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(good(LIST))
    with HttpProxy() as ours, HttpProxy() as theirs:
        monkeypatch.setenv("http_proxy", theirs.url)
        fetch([server.url], PATIENT._replace(proxy=ours.url))
    assert (len(ours.asked), len(theirs.asked)) == (1, 0)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "file://localhost{}", "FILE://LOCALHOST{}"])
def test_a_file_is_a_source(tmp_path: Path, form: str) -> None:
    path = tmp_path / "list"
    path.write_bytes(LIST)
    source = form.format(path)
    assert fetch([source], QUICK) == Fetched(LIST, source, Validators())


def test_a_file_url_is_percent_decoded_and_a_path_is_not(tmp_path: Path) -> None:
    for name, form in (("a b\u00fc?#", "file://{}/a%20b%C3%BC%3F%23"), ("a%20b", "{}/a%20b")):
        (tmp_path / name).write_bytes(LIST)
        assert fetch([form.format(tmp_path)], QUICK).data == LIST


def test_mirrors_and_files_are_one_order(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(OTHER)
    missing = serve(status("404 Not Found"))
    assert fetch([str(tmp_path / "none"), missing.url, str(tmp_path / "list")], PATIENT).data == OTHER


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("/no/such/file", "No such file or directory"),
        ("file:///no/such/file", "No such file or directory"),
        ("/etc", "a directory, not a file"),
        ("/dev/zero", "not a regular file"),
        ("file://server/share/list", "a file on another host cannot be read; use file:///PATH"),
        ("file:list", "the path is not absolute; use file:///PATH"),
        ("file:///a%00b", "the path has a NUL byte; remove it"),
        ("ftp://a/list", "neither http(s) nor file:; use an http(s) URL, a file: URL or a path"),
    ],
)
def test_a_source_that_is_no_file_says_why(source: str, said: str) -> None:
    assert answer(source, QUICK) == said


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(path)])
def test_a_fifo_or_a_socket_is_refused_and_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make("it")
    assert answer(str(tmp_path / "it")) == "not a regular file"  # and not that it gave no answer within the limit


def test_a_file_that_becomes_a_fifo_between_the_look_and_the_opening_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "it")
    look = os.stat

    def look_before_the_change(path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        return look(__file__ if path == str(tmp_path / "it") else path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", look_before_the_change)
    assert answer(str(tmp_path / "it")) == "not a regular file"


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "list").open("wb") as file:
        file.truncate(QUICK.max_bytes + 1)
    assert answer(str(tmp_path / "list")) == TOO_LARGE


def test_a_file_whose_size_is_not_told_is_measured_as_it_is_read() -> None:
    assert fetch(["/proc/self/status"], PATIENT).data
    assert answer("/proc/self/status", PATIENT._replace(max_bytes=100)) == "larger than fetch.max_bytes, 100 bytes"


def test_a_newline_in_a_path_is_none_in_the_error() -> None:
    with pytest.raises(FetchError) as caught:
        fetch(["/no\nsuch\x1bfile"], QUICK)
    assert str(caught.value) == "no source gave a list: /no such?file: No such file or directory"


def test_a_file_is_read_without_httpx(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LIST)
    script = f"""
        import sys
        from gfwtools.config.model import Fetch
        from gfwtools.fetch.race import fetch
        assert fetch([{str(tmp_path / "list")!r}, "https://mirror.example/"], Fetch()).data
        print(sorted({{"httpx", "httpcore", "ssl", "anyio", "asyncio"}} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_httpx_is_imported_without_its_command_line(serve: Serve) -> None:
    script = f"""
        import sys
        from importlib.util import find_spec
        from gfwtools.config.model import Fetch
        from gfwtools.fetch.race import fetch
        assert fetch([{serve(good(LIST)).url!r}], Fetch()).data
        print(sorted({{"httpx._main", "click", "pygments", "rich"}} & set(sys.modules)))
        assert find_spec("httpx._main")  # whoever wants it later has it
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# ---------------------------------------------------------------- progress


def test_progress_is_told_in_octets_as_they_travel(serve: Serve, tmp_path: Path) -> None:
    body = os.urandom(300_000)
    told: list[tuple[str, int, int | None]] = []
    (tmp_path / "list").write_bytes(body)
    server, packed = serve(good(body)), serve(zipped(b"x" * 100_000))
    for source in (server.url, packed.url, str(tmp_path / "list")):
        told.clear()
        fetch([source], PATIENT, progress=lambda *now: told.append(now))
        assert {name for name, _, _ in told} == {source}
        assert [received for _, received, _ in told] == sorted(received for _, received, _ in told)
        _, received, total = told[-1]
        assert received == total
        assert (total == len(body)) == (source != packed.url)


def test_progress_without_a_content_length_has_no_total(serve: Serve) -> None:
    told: list[int | None] = []
    server = serve(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n||a.b\r\n0\r\n\r\n"))
    fetch([server.url], PATIENT, progress=lambda source, received, total: told.append(total))
    assert told == [None]


def test_a_mirror_that_lost_tells_no_more_progress(serve: Serve) -> None:
    """Its socket still holds octets that came before it was hung up."""
    told: list[str] = []
    over = threading.Event()

    def progress(source: str, received: int, total: int | None) -> None:
        told.append(source)
        if source == lost.url:
            over.wait(10)

    def late_and_endless(exchange: Exchange) -> None:
        if not exchange.hang(0.3):
            endless()(exchange)

    lost, mirror = serve(late_and_endless), serve(good(LIST, delay=0.6))
    fetch([lost.url, mirror.url], PATIENT._replace(hedge=0.1, max_bytes=2**40), progress=progress)
    before = told.count(lost.url)
    over.set()
    assert lost.broken.wait(3)
    assert (before, told.count(lost.url)) == (1, 1)
