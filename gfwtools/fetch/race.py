"""The mirrors of one list -> its bytes: asked in order, hedged, each within its limits; the first valid list wins.

Where a mirror is blocked its packets vanish rather than being refused, so a silent mirror must not hold up the others:
the next is asked beside it. One silent mirror may be a slow one. With each further one it is more likely that they are
blocked, so each has half as long as the one before it (:func:`hedges`).

Each mirror has a daemon thread with an HTTP client of its own. Blocking calls can then be left behind wherever they
block, even in getaddrinfo() on a dead resolver, which nothing can interrupt; the thread that called :func:`fetch` keeps
the clock of all of them and never waits longer than their limits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, overload

from gfwtools.config.model import Fetch
from gfwtools.errors import FetchError, GfwtoolsError
from gfwtools.fetch.mirror import Mirror
from gfwtools.fetch.tls import Authorities
from gfwtools.fetch.values import Event, FailedError, Fetched, Phase, Progress, Validators, printable, shown

__all__ = ["fetch", "hedges"]

T = TypeVar("T")

#: The shortest wait for a silent mirror (seconds). A mirror on the other side of the world sends its headers in three
#: round trips, DNS, TCP and TLS, of 0.1 s or less.
SHORTEST_HEDGE = 0.25


def hedges(first: float) -> Iterator[float]:
    """The seconds to wait for one silent mirror after the other: ``first``, half of it, a quarter, ... 0.25.

    A ``first`` below 0.25 stays as it is.
    """
    hedge = first
    while True:
        yield hedge
        hedge = max(hedge / 2, min(first, SHORTEST_HEDGE))


@overload
def fetch(
    sources: Sequence[str],
    options: Fetch,
    *,
    validators: Mapping[str, Validators] = {},
    progress: Progress | None = None,
    verify: bool = True,
) -> Fetched[bytes | None]: ...


@overload
def fetch(
    sources: Sequence[str],
    options: Fetch,
    *,
    validators: Mapping[str, Validators] = {},
    accept: Callable[[bytes], T],
    progress: Progress | None = None,
    verify: bool = True,
) -> Fetched[T | None]: ...


def fetch(
    sources: Sequence[str],
    options: Fetch,
    *,
    validators: Mapping[str, Validators] = {},
    accept: Callable[[bytes], object] = lambda data: data,
    progress: Progress | None = None,
    verify: bool = True,
) -> Fetched[Any]:
    """The first complete and valid list of ``sources``: http(s) and ``file:`` URLs, and paths.

    A source is asked when the one before it has failed, or has sent no headers for ``options.hedge`` seconds; after
    each silent one that time is shorter (:func:`hedges`).
    Connecting (resolver, proxy and TLS included) may take ``options.connect_timeout`` seconds, again after each
    redirect, and the whole of it ``options.timeout``. The body may have ``options.max_bytes`` octets, before and after
    content decoding.

    :param validators: source -> the version that it named with the list that the caller has.
    :param accept: called in this thread with a complete body; what it makes of it is returned. It raises a
        :class:`GfwtoolsError` when the body is not a valid list. The source has then failed, and the others continue.
    :param verify: False: any certificate is accepted. Only for ``gfwlist2dnsmasq -i``.
    :raises FetchError: no source gave a list; one line has the answer of each.
    """
    events: SimpleQueue[tuple[Mirror, Event]] = SimpleQueue()
    authorities = Authorities(verify)

    def mirror_of(source: str) -> Mirror:
        return Mirror(source, options, validators.get(source, Validators()), authorities, progress, events)

    race = _Race(sources, options.hedge, mirror_of)
    try:
        while race.is_open:
            happened = race.wait(events)
            if happened is None:
                continue
            mirror, event = happened
            if isinstance(event, Phase):
                mirror.enter(event)
            elif isinstance(event, FailedError):
                mirror.fail(str(event))
            else:
                try:
                    made = None if event.data is None else accept(event.data)
                except GfwtoolsError as error:
                    mirror.fail(str(error))
                else:
                    return Fetched(made, event.source, event.validators)
    finally:
        race.end()
    answers = "; ".join(f"{shown(mirror.source)}: {printable(mirror.answer)}" for mirror in race.asked)
    said = tuple(printable(mirror.answer) for mirror in race.asked)
    raise FetchError(f"no source gave a list: {answers or 'there is no source'}", answers=said)


class _Race:
    """The mirrors that were asked, the sources that wait, and the clock of all of them."""

    def __init__(self, sources: Sequence[str], hedge: float, mirror_of: Callable[[str], Mirror]) -> None:
        self.asked: list[Mirror] = []
        self._waiting = deque(sources)
        self._mirror_of = mirror_of
        self._patience = hedges(hedge)
        self._hedge = next(self._patience)

    @property
    def is_open(self) -> bool:
        """Whether a source can still give a list."""
        return bool(self._waiting) or any(mirror.running for mirror in self.asked)

    def wait(self, events: "SimpleQueue[tuple[Mirror, Event]]") -> tuple[Mirror, Event] | None:
        """Wait for the next event of a mirror; None where a time limit has passed before, or a mirror was asked."""
        if not self.asked or (self._waiting and not self.asked[-1].running):
            self._ask_next()
            return None
        moments = [mirror.limit for mirror in self.asked if mirror.running]
        if self._holds_up:
            moments.append(self._next_at)
        try:
            # Waiting events count before time limits: accept() may have taken long.
            mirror, event = events.get(timeout=max(0.0, min(moments) - time.monotonic()))
        except Empty:
            self._pass_limits(time.monotonic())
            return None
        return (mirror, event) if mirror.running else None  # it was given up before this event

    def end(self) -> None:
        for mirror in self.asked:
            mirror.cancel()

    @property
    def _holds_up(self) -> bool:
        """Whether the mirror that was asked last holds up a source that waits."""
        return bool(self._waiting) and self.asked[-1].silent

    @property
    def _next_at(self) -> float:
        """When the next source is asked beside the mirror that was asked last."""
        return self.asked[-1].started + self._hedge

    def _pass_limits(self, now: float) -> None:
        for mirror in self.asked:
            if mirror.running and now >= mirror.limit:
                mirror.fail(mirror.lateness)
        if self._holds_up and now >= self._next_at:
            self._hedge = next(self._patience)
            self._ask_next()

    def _ask_next(self) -> None:
        self.asked.append(self._mirror_of(self._waiting.popleft()))
        self.asked[-1].start()
