"""Ctrl-C and the other polite ends, around work that is taken back when it fails: taking it back is not interrupted.

A roll-back that is itself interrupted leaves the host half set up, which is what it is there to prevent.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["NUMBERS", "Held"]

#: Ctrl-C, a shutdown, a lost ssh session.
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Held:
    """Signals wait within, but for the part within :meth:`let`, where the first one comes through and the rest wait::

        with Held() as held:
            try:
                with held.let():
                    ...  # may be interrupted
            except BaseException:
                ...  # takes it back, and is not interrupted
                raise

    So there is no moment between the work and the roll-back at which a signal could skip the latter. One that has
    waited is delivered at the end, unless something else ends the work already. They may be nested: what waits on the
    outside waits on the inside, too. Signals that are ignored, or that nobody handles, are left alone.

    Not by blocking them (sigprocmask(2)): a dnsmasq that is started meanwhile would have them blocked for good.
    """

    def __init__(self) -> None:
        self._shut = False
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: int | None = None

    def __enter__(self) -> "Held":
        if threading.current_thread() is threading.main_thread():  # no other one has signals
            try:
                for number in NUMBERS:
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._before[number] = handler
                        signal.signal(number, self._take)
            except BaseException:  # a signal has come between the two
                self._restore()
                raise
            self._shut = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
        if self._waiting is not None and error is None:
            self._before[self._waiting](self._waiting, None)

    @contextmanager
    def let(self) -> Iterator[None]:
        """Within, the first signal comes through."""
        self._shut = False
        try:
            yield
        finally:
            self._shut = True

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._shut:
            self._waiting = number
            return
        # What it raises is the beginning of the roll-back.
        self._shut = True
        self._before[number](number, frame)
        self._shut = False

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
