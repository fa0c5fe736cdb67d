"""A terminal of a given size that a program writes to."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def terminal(columns: int, rows: int = 24) -> Iterator[tuple[int, int]]:
    """Our end and the program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        for end in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(end)


def environment(**values: str) -> dict[str, str]:
    """That of a person at an xterm."""
    usual = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**usual, "TERM": "xterm", **values}


def written(argv: Sequence[str], columns: int, *, code: int | None = 0, **values: str) -> str:
    """All that ``python argv...`` writes to a terminal by its two outputs; the exit code must be ``code`` unless None."""
    with terminal(columns) as (ours, theirs):
        child = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=environment(**values),
        )
        os.close(theirs)
        octets = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(ours, 65536):
                octets += block
        assert child.wait(timeout=60) == code or code is None, octets
    return octets.decode()


def without_controls(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text)
