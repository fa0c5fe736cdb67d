"""Where teardown leaves files that it could not put back."""

from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.storage import atomic

__all__ = ["copy_of", "folder", "keep_data"]


def folder(paths: Paths) -> Path:
    """The folder where teardown leaves files that it could not put back, for their owner."""
    return paths.at("/var/lib/gfwtools/before")


def copy_of(paths: Paths, place: Path) -> Path:
    """The path of such a file, by its ``place`` (with the root)."""
    return folder(paths) / place.relative_to(paths.root)


def keep_data(paths: Paths, place: Path, data: bytes, mode: int) -> Path:
    """Leave ``data``, which was at ``place`` before, for its owner.

    :raises StoreError: it cannot be written.
    """
    copy = copy_of(paths, place)
    atomic.write_all({copy: data}, mode)
    return copy
