"""The note that the plumbing was taken down by hand: cron and the events of the host leave it down.

The note lies in /run, so that a reboot removes it: what brings the plumbing up at boot does so then.
"""

from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.storage import atomic

__all__ = ["forget", "is_noted", "note"]

_TEXT = b"The plumbing was taken down by `gfwtools down`. It stays down until `gfwtools up` or the next boot.\n"


def _path(paths: Paths) -> Path:
    return paths.at("/run/gfwtools/down")


def note(paths: Paths) -> None:
    """:raises StoreError: it cannot be written."""
    atomic.write_all({_path(paths): _TEXT})


def is_noted(paths: Paths) -> bool:
    """Whether the plumbing was taken down by hand, and not brought up since."""
    return _path(paths).exists()


def forget(paths: Paths) -> None:
    """:raises StoreError: it cannot be removed."""
    atomic.remove([_path(paths)])
