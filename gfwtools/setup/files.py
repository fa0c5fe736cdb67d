"""Files of the host that ``bootstrap`` writes or changes. The journal keeps what was there before, for ``teardown``."""

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.storage import atomic, displaced
from gfwtools.storage.journal import FILE, Entry, Journal, Original, Transaction
from gfwtools.storage.journal import put_back as journal_put_back
from gfwtools.storage.lock import lock_folder
from gfwtools.system import ownership

__all__ = [
    "TRANSACTION",
    "FileEdit",
    "adopt",
    "content_of",
    "differing",
    "lock_setup",
    "original_of",
    "put",
    "put_back",
    "recorded",
    "replace_original",
]

#: The transaction in which they are written, with the lock of :func:`lock_setup` held. The next bootstrap or teardown
#: takes back what a killed run has begun.
TRANSACTION = "bootstrap"


def lock_setup(paths: Paths) -> AbstractContextManager[None]:
    """The lock of bootstrap and teardown, and of all who write the files that they write.

    :raises LockedError: another process holds it.
    :raises StoreError: the state's folder cannot be made.
    """
    return lock_folder(paths.state_dir, "bootstrap or teardown")


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A wanted file: its ``path`` on the host (without the root), its whole content, and the reason."""

    path: str
    data: bytes
    why: str
    mode: int = 0o644
    """The mode of a new file; a file that is there keeps its own."""


def recorded(paths: Paths) -> dict[str, Entry]:
    """What is changed now, by path on the host, in the order in which it was changed.

    :raises StoreError: the journal is there and cannot be read.
    """
    return Journal(paths).kept_entries(FILE)


def original_of(entry: Entry) -> Original:
    """What was at the path of an entry before gfwtools."""
    return Original.of(entry.data.get("original") or entry.data["before"])


def content_of(paths: Paths, original: Original) -> bytes | None:
    """The content of the file that was there; None where there was none, or a link."""
    return atomic.read(Journal(paths).folder / original.copy) if original.copy else None


def replace_original(paths: Paths, original: Original, data: bytes) -> None:
    """Put other content into the file that was there; it keeps its owner and mode.

    :raises StoreError: it cannot be written.
    """
    atomic.write_all({Journal(paths).folder / original.copy: data}, None)


def differing(edits: Iterable[FileEdit], paths: Paths) -> list[FileEdit]:
    """The edits whose file differs from the wanted one."""
    return [edit for edit in edits if not _is(edit, paths.at(edit.path))]


def put(edits: Iterable[FileEdit], paths: Paths, transaction: Transaction) -> list[str]:
    """Put the files in place. A file that has the wanted content is not touched.

    :returns: the paths that changed.
    :raises StoreError: one cannot be written.
    """
    wanted = differing(edits, paths)
    known = recorded(paths)
    for edit in wanted:
        place, entry = paths.at(edit.path), known.get(edit.path)
        # A file that was written since (DHCP writes a new resolv.conf) is a new original: teardown puts that back.
        is_new = entry is None or not (_is_still(place, entry) or _grew_from(edit, paths))
        regular = place.is_file() and not place.is_symlink()
        now = (atomic.read(place) or b"") if regular else b""
        stripped = ownership.without_lines(now)
        transaction.write(
            {place: edit.data},
            mode=None if regular and edit.mode == atomic.MODE else edit.mode,
            keep=(place,) if is_new else (),
            originals={place: stripped} if is_new and stripped != now else None,
        )
    return [edit.path for edit in wanted]


def put_back(paths: Paths, *, whole: Iterable[str] = (), ours: Collection[str] = ()) -> dict[str, str]:
    """Put the originals back, the last change first.

    :param whole: files that must not stay ours after a teardown. Their original comes back also where ours was edited.
    :param ours: files that stay ours also where another program has changed them.
    :returns: the path of each file that was changed since -> what was done about it, in words.
    """
    journal = Journal(paths)
    left: dict[str, str] = {}
    for path, entry in reversed(recorded(paths).items()):
        place, original = paths.at(path), original_of(entry)
        changed = path not in ours and place.exists() and not _is_still(place, entry)
        # Where it is the original, an earlier run has put it back, and ended before it wrote that into the journal.
        if changed and not _is_original(paths, place, original):
            now = atomic.read(place) or b""
            if path in whole and not place.is_symlink() and ownership.is_file(now):
                copy = displaced.keep_data(paths, place, now, original.mode)
                journal_put_back(journal, place, original)
                left[path] = f"{path} was changed since; what was there before is back, and the other one is {copy}"
            elif not place.is_symlink() and ownership.with_lines(now):
                atomic.write_all({place: ownership.without_lines(now)}, None)
                left[path] = f"{path} was changed since; only the lines of gfwtools were taken out"
            else:
                how = _how_to_go_back(paths, path, original)
                left[path] = f"{path} was changed since; it is not touched; {how}"
        else:
            journal_put_back(journal, place, original)
        journal.drop([entry])
    journal.settle()
    return left


def adopt(paths: Paths, places: Iterable[str], instead: Mapping[str, bytes]) -> list[str]:
    """Record our files that the journal does not know, because it was removed.

    A file that is ours as a whole counts as one that was not there before.

    :param places: where our files may be, on the host.
    :param instead: path of a file that the host needs -> what teardown puts there.
    :returns: the files that were not known.
    """
    journal, known = Journal(paths), recorded(paths)
    found = []
    for path in places:
        place = paths.at(path)
        data = None if path in known or place.is_symlink() else atomic.read(place)
        if data is None:
            continue
        if ownership.with_lines(data):
            before: bytes | None = ownership.without_lines(data)
        elif ownership.is_file(data) or ownership.is_named_ours(path):
            before = instead.get(path)
        else:
            continue
        status = place.stat()
        original = Original("", None, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        journal.keep_file(path, before, original, atomic.digest(data))
        found.append(path)
    return found


def _how_to_go_back(paths: Paths, path: str, original: Original) -> str:
    """The command that brings back what was there before. A copy is left for its owner: the journal forgets it."""
    place = paths.at(path)
    if original.target is not None:
        return f"before, it was a link: ln -sfn {shlex.quote(original.target)} {shlex.quote(str(place))}"
    data = content_of(paths, original)
    if data is None:
        return f"before, there was none: rm {shlex.quote(str(place))}"
    copy = displaced.keep_data(paths, place, data, original.mode)
    return f"what was there before: cp {shlex.quote(str(copy))} {shlex.quote(str(place))}"


def _is(edit: FileEdit, path: Path) -> bool:
    try:
        status = path.lstat()
        executable = edit.mode == stat.S_IMODE(status.st_mode) or edit.mode == atomic.MODE
        return stat.S_ISREG(status.st_mode) and executable and path.read_bytes() == edit.data
    except OSError:
        return False


def _grew_from(edit: FileEdit, paths: Paths) -> bool:
    """Whether the file is ours alone and was edited: the line that marks it as ours is still in it."""
    heading = ownership.heading(edit.data)
    if heading is None or paths.at(edit.path).is_symlink():
        return False
    return heading in (atomic.read(paths.at(edit.path)) or b"").split(b"\n")


def _is_original(paths: Paths, place: Path, original: Original) -> bool:
    """Whether the place holds the original."""
    if place.is_symlink() or original.target is not None:
        return place.is_symlink() and os.readlink(place) == original.target
    data = content_of(paths, original)
    return data is not None and atomic.read(place) == data


def _is_still(place: Path, entry: Entry) -> bool:
    """Whether the file still has the content that we wrote."""
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and atomic.digest(data) == entry.data["wrote"]
