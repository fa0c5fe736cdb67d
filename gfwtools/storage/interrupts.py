"""Holds back Ctrl-C and the other polite signals while work that failed is taken back.

A roll-back that is itself interrupted would leave the host half set up.
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
    """Holds signals back. Within :meth:`interruptible` the first one comes through, and the rest wait::

        with Held() as held:
            try:
                with held.interruptible():
                    ...  # may be interrupted
            except BaseException:
                ...  # takes it back, and is not interrupted
                raise

    So no signal between the work and the roll-back can skip the roll-back. A signal that has waited is delivered at the
    end, unless an error ends the work already. Instances may be nested: a signal that waits on the outside waits on the
    inside, too. Signals that are ignored, or that have no handler, are left alone.

    The signals are not blocked (sigprocmask(2)): a dnsmasq that is started meanwhile would keep them blocked.
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
    def interruptible(self) -> Iterator[None]:
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
