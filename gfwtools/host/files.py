"""Files of the host that ``bootstrap`` writes or changes, and what they were before (bootstrap.json).

The record is written before a file is touched, so that ``teardown`` knows the way back whenever the power goes.
"""

import base64
import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gfwtools import store
from gfwtools.config import Paths
from gfwtools.errors import StoreError

__all__ = ["FileEdit", "Original", "differing", "put", "put_back", "recorded"]


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A file as it shall be: ``path`` on the host (without the root), its whole content, and the reason."""

    path: str
    data: bytes
    why: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Original:
    """What was at a path before: a file, a symbolic link (its target), or nothing."""

    data: bytes | None = None
    target: str | None = None
    mode: int = 0o644
    wrote: str = ""
    """The digest of what was put there since."""
    folders: tuple[str, ...] = field(default=())
    """Folders on the way that were made, the outermost first."""


def recorded(paths: Paths) -> dict[str, Original]:
    """The originals of all that is changed now, by path on the host, in the order in which they were changed.

    :raises StoreError: the record is there and cannot be read.
    """
    data = store.read(_record(paths))
    if data is None:
        return {}
    try:
        return {str(path): _from_json(value) for path, value in json.loads(data)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{_record(paths)}: damaged; what was changed must be undone by hand") from None


def differing(edits: Iterable[FileEdit], paths: Paths) -> list[FileEdit]:
    """The edits whose file is not as it shall be."""
    return [edit for edit in edits if not _is(edit, paths.at(edit.path))]


def put(edits: Iterable[FileEdit], paths: Paths) -> list[str]:
    """Put the files in place; the originals are recorded first. Those that are as they shall be are not touched.

    :returns: the paths that changed.
    :raises StoreError: nothing was changed, or what was is put back.
    """
    wanted = differing(edits, paths)
    if not wanted:
        return []
    originals = recorded(paths)
    new = dict(originals)
    for edit in wanted:
        known = originals.get(edit.path) or _look(paths, edit.path)
        new[edit.path] = replace(known, wrote=store.digest(edit.data))
    _save(paths, new)
    done: list[FileEdit] = []
    try:
        for edit in wanted:
            _write(paths.at(edit.path), edit.data, edit.mode)
            done.append(edit)
    except StoreError:
        for edit in reversed(done):
            _restore(paths, edit.path, new[edit.path])
        _save(paths, originals)
        raise
    return [edit.path for edit in wanted]


def put_back(paths: Paths, only: Iterable[str] | None = None, *, force: bool = False) -> list[str]:
    """Put the originals back, the last change first.

    :param only: these paths; by default all.
    :param force: also where somebody has changed the file since.
    :returns: what was left as it is, in words: files that somebody has changed since.
    """
    originals = recorded(paths)
    chosen = list(originals) if only is None else [path for path in only if path in originals]
    left = []
    for path in reversed(chosen):
        original = originals[path]
        now = store.read(paths.at(path)) if not paths.at(path).is_symlink() else None
        if now is not None and store.digest(now) != original.wrote and not force:
            left.append(f"{path} was changed since; it is left as it is")
        else:
            _restore(paths, path, original)
        del originals[path]
        _save(paths, originals)
    return left


# ---------------------------------------------------------------- one file


def _is(edit: FileEdit, path: Path) -> bool:
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == edit.mode
            and path.read_bytes() == edit.data
        )
    except OSError:
        return False


def _look(paths: Paths, path: str) -> Original:
    """What is at ``path`` now."""
    place = paths.at(path)
    missing = [str(folder) for folder in reversed(Path(path).parents) if not paths.at(folder).exists()]
    try:
        if place.is_symlink():
            return Original(target=os.readlink(place))
        return Original(data=place.read_bytes(), mode=stat.S_IMODE(place.stat().st_mode), folders=tuple(missing))
    except (FileNotFoundError, NotADirectoryError):
        return Original(folders=tuple(missing))
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    store.write_all({path: data})
    if mode != store.MODE:
        path.chmod(mode)


def _restore(paths: Paths, path: str, original: Original) -> None:
    place = paths.at(path)
    try:
        if original.target is not None:
            temporary = place.with_name(f".gfwtools-{place.name}.link")
            with suppress(FileNotFoundError):
                temporary.unlink()
            temporary.symlink_to(original.target)
            temporary.replace(place)
        elif original.data is not None:
            _write(place, original.data, original.mode)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be put back: {error.strerror}") from None
    for folder in reversed(original.folders):
        with suppress(OSError):  # somebody else has put something there
            paths.at(folder).rmdir()


# ---------------------------------------------------------------- the record


def _record(paths: Paths) -> Path:
    return paths.state_dir / "bootstrap.json"


def _save(paths: Paths, originals: Mapping[str, Original]) -> None:
    if not originals:
        with suppress(FileNotFoundError):
            _record(paths).unlink()
        return
    document = {"files": {path: _to_json(original) for path, original in originals.items()}}
    store.write_all({_record(paths): (json.dumps(document, indent=1) + "\n").encode()})


def _to_json(original: Original) -> dict[str, Any]:
    return {
        "data": None if original.data is None else base64.b64encode(original.data).decode("ascii"),
        "target": original.target,
        "mode": original.mode,
        "wrote": original.wrote,
        "folders": list(original.folders),
    }


def _from_json(value: Mapping[str, Any]) -> Original:
    return Original(
        data=None if value["data"] is None else base64.b64decode(value["data"], validate=True),
        target=None if value["target"] is None else str(value["target"]),
        mode=int(value["mode"]),
        wrote=str(value["wrote"]),
        folders=tuple(map(str, value["folders"])),
    )
