"""What was at a place of ours before, and is nobody's but its owner's: copied below ``/var/lib/gfwtools/before``.

``/etc/dnsmasq.d/gfwlist.conf`` may be one of gfwlist2dnsmasq.sh, or written by hand.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gfwtools import store
from gfwtools.config import Paths
from gfwtools.errors import StoreError
from gfwtools.render.header import WRITTEN
from gfwtools.state import read_state

__all__ = ["copy_of", "folder", "give_back", "keep", "keep_data", "says_so"]


def folder(paths: Paths) -> Path:
    """Where all copies are."""
    return paths.state_dir / "before"


def copy_of(paths: Paths, place: Path) -> Path:
    """Where the copy of ``place`` (with the root) is, or would be."""
    return folder(paths) / place.relative_to(paths.root)


def keep(paths: Paths, places: Iterable[Path]) -> list[str]:
    """Copy those of the ``places`` outside our own folders whose files we have not written.

    :returns: what was copied, in words.
    :raises StoreError: it cannot be.
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
    told = []
    for place in others:
        if place not in written:  # else it is ours and damaged
            copy = copy_of(paths, place)
            _copy(place, copy)
            told.append(f"{place}: not written by gfwtools; it is replaced, kept as {copy}, and back after a teardown")
    return told


def keep_data(paths: Paths, place: Path, data: bytes, mode: int) -> Path:
    """Keep ``data``, which was at ``place`` once.

    :raises StoreError: it cannot be.
    """
    copy = copy_of(paths, place)
    store.write_all({copy: data}, mode)
    return copy


def give_back(paths: Paths, place: Path) -> bool:
    """Put the copy of ``place`` back, where there is one.

    :raises StoreError: it cannot be; the copy stays.
    """
    copy = copy_of(paths, place)
    if not os.path.lexists(copy):
        return False
    _copy(copy, place)
    with suppress(OSError):  # what is left there is of other places
        copy.unlink()
        for above in copy.relative_to(paths.state_dir).parents[:-1]:
            (paths.state_dir / above).rmdir()
    return True


def says_so(place: Path) -> bool:
    """Whether the file says that it is ours."""
    if place.is_symlink():
        return False
    data = store.read(place)
    return data is not None and WRITTEN.encode() in data[:400]


def _copy(source: Path, target: Path) -> None:
    """A file with its mode and owner, or a link as it stands."""
    try:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            store.make_folder(target.parent)
            store.put_link(target, os.readlink(source))
        else:
            store.write_all({target: store.read(source) or b""}, stat.S_IMODE(status.st_mode))
        if os.geteuid() == 0:
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError as error:
        raise StoreError(f"{source}: cannot be kept as {target}: {error.strerror}") from None
