"""The note that the plumbing was taken down by hand: cron and the events of the host leave it down.

The note lies in /run, so that a reboot removes it: what brings the plumbing up at boot does so then.
"""

from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.storage import atomic

__all__ = ["forget", "how", "is_noted", "note"]

_DOWN, _CLOSED = "gfwtools down", "gfwtools down --closed"
_TEXT = "The plumbing was taken down by `{}`. It stays down until `gfwtools up` or the next boot.\n"


def _path(paths: Paths) -> Path:
    return paths.at("/run/gfwtools/down")


def note(paths: Paths, *, closed: bool = False) -> None:
    """:raises StoreError: it cannot be written."""
    atomic.write_all({_path(paths): _TEXT.format(_CLOSED if closed else _DOWN).encode()})


def how(paths: Paths) -> str:
    """The command that has taken it down.

    :raises StoreError: the note cannot be read.
    """
    return _CLOSED if _CLOSED.encode() in (atomic.read(_path(paths)) or b"") else _DOWN


def is_noted(paths: Paths) -> bool:
    """Whether the plumbing was taken down by hand, and not brought up since."""
    return _path(paths).exists()


def forget(paths: Paths) -> None:
    """:raises StoreError: it cannot be removed."""
    atomic.remove([_path(paths)])
