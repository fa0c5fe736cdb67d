"""Files on disk: written beside their place, synced and renamed; the lock; ``state.json``.

Killed at any moment, each file is the old one or the new one, whole. ``state.json`` goes last and holds the digests of
the others, so that the next run sees what a killed one left undone, and does it.
"""

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from gfwtools.errors import GfwtoolsError, LockedError, StoreError

__all__ = [
    "Change",
    "Mirror",
    "PolicyState",
    "Run",
    "State",
    "digest",
    "is_as_written",
    "last_run",
    "lock",
    "make_folder",
    "now",
    "read",
    "read_state",
    "remove",
    "remove_leftovers",
    "replace_all",
    "restore",
    "snapshot",
    "write_all",
    "write_output",
    "write_state",
]

MODE = 0o644
STATE_VERSION = 1
#: How many updates ``state.json`` remembers.
HISTORY = 30
# A name with a leading dot is one that dnsmasq's conf-dir passes over (dnsmasq(8), --conf-dir).
_PREFIX, _SUFFIX = ".gfwtools-", ".tmp"
_RUNNING = "running"


class _WriteError(StoreError):
    """:func:`write_all` has failed: the reason, and what became of its own files. A caller may know better of all."""

    def __init__(self, reason: str, outcome: str) -> None:
        super().__init__(f"{reason}; {outcome}")
        self.reason = reason


def _reason(error: BaseException) -> str:
    if isinstance(error, _WriteError):
        return error.reason
    return str(error) if isinstance(error, GfwtoolsError) else "interrupted"


def digest(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal."""
    return sha256(data).hexdigest()


def read(path: Path, *, limit: int | None = None) -> bytes | None:
    """The content of ``path``, or None where there is no such file.

    :raises StoreError: it cannot be read, or has more than ``limit`` bytes.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_char_device()):
            raise StoreError(f"{path}: no regular file")  # a pipe would keep us waiting with the lock held
        with path.open("rb") as file:
            data = file.read() if limit is None else file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    if limit is not None and len(data) > limit:
        raise StoreError(f"{path}: larger than {limit} bytes")
    return data


def snapshot(paths: Iterable[Path]) -> dict[Path, bytes | None]:
    """What is at ``paths`` now; None for no file.

    :raises StoreError: one of them cannot be read.
    """
    return {path: read(path) for path in paths}


def restore(before: Mapping[Path, bytes | None]) -> None:
    """Put a :func:`snapshot` back.

    :raises StoreError: it could not be done.
    """
    try:
        write_all({path: data for path, data in before.items() if data is not None}, None)
        remove(path for path, data in before.items() if data is None)
    except StoreError as error:
        raise StoreError(f"{_reason(error)}; not every file is back as it was") from None


def remove(paths: Iterable[Path]) -> None:
    """Remove files that are no longer wanted; one that is not there is no error.

    :raises StoreError: one of them cannot be removed.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed: {error.strerror}") from None


def write_all(files: Mapping[Path, bytes], mode: int | None = MODE) -> list[Path]:
    """Put ``files`` in place, each atomically, in their order; those that are as they should be are not touched.

    All of them are written beside their places before the first one is renamed, so that a full disk is found out while
    nothing has changed. Folders that are missing are made. A symbolic link at a target is replaced, not followed.

    :param mode: of the files; None: each keeps the mode and the owner that it has.
    :returns: the files that changed.
    :raises StoreError: with the place and the reason; what was in place before is in place again, or the message names
        the files for which that failed as well.
    """
    changed = {path: data for path, data in files.items() if not _holds(path, data, mode)}
    staged: dict[Path, Path] = {}
    previous: dict[Path, _File | None] = {}
    try:
        for path, data in changed.items():
            there = _look(path) if mode is None else None
            staged[path] = _stage(path, there._replace(data=data) if there else _File(data, mode or MODE))
        for path, temporary in staged.items():
            previous[path] = _look(path)
            temporary.replace(path)
        for folder in dict.fromkeys(path.parent for path in staged):
            _sync_folder(folder)
    except BaseException as error:  # Ctrl-C and SIGTERM, too
        renamed = {path: old for path, old in previous.items() if not os.path.lexists(staged[path])}
        stuck = _put_back(renamed)
        if not isinstance(error, OSError) and not stuck:
            raise
        reason = (
            f"{_place(error)}: cannot write there: {error.strerror}" if isinstance(error, OSError) else "interrupted"
        )
        outcome = f"{', '.join(map(str, stuck))} could not be put back" if stuck else "nothing was changed"
        raise _WriteError(reason, outcome) from None
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink()
    return list(changed)


class _File(NamedTuple):
    """What is, or shall be, at a place."""

    data: bytes
    mode: int
    owner: tuple[int, int] | None = None


def _look(path: Path) -> _File | None:
    """The regular file at ``path``, or where a link leads; None where there is none."""
    if not path.is_file():
        return None
    status = path.stat()
    return _File(path.read_bytes(), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def _put_back(previous: Mapping[Path, _File | None]) -> list[Path]:
    """Undo renames by the same means, as far as it goes; the files for which it did not."""
    stuck = []
    for path, old in previous.items():
        try:
            if old is None:
                path.unlink(missing_ok=True)
            else:
                _stage(path, old).replace(path)
        except OSError:
            stuck.append(path)
    for folder in {path.parent for path in previous}:
        with suppress(OSError):  # the files are back for everybody who reads them; only a power cut could tell
            _sync_folder(folder)
    return stuck


def _place(error: OSError) -> str:
    """The folder that an error is about."""
    if not error.filename:
        return "a file"
    return str(error.filename if os.path.isdir(error.filename) else Path(error.filename).parent)


def _holds(path: Path, data: bytes, mode: int | None) -> bool:
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == len(data)
            and mode in (None, stat.S_IMODE(status.st_mode))
            and path.read_bytes() == data
        )
    except OSError:
        return False


def _stage(path: Path, wanted: _File) -> Path:
    """A file beside ``path`` with what is ``wanted`` in it, on the disk for good."""
    make_folder(path.parent)
    temporary = path.parent / f"{_PREFIX}{path.name}.{os.getpid()}{_SUFFIX}"
    with suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, wanted.mode & 0o600)  # nobody else reads it before it has its owner
    try:
        with os.fdopen(descriptor, "wb") as file:
            if wanted.owner and os.geteuid() == 0:
                os.fchown(file.fileno(), *wanted.owner)
            os.fchmod(file.fileno(), wanted.mode)  # whatever the umask says
            file.write(wanted.data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        # write(2) and fsync(2) on an open file do not tell its name.
        raise OSError(error.errno, error.strerror, str(temporary)) from None
    return temporary


def make_folder(folder: Path) -> None:
    """Make a folder that is missing, and those above it, readable by all whatever the umask says.

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


