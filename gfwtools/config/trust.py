"""Root reads no configuration, list or state that another user can write: who writes them has root run commands.

The same rule as for sudoers and crontabs: the file and every folder on the way belong to root, and neither their group
nor others can write them. In a folder with the sticky bit, such as /tmp, nobody replaces a file of root's. Where the
process is not root, everything is its user's own affair.
"""

import os
import re
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from gfwtools.config.model import Config, is_url
from gfwtools.config.walk import Visited, walk
from gfwtools.errors import StoreError

__all__ = ["require_trusted", "require_trusted_file"]

_ROOT = 0
#: The owner of everything that a user namespace has no number for (user_namespaces(7)).
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")
_MAP = Path("/proc/self/uid_map")


def require_trusted_file(path: Path, root: Path = Path("/")) -> None:
    """Check the configuration, and the folders on the way to it.

    :param root: a path below it is looked at from there on.
    :raises StoreError: this is root, and another user can write it.
    """
    if os.geteuid() == _ROOT:
        _require(path, root, _owners())


def require_trusted(config: Config) -> None:
    """Check the folders of the configuration, of dnsmasq's files and of the state, our files there, and users' lists.

    :raises StoreError: this is root, and another user can write one of them.
    """
    if os.geteuid() != _ROOT:
        return
    owners, paths, root = _owners(), config.paths, config.root
    dns, journal = paths.dns, paths.journal
    for folder in (paths.etc, dns, paths.state_dir, journal, paths.at(config.dns.conf_dir)):
        _require(folder, root, owners)
    # Not the other files of the journal: they are originals of the host, with their owners.
    for place in (*_files(dns), *_files(paths.state_dir), journal / "log"):
        _require(place, root, owners)
    for policy in config.policies:
        for entry in (*policy.allow, *policy.deny):
            if not is_url(entry):
                _require_list(paths.at(entry), root)


def _require(path: Path, root: Path, owners: frozenset[int]) -> None:
    """:raises StoreError: a user beside ``owners`` can write it, or a folder on the way."""
    for place, status in _walk(path, root):
        if stat.S_ISCHR(status.st_mode):
            return  # /dev/null, in place of a file
        if status.st_uid not in owners:
            raise _refused(
                place,
                f"belongs to user {status.st_uid}, and root runs what it says",
                f"chown {'-h ' if stat.S_ISLNK(status.st_mode) else ''}root:root",
            )
        _require_mode(place, status, frozenset({0}))


def _require_list(path: Path, root: Path) -> None:
    """A list of names may be in the home of its owner: he decides about names, and nobody else does.

    :raises StoreError: anyone can write it, or a folder on the way.
    """
    for place, status in _walk(path, root):
        # On many systems each user has a group of the same number, with nobody else in it.
        _require_mode(place, status, frozenset({0, status.st_uid}))


def _require_mode(place: Path, status: os.stat_result, groups: frozenset[int]) -> None:
    if stat.S_ISLNK(status.st_mode) or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return  # the mode of a link does not count
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return  # each file of ours in it is looked at
    others = bool(status.st_mode & stat.S_IWOTH)
    group = bool(status.st_mode & stat.S_IWGRP) and status.st_gid not in groups
    if others or group:
        who = "any user" if others else f"group {status.st_gid}"
        how = ",".join(f"{letter}-w" for letter, found in (("g", group), ("o", others)) if found)
        raise _refused(place, f"{who} can write it, and root runs what it says", f"chmod {how}")


def _refused(place: Path, what: str, command: str) -> StoreError:
    return StoreError(f"{place}: {what}", f"look at what is in it, then run: {command} {shlex.quote(str(place))}")


def _walk(path: Path, root: Path) -> tuple[Visited, ...]:
    """What is on the way, as far as it can be seen. Who reads it gets its problem, with words of his own."""
    below, start = path.absolute(), root.absolute()
    if not below.is_relative_to(start):
        start = Path("/")
    return walk(start, below.relative_to(start)).visited


def _files(folder: Path) -> Iterable[Path]:
    """The files in a folder of ours. A link in it is root's, as the folder is."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return ()


def _owners() -> frozenset[int]:
    """Root. In a user namespace the host's root has no number, and owns the system."""
    try:
        first = _MAP.read_text().split()
        if re.fullmatch(r"0 0 \d{10}", " ".join(first[:3])):
            return frozenset({_ROOT})
        return frozenset({_ROOT, int(_OVERFLOW.read_text())})
    except (OSError, ValueError):
        return frozenset({_ROOT})
