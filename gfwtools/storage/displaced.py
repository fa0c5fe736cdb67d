"""What is at a place of ours and is not ours: ``/etc/dnsmasq.d/gfwlist.conf`` may be one of gfwlist2dnsmasq.sh."""

import os
from collections.abc import Iterable
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.render.header import WRITTEN
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state

__all__ = ["copy_of", "folder", "keep_data", "not_ours", "says_so"]


def not_ours(paths: Paths, places: Iterable[Path]) -> list[Path]:
    """Those of the ``places`` outside our own folders whose files we have not written.

    :raises StoreError: one cannot be read.
    """
    others = [
        place
        for place in places
        if paths.etc not in place.parents
        and paths.state_dir not in place.parents
        and os.path.lexists(place)
        and not says_so(place)
    ]
    if not others:
        return []
    written = {paths.at(path) for policy in read_state(paths.state).policies.values() for path in policy.in_place}
    return [place for place in others if place not in written]  # else it is ours and damaged


def says_so(place: Path) -> bool:
    """Whether the file says that it is ours."""
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and WRITTEN.encode() in data[:400]


def folder(paths: Paths) -> Path:
    """Where teardown leaves files for their owner, which it could not put back."""
    return paths.state_dir / "before"


def copy_of(paths: Paths, place: Path) -> Path:
    """Where such a file of ``place`` (with the root) is."""
    return folder(paths) / place.relative_to(paths.root)


def keep_data(paths: Paths, place: Path, data: bytes, mode: int) -> Path:
    """Leave ``data``, which was at ``place`` once, for its owner.

    :raises StoreError: it cannot be.
    """
    copy = copy_of(paths, place)
    atomic.write_all({copy: data}, mode)
    return copy
