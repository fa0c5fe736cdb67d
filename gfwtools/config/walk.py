"""Where a path leads below a root, with each folder opened on the way (openat(2)), as chroot(2) would find it.

A symbolic link is followed below the root: an absolute one begins at the root, and ``..`` does not lead above it. The
kernel itself would follow both out of the root.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

__all__ = ["Visited", "Way", "beneath", "walk"]

#: As many as the kernel follows in one path (path_resolution(7)).
_MOST_LINKS = 40
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Visited(NamedTuple):
    """A folder, a link or a file on the way of a path."""

    path: Path
    status: os.stat_result


class Way(NamedTuple):
    """The way of a path: the root, everything on the way, and what is there, as far as it can be seen."""

    visited: tuple[Visited, ...]
    end: Path | None
    """Where the path leads: a path without a link in it. None where there is a problem."""
    problem: OSError | None = None
    """A file is in place of a folder, links lead in a circle, or a folder cannot be entered."""


def walk(root: Path, path: str | Path, *, last: bool = True) -> Way:
    """Follow ``path`` from the root.

    A folder that becomes a link between the look at it and the step into it is a problem, and is not followed.

    :param path: an absolute path on the host; what is missing of it has no links.
    :param last: follow also a link at the path itself.
    """
    visited: list[Visited] = []
    folders: list[int] = []
    try:
        end = _step(root, _parts(path), last, visited, folders)
        return Way(tuple(visited), end)
    except OSError as error:
        return Way(tuple(visited), None, error)
    finally:
        for folder in folders:
            os.close(folder)


def _step(root: Path, left: list[str], last: bool, visited: list[Visited], folders: list[int]) -> Path:
    """Take one step after the other; ``folders`` are the descriptors of the root and of each folder on the way."""
    names: list[str] = []
    links = 0
    inside = f"{str(root.absolute()).rstrip('/')}/"
    folders.append(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    visited.append(Visited(root, os.fstat(folders[0])))
    while left:
        name = left.pop()
        if name == "..":
            if names:
                names.pop()
                os.close(folders.pop())
            continue
        place = root.joinpath(*names, name)
        try:
            status = os.stat(name, dir_fd=folders[-1], follow_symlinks=False)
        except FileNotFoundError:
            return place.joinpath(*(part for part in reversed(left) if part != ".."))
        visited.append(Visited(place, status))
        if not stat.S_ISLNK(status.st_mode):
            if not left:
                return place
            folders.append(os.open(name, _FOLDER, dir_fd=folders[-1]))
            names.append(name)
            continue
        if not left and not last:
            return place
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
        target = os.readlink(name, dir_fd=folders[-1])
        if target.startswith(inside):  # the host's own name of a place below the root: it does not lead out either
            target = target.removeprefix(inside[:-1])
        left += _parts(target)
        if target.startswith("/"):
            names.clear()
            while len(folders) > 1:
                os.close(folders.pop())
    return root.joinpath(*names)


def beneath(root: Path, path: str | Path, *, last: bool = True) -> Path:
    """Where ``path`` leads below ``root``, whether something is there or not.

    :param last: follow also a link at the path itself.
    :raises OSError: the :attr:`Way.problem`.
    """
    way = walk(root, path, last=last)
    if way.end is not None:
        return way.end
    if not way.visited:  # there is no root yet
        return root.joinpath(*reversed(_parts(path)))
    assert way.problem is not None
    raise way.problem


def _parts(path: str | Path) -> list[str]:
    """The names of a path, the last one first."""
    return [part for part in str(path).split("/") if part not in ("", ".")][::-1]