def write_output(path: Path, data: bytes) -> None:
    """Write where somebody has pointed us to: through a link, into a device or a pipe, else atomically.

    It is the kernel that follows a link, as for a shell's ``>``: in /tmp it does not follow those of others
    (proc(5), protected_symlinks).

    :raises StoreError: it cannot be written.
    """
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


def replace_all(files: Mapping[Path, bytes], obsolete: Iterable[Path], last: Path) -> None:
    """Put ``files`` in place and remove those that are ``obsolete``, all of it or nothing; the file ``last`` goes last.

    :raises StoreError: what was in place before is in place again, or the message says that this failed as well.
    """
    obsolete = list(obsolete)
    before = snapshot([*files, *obsolete])
    try:
        write_all({path: data for path, data in files.items() if path != last})
        remove(obsolete)
        write_all({path: data for path, data in files.items() if path == last})
    except BaseException as error:  # Ctrl-C and SIGTERM, too
        try:
            restore(before)
        except StoreError as second:
            raise StoreError(f"{_reason(error)}; then {second}; mend that and run it again") from None
        raise


def _sync_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        os.close(descriptor)


def remove_leftovers(*folders: Path) -> None:
    """Remove what a killed run left beside its targets; to be called with the lock held."""
    for folder in folders:
        with suppress(OSError):
            for leftover in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
                leftover.unlink()


@contextmanager
def lock(path: Path, *, wait: float = 30.0) -> Iterator[None]:
    """Hold the lock at ``path``; a second one waits up to ``wait`` seconds.

    The kernel lets go of it with the process (flock(2)), however it ends; nothing stale stays behind. Its file tells
    who holds it, and how the last one that did has ended (:func:`last_run`).

    :raises LockedError: somebody else still holds it; the message says who.
    :raises StoreError: the lock cannot be made.
    """
    import fcntl

    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; run as root, or with --root DIR on a folder of yours") from None
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(f"{path}: held by {_holder(path)} for {wait:g} s; try again later") from None
                time.sleep(0.05)
            except OSError as error:
                raise StoreError(f"{path}: cannot be locked: {error.strerror}") from None
        _account(descriptor, _RUNNING)
        try:
            yield
        except GfwtoolsError as error:
            _account(descriptor, str(error))
            raise
        except BaseException as error:
            _account(descriptor, f"ended by {type(error).__name__}")
            raise
        _account(descriptor, "")
    finally:
        os.close(descriptor)


def _account(descriptor: int, outcome: str) -> None:
    """Write who holds the lock, since when, and how it went, a line each."""
    text = f"{os.getpid()}\n{now()}\n{' '.join(outcome.split())}\n".encode("utf-8", "replace")
    # On a full disk the lock is held all the same; only its story is not to be read.
    with suppress(OSError):
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


@dataclass(frozen=True, slots=True)
class Run:
    """The last run that held a lock."""

    date: str
    """When it ended (or began, where it has not): ISO 8601, UTC."""
    error: str = ""
    """Why it failed, in one line; empty where it did not."""
    running: bool = False


