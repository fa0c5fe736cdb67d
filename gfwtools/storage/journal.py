"""Records every change of the host, with its inverse, before the change is made. Every way back uses this record.

A **transaction** is a run of changes that are all made or all taken back. An error and a signal take it back at
once. After SIGKILL or a power cut its entries are still on the disk: the next run of the same kind takes it back
(:meth:`Journal.recover`) before it begins. An entry that is **kept** outlives its transaction: it records the host's
state before gfwtools, and ``teardown`` reads these entries backwards.

The journal is the folder ``/var/lib/gfwtools/journal``: ``log`` has one JSON object a line. Lines are only appended;
the whole file is replaced when a transaction ends. The folder also holds the files that were replaced, each under the
number of its entry. Each is a hard link to the old file where the file system allows it: its content is not copied, and
it keeps its owner and mode.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gfwtools.config.model import Paths
from gfwtools.errors import GfwtoolsError, StoreError
from gfwtools.storage import atomic
from gfwtools.storage.interrupts import Held

__all__ = ["AS_BEFORE", "FILE", "Entry", "Journal", "Original", "Transaction", "Undo", "put_back"]

#: The outcome of a failed transaction that took everything back.
AS_BEFORE = "the host is as it was before"
FILE = "file"


class Entry(NamedTuple):
    """One change: ``data`` is what its inverse needs, as JSON values."""

    number: int
    kind: str
    key: str
    """What was changed; of a kind and key at most one entry is kept."""
    data: Mapping[str, Any]
    transaction: str = ""
    """The transaction that made it, while that is open."""
    keep: bool = False


class Original(NamedTuple):
    """What was at a path: a file (its content is in the journal), a symbolic link, or nothing."""

    copy: str = ""
    """The name of the file in the journal's folder; empty where there was none."""
    target: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    folders: tuple[str, ...] = ()
    """Folders on the way to it that were missing, the outermost first."""

    @property
    def exists(self) -> bool:
        """There was something at the path."""
        return bool(self.copy) or self.target is not None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Original":
        return cls(**{**data, "folders": tuple(data["folders"])})


#: The inverse of an entry's kind. ``doubtful``: the change may have been made, or half made, or not at all.
Undo = Callable[[Entry, bool], None]


