"""Drawing on a terminal: a progress bar, and the alternate screen."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import IO, Any, Protocol
from unicodedata import combining, east_asian_width

import click

__all__ = ["Advance", "can_redraw", "cells", "has_colours", "progress", "screen", "shorten"]

#: Seconds between two redraws of the bar.
REDRAW = 0.1
#: Columns of a label at most, and of the bar itself.
LABEL = 30
SHORTEST, LONGEST = 8, 30
#: What stands around label, bar and figures (columns): "  [", "]  ", the time that is left ("11d 02:03:04") and the
#: last column, which stays free as a terminal may wrap there.
AROUND = 21
# ECMA-48 and xterm's private modes.
ERASE, SHOW_CURSOR, HIDE_CURSOR = "\r\x1b[K", "\x1b[?25h", "\x1b[?25l"
OTHER_SCREEN, FIRST_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


class Advance(Protocol):
    """Records the progress of some work. Any thread may call it. It neither draws nor waits."""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Record ``done`` of ``total`` (None: not known) for ``label``, which is printable."""


def can_redraw(stream: IO[Any]) -> bool:
    """Whether ``stream`` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def has_colours(stream: IO[Any]) -> bool:
    """Whether ``stream`` is a terminal whose user wants colours (no-color.org)."""
    return can_redraw(stream) and not os.environ.get("NO_COLOR")


@contextmanager
def screen() -> Iterator[None]:
    """Show the terminal's alternate screen without a cursor. The first screen comes back at the end."""
    click.echo(OTHER_SCREEN + HIDE_CURSOR, nl=False)
    try:
        yield
    finally:
        click.echo(SHOW_CURSOR + FIRST_SCREEN, nl=False)


@contextmanager
def progress(figures: Callable[[int, int | None], str], *, quiet: bool) -> Iterator[Advance | None]:
    """Show a bar on standard error and remove it at the end. Yields None where that is not a terminal, as with cron.

    :param figures: ``done`` and ``total`` in words.
    """
    if quiet or not can_redraw(sys.stderr):
        yield None
        return
    latest = _Latest()
    over = threading.Event()
    thread = threading.Thread(target=_draw, args=(latest, over, figures), name="progress", daemon=True)
    thread.start()
    try:
        yield latest
    finally:
        over.set()
        thread.join()


class _Latest:
    """How far the work is. A thread of its own draws it, so that a terminal that is stopped (Ctrl-S) or gone neither
    holds the work up nor fails it.
    """

    def __init__(self) -> None:
        self.value: tuple[str, int, int | None] | None = None

    def __call__(self, label: str, done: int, total: int | None) -> None:
        self.value = (label, done, total)


def _draw(latest: _Latest, over: threading.Event, figures: Callable[[int, int | None], str]) -> None:
    """Draw until it is over, and once more, then remove the bar."""
    bar = None
    with suppress(OSError):
        while True:
            last = over.wait(REDRAW)
            if latest.value:
                label, done, total = latest.value
                room = os.get_terminal_size(sys.stderr.fileno()).columns or 80
                room -= AROUND + len(figures(total or done, total))
                label = shorten(label, min(LABEL, room - SHORTEST))
                if bar is None or (bar.label, bar.length) != (label, total) or done < bar.pos:
                    click.echo(ERASE, err=True, nl=False)
                    bar = click.progressbar(
                        count(),  # of no known length, where the total is not known
                        length=total,
                        label=label,
                        bar_template="%(label)s  [%(bar)s]  %(info)s",
                        show_percent=False,
                        item_show_func=lambda done, total=total: None if done is None else figures(done, total),
                        width=min(LONGEST, room - cells(label)),
                        file=sys.stderr,
                    )
                if label:  # a terminal of 40 columns is too narrow for a large bar
                    bar.update(done - bar.pos, done)
            if last:
                break
        if bar:
            click.echo(ERASE + SHOW_CURSOR, err=True, nl=False)


def cells(text: str) -> int:
    """How many columns a printable text takes: a Chinese character takes two (UAX #11), a combining one none."""
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def shorten(text: str, columns: int) -> str:
    """The beginning of ``text``, at most ``columns`` wide."""
    while text and cells(text) > columns:
        text = text[:-1]
    return text
