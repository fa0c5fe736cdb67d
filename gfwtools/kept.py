"""What was at a place of ours before, and is nobody's but its owner's: copied below ``/var/lib/gfwtools/before``.

``/etc/dnsmasq.d/gfwlist.conf`` may be one of gfwlist2dnsmasq.sh, or written by hand.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gfwtools import store
from gfwtools.config import Paths
from gfwtools.errors import StoreError
from gfwtools.render.header import WRITTEN

__all__ = ["copy_of", "folder", "give_back", "keep", "keep_data"]


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
    told = []
    for place in places:
        if paths.etc in place.parents or paths.state_dir in place.parents or not os.path.lexists(place):
            continue
        if not _is_ours(place):
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


def _is_ours(place: Path) -> bool:
    if place.is_symlink():
        return False
    data = store.read(place)
    return data is not None and WRITTEN.encode() in data[:400]


def _copy(source: Path, target: Path) -> None:
    """A file with its mode, times and owner, or a link as it stands, atomically."""
    import shutil  # nearly no update has anything to copy

    temporary = target.with_name(f".gfwtools-{target.name}.{os.getpid()}.tmp")
    try:
        store.make_folder(target.parent)
        shutil.copy2(source, temporary, follow_symlinks=False)
        status = source.lstat()
        if os.geteuid() == 0:
            os.chown(temporary, status.st_uid, status.st_gid, follow_symlinks=False)
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"{source}: cannot be kept as {target}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