def last_run(path: Path) -> Run | None:
    """How the last run that held the lock at ``path`` ended, whether or not it changed anything; None where none did.

    A run that finds nothing new writes nowhere else.

    :raises StoreError: the file cannot be read.
    """
    lines = (read(path, limit=1 << 20) or b"").decode("utf-8", "replace").split("\n")
    if len(lines) < 4:
        return None
    pid, date, outcome = lines[:3]
    if outcome != _RUNNING:
        return Run(date, outcome)
    if Path("/proc", pid).is_dir():
        return Run(date, running=True)
    return Run(date, "it was killed")


def now() -> str:
    """ISO 8601, UTC, in seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def _holder(path: Path) -> str:
    """Who holds the lock, as its file tells."""
    try:
        pid = int(path.read_text().split("\n")[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (OSError, ValueError):
        return "another gfwtools"
    printable = "".join(character for character in command if character.isprintable())[:80]
    return f"process {pid} ({printable})" if printable else f"process {pid}"


# ---------------------------------------------------------------- state.json


@dataclass(frozen=True, slots=True)
class Mirror:
    """What a mirror said of the list that it gave (RFC 9110 section 8.8), and which list that was."""

    etag: str = ""
    last_modified: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One update that changed something, for the history."""

    date: str
    """ISO 8601, UTC."""
    source: str
    digest: str
    counts: dict[str, Any]
    domains: int
    added: int
    removed: int


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What is known of a policy's last update."""

    source: str = ""
    """Where the list came from: a URL, a path, or ``starter list``."""
    starter: bool = False
    list_date: str = ""
    list_digest: str = ""
    inputs: str = ""
    """A digest over everything that the files are made from."""
    updated: str = ""
    """When the files last changed: ISO 8601, UTC."""
    counts: dict[str, Any] = field(default_factory=dict)
    domains: int = 0
    files: dict[str, str] = field(default_factory=dict)
    """Path without the root -> digest."""
    effective: dict[str, str] = field(default_factory=dict)
    """The same for what running programs read, without comments."""
    loaded: dict[str, str] = field(default_factory=dict)
    """What of :attr:`effective` they were seen to have read; where the two differ, a reload is due."""
    mirrors: dict[str, Mirror] = field(default_factory=dict)
    history: tuple[Change, ...] = ()

    def remember(self, change: Change) -> "PolicyState":
        """The state with one more update in its history."""
        return replace(self, history=(*self.history, change)[-HISTORY:])


@dataclass(frozen=True, slots=True)
class State:
    """``state.json``: it speeds up and explains; everything in it can be found again."""

    policies: dict[str, PolicyState] = field(default_factory=dict)
    problem: str = ""
    """Why the file was not used, in one line; not written."""

    def of(self, policy: str) -> PolicyState:
        return self.policies.get(policy, PolicyState())

    def to_json(self) -> bytes:
        document = {
            "version": STATE_VERSION,
            "policies": {name: asdict(policy) for name, policy in self.policies.items()},
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def read_state(path: Path) -> State:
    """The state at ``path``. One that is missing, damaged or of a later version is an empty one that says so.

    :raises StoreError: the file is there and cannot be read.
    """
    data = read(path)
    if data is None:
        return State()
    try:
        document = json.loads(data)
        if document["version"] != STATE_VERSION:
            version = repr(document["version"])[:20]
            return State(problem=f"{path}: of version {version}; this gfwtools writes {STATE_VERSION}")
        return State({str(name): _policy_state(value) for name, value in document["policies"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return State(problem=f"{path}: damaged; it is written anew")


def _policy_state(value: dict[str, Any]) -> PolicyState:
    """A policy's part of the file; whatever has another shape than we write raises TypeError."""
    typed = _typed(PolicyState, value)
    for name in ("files", "effective", "loaded"):
        typed[name] = {str(path): str(digest) for path, digest in typed.get(name, {}).items()}
    typed["mirrors"] = {str(url): Mirror(**_typed(Mirror, mirror)) for url, mirror in typed.get("mirrors", {}).items()}
    typed["history"] = tuple(Change(**_typed(Change, change)) for change in typed.get("history", ()))
    return PolicyState(**typed)


def _typed(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """The known fields of ``value``, each of the type that ``kind`` says."""
    types = {"str": str, "int": int, "bool": bool, "dict": dict, "tuple": list}
    kept = {}
    for name, annotation in kind.__annotations__.items():
        if name in value:
            expected = annotation if isinstance(annotation, type) else annotation.__origin__
            expected = types[expected.__name__]
            if not isinstance(value[name], expected):
                raise TypeError(name)
            kept[name] = value[name]
    return kept


def write_state(path: Path, state: State) -> None:
    """:raises StoreError: it could not be written."""
    write_all({path: state.to_json()})
