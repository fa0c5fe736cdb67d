"""What was at a place of ours before, and is nobody's but its owner's: copied below ``/var/lib/gfwtools/before``.

``/etc/dnsmasq.d/gfwlist.conf`` may be one of gfwlist2dnsmasq.sh, or written by hand.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.errors import StoreError
from gfwtools.render.header import WRITTEN
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state

__all__ = ["copy_of", "folder", "give_back", "keep", "keep_data", "says_so"]


def folder(paths: Paths) -> Path:
    """Where all copies are."""
    return paths.state_dir / "before"


def copy_of(paths: Paths, place: Path) -> Path:
    """Where the copy of ``place`` (with the root) is, or would be."""
    return folder(paths) / place.relative_to(paths.root)


@contextmanager
def keep(paths: Paths, places: Iterable[Path]) -> Iterator[list[str]]:
    """Copy those of the ``places`` outside our own folders whose files we have not written; gives what was copied, in
    words. When what is done within fails, and ours are not in place, neither is any copy.

    :raises StoreError: it cannot be copied.
    """
    others = _not_ours(paths, places)
    copies = {place: copy_of(paths, place) for place in others}
    new = [place for place, copy in copies.items() if not os.path.lexists(copy)]
    try:
        for place, copy in copies.items():
            _copy(place, copy)
        yield [
            f"{place}: not written by gfwtools; it is replaced, kept as {copy}, and back after a teardown"
            for place, copy in copies.items()
        ]
    except BaseException:  # Ctrl-C and SIGTERM, too
        for place in new:
            with suppress(OSError, StoreError):  # the copy stays, which loses nothing
                if not os.path.lexists(copies[place]) or _same(place, copies[place]):
                    _forget(paths, copies[place])
                elif not says_so(place):  # a link, of which the roll-back knows the content at most
                    give_back(paths, place)
        raise


def _not_ours(paths: Paths, places: Iterable[Path]) -> list[Path]:
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


def keep_data(paths: Paths, place: Path, data: bytes, mode: int) -> Path:
    """Keep ``data``, which was at ``place`` once.

    :raises StoreError: it cannot be.
    """
    copy = copy_of(paths, place)
    atomic.write_all({copy: data}, mode)
    return copy


def give_back(paths: Paths, place: Path) -> bool:
    """Put the copy of ``place`` back, where there is one.

    :raises StoreError: it cannot be; the copy stays.
    """
    copy = copy_of(paths, place)
    if not os.path.lexists(copy):
        return False
    _copy(copy, place)
    _forget(paths, copy)
    return True


def says_so(place: Path) -> bool:
    """Whether the file says that it is ours."""
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and WRITTEN.encode() in data[:400]


def _same(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    return atomic.read(one) == atomic.read(other)


def _forget(paths: Paths, copy: Path) -> None:
    """Remove a copy and the folders that nothing else is in."""
    with suppress(OSError):  # what is left there is of other places
        copy.unlink(missing_ok=True)
        for above in copy.relative_to(paths.state_dir).parents[:-1]:
            with suppress(FileNotFoundError):
                (paths.state_dir / above).rmdir()


def _copy(source: Path, target: Path) -> None:
    """A file with its mode and owner, or a link as it stands."""
    try:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            atomic.make_folder(target.parent)
            atomic.put_link(target, os.readlink(source))
        else:
            atomic.write_all({target: atomic.read(source) or b""}, stat.S_IMODE(status.st_mode))
        if os.geteuid() == 0:
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError as error:
        raise StoreError(f"{source}: cannot be kept as {target}: {error.strerror}") from None
