"""Files at our places that are not ours: gfwlist2dnsmasq.sh may have written ``/etc/dnsmasq.d/gfwlist.conf``."""

import os
from collections.abc import Iterable
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.render.header import WRITTEN
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state

__all__ = ["copy_of", "folder", "has_header", "keep_data", "not_ours"]


def not_ours(paths: Paths, places: Iterable[Path]) -> list[Path]:
    """The ``places`` outside our own folders whose files gfwtools has not written.

    :raises StoreError: one cannot be read.
    """
    others = [
        place
        for place in places
        if paths.etc not in place.parents
        and paths.state_dir not in place.parents
        and os.path.lexists(place)
        and not has_header(place)
    ]
    if not others:
        return []
    written = {paths.at(path) for policy in read_state(paths.state).policies.values() for path in policy.in_place}
    return [place for place in others if place not in written]  # else it is ours and damaged


def has_header(place: Path) -> bool:
    """Whether the file has the header that marks it as ours."""
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and WRITTEN.encode() in data[:400]


def folder(paths: Paths) -> Path:
    """The folder where teardown leaves files that it could not put back, for their owner."""
    return paths.state_dir / "before"


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
