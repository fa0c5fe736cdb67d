"""The lock and its file. The file records which process holds the lock, and how the last run ended."""

import fcntl
import os
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gfwtools.config.userinfo import masked_word
from gfwtools.errors import GfwtoolsError, LockedError, StoreError
from gfwtools.storage.atomic import MODE, make_folder, now, read

__all__ = ["Run", "last_run", "lock", "lock_folder"]

_RUNNING = "running"
#: We write some hundred bytes; a larger file is damaged, and its content does not count.
_LONGEST = 1 << 20


@contextmanager
def lock(path: Path, *, wait: float = 30.0) -> Iterator[None]:
    """Hold the lock at ``path``; a second one waits up to ``wait`` seconds.

    The kernel releases the lock when the process ends (flock(2)), so no stale lock remains. The file records which
    process holds the lock, and how the last run ended (:func:`last_run`).

    :raises LockedError: another process still holds the lock; the message names it.
    :raises StoreError: the lock cannot be made.
    """
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, MODE)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        remedy = "run as root, or with --root DIR on a folder of yours" if denied else "fix that, then run it again"
        raise StoreError(f"{path}: {error.strerror}", remedy) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            # What is written here would be written into the file of the other name.
            what = "has a second name (a hard link)" if status.st_nlink > 1 else "is not a regular file"
            raise StoreError(f"{path}: {what}", f"remove it: rm {shlex.quote(str(path))}")
        if stat.S_IMODE(status.st_mode) != MODE:
            with suppress(OSError):  # another user owns it
                os.fchmod(descriptor, MODE)  # the umask does not count: any user may run status, which reads it
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    waited = f" after waiting {wait:g} s" if wait else ""  # trace does not wait
                    raise LockedError(f"{path}: still held by {_holder(path)}{waited}", "try again later") from None
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


@contextmanager
def lock_folder(folder: Path, what: str) -> Iterator[None]:
    """Hold a lock on the folder itself, which leaves no file behind. It does not wait for another holder.

    :param what: the commands that use this lock, for the message.
    :raises LockedError: another process holds it.
    :raises StoreError: the folder cannot be made.
    """
    try:
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(f"another {what} is running", "try again when it has ended") from None
        except OSError as error:
            raise StoreError(f"{folder}: cannot be locked: {error.strerror}") from None
        yield
    finally:
        os.close(descriptor)


def _account(descriptor: int, outcome: str) -> None:
    """Write the holder of the lock, the time, and the outcome, a line each."""
    text = f"{os.getpid()}\n{now()}\n{' '.join(outcome.split())}\n".encode("utf-8", "replace")
    # On a full disk the lock is held all the same; only the record of it is missing.
    with suppress(OSError):
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


class Run(NamedTuple):
    """The last run that held a lock."""

    date: str
    """When it ended, or began where it is still running: ISO 8601, UTC."""
    error: str = ""
    """Why it failed, in one line; empty where it succeeded."""
    running: bool = False


def last_run(path: Path) -> Run | None:
    """How the last run that held the lock at ``path`` ended; None where there was no run.

    A run that finds nothing new is recorded only here.

    :raises StoreError: the file cannot be read.
    """
    with suppress(OSError):
        if path.stat().st_size > _LONGEST:
            return None
    lines = (read(path, limit=_LONGEST) or b"").decode("utf-8", "replace").split("\n")
    if len(lines) < 4:
        return None
    pid, date, outcome = lines[:3]
    if outcome != _RUNNING:
        return Run(date, outcome)
    if pid.isascii() and pid.isdigit() and len(pid) < 20 and Path("/proc", pid).is_dir():
        return Run(date, running=True)
    return Run(date, "it was killed")


def _holder(path: Path) -> str:
    """The process that holds the lock, from the lock's file."""
    try:
        pid = int(path.read_text().split("\n")[0])
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (OSError, ValueError):
        return "another gfwtools"
    command = " ".join(map(masked_word, words)).strip()
    printable = "".join(character for character in command if character.isprintable())[:80]
    return f"process {pid} ({printable})" if printable else f"process {pid}"