class Journal:
    """The journal below a root. Without paths it is in memory only, for steps that need no record."""

    def __init__(self, paths: Paths | None) -> None:
        self.paths = paths
        self._memory: list[Entry] = []

    @property
    def folder(self) -> Path:
        assert self.paths is not None
        return self.paths.journal

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    # ------------------------------------------------------------ read

    def entries(self) -> list[Entry]:
        """Every entry, in the order in which the changes were made.

        A last line without an end does not count: the power failed before its change was begun.

        :raises StoreError: the log cannot be read, or is damaged.
        """
        if self.paths is None:
            return self._memory
        data = atomic.read(self._log)
        if data is None:
            return []
        found: dict[int, Entry] = {}
        try:
            for line in data.split(b"\n")[:-1]:
                said = json.loads(line)
                if "drop" in said:
                    for number in said["drop"]:
                        found.pop(number, None)
                else:
                    entry = Entry(**said)
                    if type(entry.number) is not int or type(entry.data) is not dict:
                        raise TypeError(entry)
                    found[entry.number] = entry
        except (ValueError, TypeError, AttributeError):
            raise StoreError(
                f"{self._log}: damaged", f"move it away, and see what was replaced in {self.folder}"
            ) from None
        return list(found.values())

    def kept_entries(self, kind: str) -> dict[str, Entry]:
        """The entries of that kind that outlived their transaction, by key, in the order of the changes.

        :raises StoreError: the log cannot be read.
        """
        return {entry.key: entry for entry in self.entries() if entry.kind == kind and not entry.transaction}

    def exists(self) -> bool:
        """Whether the journal has a record of changes that were not taken back."""
        return self.paths is not None and self._log.exists()

    # ------------------------------------------------------------ write

    def add(self, make: Callable[[int], Iterable[Entry]]) -> list[Entry]:
        """Append the entries that ``make`` gives for the first free number. They are on the disk when this returns.

        :raises StoreError: they cannot be written.
        """
        if self.paths is None:
            new = list(make(max((entry.number for entry in self._memory), default=0) + 1))
            self._memory = [*self._memory, *new]
            return new
        with self._locked():
            new = list(make(self._free_number()))
            self._append([entry._asdict() for entry in new])
        return new

    def change(self, entry: Entry) -> None:
        """Replace an entry by one with the same number.

        :raises StoreError: it cannot be written.
        """
        if self.paths is None:
            self._memory = [entry if each.number == entry.number else each for each in self._memory]
            return
        with self._locked():
            self._append([entry._asdict()])

    def drop(self, entries: Iterable[Entry]) -> None:
        """Forget entries whose inverse has run, or that are no longer of use.

        :raises StoreError: the log cannot be written.
        """
        numbers = [entry.number for entry in entries]
        if self.paths is None:
            self._memory = [entry for entry in self._memory if entry.number not in numbers]
        elif numbers:
            with self._locked():
                self._append([{"drop": numbers}])

    def keep(self, kind: str, key: str, data: Mapping[str, Any]) -> None:
        """Keep one entry of that kind and key; it replaces an older one.

        :raises StoreError: it cannot be written.
        """
        old = self.kept_entries(kind).get(key)
        self.add(lambda number: [Entry(old.number if old else number, kind, key, data, keep=True)])

    def keep_file(self, key: str, content: bytes | None, original: Original, wrote: str) -> None:
        """Keep the ``original``, with its ``content`` (None: there was none), of a file that is changed already.

        :raises StoreError: it cannot be written.
        """

        def make(number: int) -> list[Entry]:
            made = original
            if content is not None:
                made = original._replace(copy=str(number))
                atomic.write_all({self.folder / made.copy: content}, original.mode)
            return [Entry(number, FILE, key, {"before": made._asdict(), "wrote": wrote}, keep=True)]

        self.add(make)

    def forget(self, kind: str, *keys: str) -> None:
        """Forget the kept entries of that kind: those of these keys, or all of them.

        :raises StoreError: it cannot be written.
        """
        found = self.kept_entries(kind)
        self.settle(drop=[entry for key, entry in found.items() if not keys or key in keys])

    def settle(self, change: Iterable[Entry] = (), drop: Iterable[Entry] = ()) -> None:
        """Replace the log: entries in ``change`` are replaced, dropped ones are left out, now and from before.

        Files that no entry names are removed.

        :raises StoreError: it cannot be written.
        """
        changed = {entry.number: entry for entry in change}
        gone = {entry.number for entry in drop}
        if self.paths is None or not self.folder.is_dir():
            self._memory = [entry for entry in self._memory if entry.number not in gone]
            return
        with self._locked():
            left = [changed.get(entry.number, entry) for entry in self.entries() if entry.number not in gone]
            if left:
                text = "".join(json.dumps(entry._asdict()) + "\n" for entry in left)
                atomic.write_all({self._log: text.encode()})
            else:
                atomic.remove([self._log])
            self._sweep(left)

    def _sweep(self, left: Iterable[Entry]) -> None:
        """Remove the files that no entry names; a run that was killed leaves some."""
        names = {_copy_of(entry, field) for entry in left for field in ("before", "original")} | {self._log.name}
        for path in self.folder.iterdir():
            if path.name not in names:
                with suppress(OSError):  # the next time, then
                    path.unlink()
        with suppress(OSError):  # something is left
            self.folder.rmdir()

    def _free_number(self) -> int:
        return max((entry.number for entry in self.entries()), default=0) + 1

    def _append(self, objects: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(each) + "\n" for each in objects)
        try:
            is_new = not self._log.exists()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._log, flags, atomic.MODE)
            try:
                status = os.fstat(descriptor)
                if status.st_nlink > 1:
                    raise StoreError(f"{self._log}: has a second name (a hard link)", "move it away")
                size = status.st_size
                try:
                    os.fchmod(descriptor, atomic.MODE)  # the umask does not count
                    _write_whole(descriptor, text.encode())
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)  # half a line would end the next one
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                atomic.sync_folder(self.folder)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot write there: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock on the folder. Two programs with two kinds of transactions may write, each for a moment.

        :raises StoreError: the folder cannot be made.
        """
        descriptor = -1
        try:
            while True:
                atomic.make_folder(self.folder)
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self.folder.is_dir() and os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    break
                os.close(descriptor)  # the other one has removed it in between
                descriptor = -1
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise StoreError(f"{_at(error, self.folder)}: cannot write there: {error.strerror}") from None
        try:
            yield
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------ transactions

    @contextmanager
    def transaction(
        self,
        name: str,
        undo: Mapping[str, Undo],
        *,
        outcome: str = AS_BEFORE,
        remedy: str = "",
        within: "Transaction | None" = None,
    ) -> "Iterator[Transaction]":
        """Changes that are all made or all taken back. The changes may be interrupted, the way back may not.

        :param name: the caller holds the lock under which transactions of this name are made.
        :param undo: kind -> the inverse of its entries. The inverse of files is known here.
        :param outcome: what an error says after everything was taken back.
        :param remedy: what to do where not everything could be taken back.
        :param within: the transaction that this one is a part of. That one is taken back as a whole.
        """
        if within is not None:
            yield within
            return
        made = Transaction(self, name, undo)
        with Held() as held:
            try:
                with held.interruptible():
                    yield made
                made.commit()
            except BaseException as error:
                left = made.take_back(doubtful=not isinstance(error, GfwtoolsError))
                if isinstance(error, GfwtoolsError):
                    problems = "; ".join([*left, remedy] if remedy else left)
                    error.outcome = f"could not be taken back: {problems}" if left else outcome
                else:
                    made.left = left
                raise

    def is_open(self, name: str) -> bool:
        """Whether a transaction of that name was killed and is still to be taken back.

        :raises StoreError: the log cannot be read.
        """
        return any(entry.transaction == name for entry in self.entries())

    def recover(self, name: str, undo: Mapping[str, Undo]) -> list[str]:
        """Take back a transaction that was killed; the caller holds its lock.

        :returns: what could not be taken back, in words.
        :raises StoreError: the log cannot be read or written.
        """
        if self.paths is None or not self.folder.is_dir():
            return []
        entries = self.entries()
        open_ = [entry for entry in entries if entry.transaction == name]
        if not open_:
            with self._locked():
                self._sweep(self.entries())
            return []
        with Held():
            return Transaction(self, name, undo, open_).take_back(doubtful=True)


class Transaction:
    """An open transaction (:meth:`Journal.transaction`)."""

    def __init__(self, journal: Journal, name: str, undo: Mapping[str, Undo], entries: Iterable[Entry] = ()) -> None:
        self.journal = journal
        self.name = name
        self.left: list[str] = []
        """What could not be taken back after an interrupt, in words."""
        self._undo = {FILE: self._restore, **undo}
        self._doubtful: set[int] = set()
        self._entries = list(entries)

    def record(self, kind: str, data: Mapping[str, Any], key: str = "", *, keep: bool = False) -> Entry:
        """Write an entry; the caller makes the change after this.

        :raises StoreError: it cannot be written, and the change must not be made.
        """
        (entry,) = self.journal.add(lambda number: [Entry(number, kind, key, data, self.name, keep)])
        self._entries.append(entry)
        return entry

    def recorded(self, kind: str) -> frozenset[str]:
        """The keys of the entries of that kind."""
        return frozenset(entry.key for entry in self._entries if entry.kind == kind)

    def amend(self, entry: Entry, data: Mapping[str, Any]) -> None:
        """Replace the ``data`` of an entry."""
        self.journal.change(entry._replace(data=data))
        self._entries = [each._replace(data=data) if each.number == entry.number else each for each in self._entries]

    def doubt(self, entry: Entry) -> None:
        """Mark a change as possibly half made: its inverse may fail."""
        self._doubtful.add(entry.number)

    def discard(self, entry: Entry) -> None:
        """Forget an entry whose change was not made: its inverse must not run."""
        self.journal.drop([entry])
        self._entries = [each for each in self._entries if each.number != entry.number]

    # ------------------------------------------------------------ files

    def write(
        self,
        files: Mapping[Path, bytes],
        *,
        mode: int | None = atomic.MODE,
        keep: Collection[Path] = (),
        originals: Mapping[Path, bytes] | None = None,
        last: Path | None = None,
        gone: Iterable[Path] = (),
    ) -> list[Path]:
        """Put files in place and remove those that are ``gone``. All are recorded before the first one is changed.

        :param mode: the mode of the files; None: each file keeps its mode and owner.
        :param keep: files whose original is kept, for :meth:`teardown <gfwtools.setup.teardown>`.
        :param originals: path -> the content that counts as the original, where it is not the current one.
        :param last: the file that goes into place after all others.
        :returns: the files that changed.
        :raises StoreError: a file cannot be written; what was changed before it is still changed.
        """
        changed = {path: data for path, data in files.items() if not atomic.holds(path, data, mode)}
        removed = [path for path in gone if os.path.lexists(path)]

        def make(number: int) -> Iterator[Entry]:
            for offset, path in enumerate([*changed, *removed]):
                before = save_original(self.journal, path, str(number + offset))
                data: dict[str, Any] = {"before": before._asdict()}
                if path in changed:
                    data["wrote"] = atomic.digest(changed[path])
                if originals and path in originals:
                    other = before._replace(copy=f"{number + offset}.original")
                    atomic.write_all({self.journal.folder / other.copy: originals[path]}, before.mode)
                    data["original"] = other._asdict()
                yield Entry(number + offset, FILE, self._key(path), data, self.name, path in keep)

        if changed or removed:
            self._entries += self.journal.add(make)
        atomic.write_all({path: data for path, data in changed.items() if path != last}, mode)
        atomic.remove(removed)
        if last in changed:
            atomic.write_all({last: changed[last]}, mode)
        return list(changed)

    def _key(self, path: Path) -> str:
        assert self.journal.paths is not None
        return f"/{path.relative_to(self.journal.paths.root)}"

    def _restore(self, entry: Entry, doubtful: bool) -> None:
        assert self.journal.paths is not None
        put_back(self.journal, self.journal.paths.at(entry.key), Original.of(entry.data["before"]))

    # ------------------------------------------------------------ the two ends

    def commit(self) -> None:
        """Make all changes final. Kept entries lose their transaction; the others are removed.

        :raises StoreError: the log cannot be written.
        """
        if not self._entries:
            return
        kept = {(entry.kind, entry.key): entry for entry in self.journal.entries() if not entry.transaction}
        changed: dict[int, Entry] = {}
        gone: list[Entry] = []
        for entry in self._entries:
            old = kept.get((entry.kind, entry.key))
            if entry.keep:
                if old:
                    gone.append(old)
                    changed.pop(old.number, None)
                stays = entry._replace(transaction="")
            else:
                gone.append(entry)
                if old is None or "wrote" not in entry.data:
                    continue
                # A later version of a file of ours, or something that was put at its place.
                stays = old._replace(data={**old.data, "wrote": entry.data["wrote"]})
            changed[stays.number] = kept[entry.kind, entry.key] = stays
        self.journal.settle(changed.values(), gone)

    def take_back(self, *, doubtful: bool = False) -> list[str]:
        """Run the inverses, the last change first. Each entry is forgotten after its inverse has run.

        A file that cannot be put back stays in the journal: on a full or read-only disk no later run would know it.

        :param doubtful: it is not known whether the last change was made.
        :returns: what could not be taken back, in words.
        """
        left = []
        entries = list(self._entries)
        with suppress(GfwtoolsError):  # an entry that was written at the moment of the error is there, too
            entries = [entry for entry in self.journal.entries() if entry.transaction == self.name]
        for entry in reversed(entries):
            try:
                self._undo[entry.kind](entry, doubtful or entry.number in self._doubtful)
            except GfwtoolsError as error:
                if entry.kind == FILE:
                    left.append(f"{error.message} (the next run tries again)")
                    continue
                left.append(error.message)
            except MemoryError:
                left.append(f"{entry.key}: not enough memory")
            doubtful = False
            with suppress(GfwtoolsError):  # a full disk: it is run once more, which changes nothing
                self.journal.drop([entry])
        self._entries.clear()
        with suppress(GfwtoolsError):
            self.journal.settle()
        return left


def _copy_of(entry: Entry, field: str) -> str:
    original = entry.data.get(field)
    return str(original["copy"]) if isinstance(original, dict) else ""


def save_original(journal: Journal, path: Path, name: str) -> Original:
    """Describe what is at ``path``. A file is also put into the journal's folder, under ``name``.

    :raises StoreError: it cannot be saved.
    """
    paths = journal.paths
    assert paths is not None
    missing = tuple(f"/{part.relative_to(paths.root)}" for part in reversed(path.parents) if not part.exists())
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Original(folders=missing)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    if stat.S_ISLNK(status.st_mode):
        return Original(target=os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: not a regular file", "move it away")
    copy = journal.folder / name
    try:
        atomic.make_folder(journal.folder)
        copy.unlink(missing_ok=True)
        try:
            os.link(path, copy, follow_symlinks=False)
        except OSError:  # another file system, or none that has links
            atomic.write_all({copy: atomic.read(path) or b""}, stat.S_IMODE(status.st_mode))
            if os.geteuid() == 0:
                os.chown(copy, status.st_uid, status.st_gid)
    except OSError as error:
        raise StoreError(f"{path}: cannot be kept as {copy}: {error.strerror}") from None
    return Original(name, None, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def put_back(journal: Journal, place: Path, original: Original) -> None:
    """Put the ``original`` back at ``place``.

    :raises StoreError: it cannot be put back.
    """
    paths = journal.paths
    assert paths is not None
    atomic.remove_staged(place)
    try:
        if original.target is not None:
            if not (place.is_symlink() and os.readlink(place) == original.target):
                atomic.make_folder(place.parent)
                atomic.put_link(place, original.target)
        elif original.copy:
            atomic.put_file(place, journal.folder / original.copy, original.mode, (original.uid, original.gid))
        elif os.path.lexists(place):
            if place.is_dir() and not place.is_symlink():
                raise StoreError(f"{place}: is a folder now", "remove it")
            place.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be put back: {error.strerror}") from None
    for folder in reversed(original.folders):
        with suppress(OSError):  # something else is in it
            paths.at(folder).rmdir()


def _at(error: OSError, folder: Path) -> str:
    """The folder where an error occurred."""
    return str(Path(error.filename).parent if isinstance(error.filename, str) else folder)


def _write_whole(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
