"""Writes files atomically: beside their place, synced, then renamed.

A process that is killed at any moment leaves the whole old file or the whole new file.
"""

import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gfwtools.config.walk import walk
from gfwtools.digest import sha256
from gfwtools.errors import StoreError

__all__ = [
    "digest",
    "holds",
    "is_as_written",
    "is_mount",
    "make_folder",
    "now",
    "put_file",
    "put_link",
    "read",
    "read_ours",
    "remove",
    "remove_leftovers",
    "remove_staged",
    "require_output",
    "sync_folder",
    "write_all",
    "write_output",
]

MODE = 0o644
#: The outcome of a failed :func:`write_all` that put everything back.
NOTHING = "nothing was changed"
#: /dev/null, the one device that may stand in place of a file: it gives nothing (null(4)).
NULL = os.makedev(1, 3)
#: At most so many folders of a tree are searched; ours have a few.
MAX_FOLDERS = 1000
# A name with a leading dot is one that dnsmasq's conf-dir passes over (dnsmasq(8), --conf-dir).
_PREFIX, _SUFFIX = ".gfwtools-", ".tmp"


def digest(data: bytes | memoryview) -> str:
    """The SHA-256 of ``data`` in hexadecimal."""
    return sha256(data)


def read(path: Path, *, limit: int | None = None) -> bytes | None:
    """The content of ``path``, or None where there is no such file.

    :raises StoreError: it cannot be read, or has more than ``limit`` bytes.
    """
    try:
        if path.exists() and not (path.is_file() or path.stat().st_rdev == NULL):
            # A pipe would keep us waiting with the lock held.
            raise StoreError(f"{path}: not a regular file", "move it away")
        with path.open("rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    if limit is not None and len(data) > limit:
        raise StoreError(f"{path}: larger than {limit} bytes")
    return data


def read_ours(path: Path) -> bytes | None:
    """The content of a file that only we write; None where there is none.

    A symbolic link counts as none, wherever it leads: it is damage, and the next file replaces it.

    :raises StoreError: it cannot be read.
    """
    return None if path.is_symlink() else read(path)


def remove(paths: Iterable[Path]) -> None:
    """Remove files that are no longer wanted. A file that is missing is not an error.

    :raises StoreError: one of them cannot be removed.
    """
    for path in paths:
        try:
            if os.path.lexists(path):  # on a read-only disk unlink(2) fails for what is not there as well
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed: {error.strerror}") from None


def write_all(files: Mapping[Path, bytes], mode: int | None = MODE) -> list[Path]:
    """Put ``files`` in place, each atomically, in their order. A file with the wanted content is not touched.

    All files are written beside their places before the first one is renamed: a full disk fails while nothing has
    changed. Missing folders are made. A symbolic link at a target is replaced, not followed.

    :param mode: the mode of the files; None: each file keeps its mode and owner.
    :returns: the files that changed.
    :raises StoreError: it names the place and the reason. The old files are back, or the message names the files for
        which that failed as well.
    """
    changed = {path: data for path, data in files.items() if not holds(path, data, mode)}
    staged: dict[Path, Path] = {}
    previous: dict[Path, _Held | None] = {}
    try:
        for path, data in changed.items():
            there = _look(path) if mode is None else None
            staged[path] = _stage(path, there._replace(data=data) if there else _File(data, mode or MODE))
        for path, temporary in staged.items():
            previous[path] = _hold(path)
            temporary.replace(path)
        for folder in dict.fromkeys(path.parent for path in staged):
            sync_folder(folder)
    except BaseException as error:  # Ctrl-C and SIGTERM, too
        renamed = {path: old for path, old in previous.items() if not os.path.lexists(staged[path])}
        stuck = _put_back(renamed)
        if not isinstance(error, OSError) and not stuck:
            raise
        reason = (
            f"{_place(error)}: cannot write there: {error.strerror}" if isinstance(error, OSError) else "interrupted"
        )
        outcome = f"{', '.join(map(str, stuck))} could not be put back" if stuck else NOTHING
        failed = StoreError(reason)
        failed.outcome = outcome
        raise failed from None
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink()
        for held in previous.values():
            if held:
                held.file.close()
    return list(changed)


def put_link(place: Path, target: str) -> None:
    """A symbolic link to ``target`` at ``place``, atomically.

    :raises OSError: it cannot be made.
    """
    temporary = _beside(place)
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        temporary.symlink_to(target)
        temporary.replace(place)
    finally:
        with suppress(OSError):
            temporary.unlink()


def put_file(place: Path, source: Path, mode: int, owner: tuple[int, int]) -> None:
    """Put the file ``source`` at ``place``, atomically: the file itself where the file system allows that, else a copy.

    :raises OSError: it cannot be put there.
    """
    make_folder(place.parent)
    if os.path.lexists(place):
        there = place.lstat()
        if os.path.samestat(there, source.lstat()):
            return  # rename(2) does nothing between two names of one file
        if (there.st_uid, there.st_gid) == owner and holds(place, source.read_bytes(), mode):
            return  # it was not changed, and a full disk has no room for a copy
    temporary = _beside(place)
    with suppress(FileNotFoundError):
        temporary.unlink()
    try:
        try:
            os.link(source, temporary, follow_symlinks=False)
        except OSError:
            temporary = _stage(place, _File(source.read_bytes(), mode, owner))
        temporary.replace(place)
        sync_folder(place.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _beside(place: Path) -> Path:
    """The temporary name of a file that is not in place yet."""
    return place.parent / f"{_PREFIX}{place.name}.{os.getpid()}{_SUFFIX}"


class _File(NamedTuple):
    """The file at a place, or the one that is to be there."""

    data: bytes
    mode: int
    owner: tuple[int, int] | None = None


class _Held(NamedTuple):
    """An old file, open: its content is still there when another has its name, and takes no memory until it is asked
    for. The files of a million domains have 150 MB."""

    file: BinaryIO
    mode: int
    owner: tuple[int, int]


def _hold(path: Path) -> _Held | None:
    """The regular file at ``path``, or where a link leads; None where there is none."""
    if not path.is_file():
        return None
    file = path.open("rb")
    status = os.fstat(file.fileno())
    return _Held(file, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def _look(path: Path) -> _File | None:
    """The regular file at ``path``, or where a link leads; None where there is none."""
    if not path.is_file():
        return None
    status = path.stat()
    return _File(path.read_bytes(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def _put_back(previous: Mapping[Path, _Held | None]) -> list[Path]:
    """Undo the renames by the same means; returns the files for which that failed."""
    stuck = []
    for path, old in previous.items():
        try:
            if old is None:
                path.unlink(missing_ok=True)
            else:
                _stage(path, _File(old.file.read(), old.mode, old.owner)).replace(path)
        except OSError:
            stuck.append(path)
    for folder in {path.parent for path in previous}:
        with suppress(OSError):  # every reader sees the old files; only a power cut could lose that
            sync_folder(folder)
    return stuck


def _place(error: OSError) -> str:
    """The folder where an error occurred, or the file that cannot be replaced."""
    if error.filename2:
        return str(error.filename2)
    if not error.filename:
        return "a file"
    return str(error.filename if os.path.isdir(error.filename) else Path(error.filename).parent)


def holds(path: Path, data: bytes, mode: int | None) -> bool:
    """Whether ``path`` is a regular file with that content, and that mode (None: any)."""
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == len(data)
            and mode in (None, stat.S_IMODE(status.st_mode))
            and _is_same(path, data)
        )
    except OSError:
        return False


def _is_same(path: Path, data: bytes) -> bool:
    """A part at a time: a large file is in memory once already."""
    part = 1 << 20
    with path.open("rb") as file:
        return all(file.read(part) == data[start : start + part] for start in range(0, len(data), part))


def _stage(path: Path, wanted: _File) -> Path:
    """Write the ``wanted`` content into a file beside ``path``, and sync it to the disk."""
    make_folder(path.parent)
    temporary = _beside(path)
    with suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, wanted.mode & 0o600)  # no other user reads it before it has its owner
    try:
        with os.fdopen(descriptor, "wb") as file:
            if wanted.owner and os.geteuid() == 0:
                os.fchown(file.fileno(), *wanted.owner)
            os.fchmod(file.fileno(), wanted.mode)  # the umask does not count
            file.write(wanted.data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        # An error of write(2) or fsync(2) does not carry the file's name.
        raise OSError(error.errno, error.strerror, str(temporary)) from None
    return temporary


def make_folder(folder: Path) -> None:
    """Make a missing folder and its missing parents. All users can read them, with any umask.

    :raises OSError: it cannot be made.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        part.chmod(0o755)


def is_as_written(path: Path, expected: str) -> bool:
    """Whether ``path`` is a regular file of ours with the digest ``expected``.

    :raises StoreError: it cannot be read.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != MODE:
        return False
    data = read(path)
    return data is not None and digest(data) == expected


def require_output(path: Path) -> None:
    """Check, before long work begins, that :func:`write_output` can write to ``path``.

    :raises StoreError: it is a folder, or its folder is missing. A missing folder counts as a typing error, and is not
        made.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder", "give a file")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path.absolute().parent} does not exist", "make the folder first")


def is_mount(path: Path) -> bool:
    """Whether something is mounted at ``path``, as containers do with single files. A mount cannot be replaced."""
    import re

    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    place = os.fsencode(path.absolute())
    # Blanks and the like are written as octal numbers (proc(5)).
    return any(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), line.split()[4]) == place for line in lines)


def write_output(path: Path, data: bytes) -> None:
    """Write to a place that the user named: through a link, into a device or a pipe, else atomically.

    A link is followed, as for a shell's ``>``. In a folder such as /tmp a link of another user is not, whatever
    fs.protected_symlinks is (proc(5)).

    :raises StoreError: it cannot be written.
    """
    require_output(path)
    _refuse_links_of_others(path)
    place = path
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if regular:
                place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)
        if not regular:
            with path.open("wb") as file:
                file.write(data)
            return
    except FileNotFoundError:
        pass  # a new file; a link that leads nowhere is replaced
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    write_all({place: data})


def _refuse_links_of_others(path: Path) -> None:
    """The rule of fs.protected_symlinks, which is off on some hosts.

    :raises StoreError: another user has made a link on the way, in a folder where every user may make one.
    """
    seen: dict[Path, os.stat_result] = {}
    for place, status in walk(Path("/"), path.absolute()).visited:
        seen[place] = status
        folder = seen[place.parent]
        is_shared = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
        if stat.S_ISLNK(status.st_mode) and is_shared and status.st_uid not in (os.geteuid(), folder.st_uid):
            raise StoreError(f"{place}: a link of user {status.st_uid} in a folder of all users", "give another place")


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, and with it the renames in it (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        os.close(descriptor)


def remove_staged(place: Path) -> None:
    """Remove what a killed run left beside ``place`` of a file that was to go there."""
    with suppress(OSError):
        for path in place.parent.iterdir():
            if path.name.startswith(f"{_PREFIX}{place.name}.") and path.name.endswith(_SUFFIX):
                path.unlink()


def remove_leftovers(*folders: Path, tree: Path | None = None) -> None:
    """Remove what a killed run left beside its targets, in ``folders`` and anywhere in the ``tree``.

    The caller holds the lock.
    """
    below = (Path(folder) for folder, _, _ in islice(os.walk(tree), MAX_FOLDERS)) if tree else ()
    for folder in (*folders, *below):
        with suppress(OSError):
            for leftover in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
                leftover.unlink()


def now() -> str:
    """ISO 8601, UTC, in seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
