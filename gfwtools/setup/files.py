"""Files of the host that ``bootstrap`` writes or changes, and what they were before (bootstrap.json).

The record is written before a file is touched, so that ``teardown`` knows the way back whenever the power goes.
"""

import base64
import json
import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gfwtools.config.model import Paths
from gfwtools.errors import StoreError
from gfwtools.storage import atomic, displaced

# What resolver_setup puts into a file that is somebody else's.
_OURS = re.compile(rb"^# gfwtools begin.*?^# gfwtools end\n", re.MULTILINE | re.DOTALL)

#: How the heading of a file begins that is ours as a whole.
_WRITTEN = b"# Written by gfwtools"

__all__ = ["FileEdit", "Original", "adopt", "differing", "put", "put_back", "record_path", "recorded"]


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A file as it shall be: ``path`` on the host (without the root), its whole content, and the reason."""

    path: str
    data: bytes
    why: str
    mode: int = 0o644
    """Of a file that was not there before; another one keeps its own."""


@dataclass(frozen=True, slots=True)
class Original:
    """What was at a path before: a file, a symbolic link (its target), or nothing."""

    data: bytes | None = None
    target: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    wrote: str = ""
    """The digest of what was put there since."""
    folders: tuple[str, ...] = field(default=())
    """Folders on the way that were made, the outermost first."""


def recorded(paths: Paths) -> dict[str, Original]:
    """The originals of all that is changed now, by path on the host, in the order in which they were changed.

    :raises StoreError: the record is there and cannot be read.
    """
    data = atomic.read(record_path(paths))
    if data is None:
        return {}
    try:
        return {str(path): _from_json(value) for path, value in json.loads(data)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{record_path(paths)}: damaged; what was changed must be undone by hand") from None


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
        known = originals.get(edit.path)
        if known is None or not (_is_still(paths, edit.path, known) or _grew_from(edit, paths)):
            # Somebody has written it since (DHCP a new resolv.conf): teardown gives that back.
            known = _look(paths, edit.path)
        new[edit.path] = replace(known, wrote=atomic.digest(edit.data))
    _save(paths, new)
    done: list[FileEdit] = []
    try:
        for edit in wanted:
            like = new[edit.path]
            done.append(edit)
            _write(paths.at(edit.path), edit.data, like if like.data is not None else replace(like, mode=edit.mode))
    except StoreError:
        for edit in reversed(done):
            _restore(paths, edit.path, new[edit.path])
        _save(paths, originals)
        raise
    return [edit.path for edit in wanted]


def put_back(
    paths: Paths, only: Iterable[str] | None = None, *, whole: Iterable[str] = (), force: bool = False
) -> dict[str, str]:
    """Put the originals back, the last change first.

    :param only: these paths; by default all.
    :param whole: files that the host cannot do with when we have gone. Where one of them is ours and somebody has
        edited it, the original comes back all the same.
    :param force: also where somebody has changed the file since.
    :returns: the files that somebody has changed since, by their paths: what was done about each, in words.
    """
    originals = recorded(paths)
    chosen = list(originals) if only is None else [path for path in only if path in originals]
    left: dict[str, str] = {}
    for path in reversed(chosen):
        original = originals[path]
        changed = not force and paths.at(path).exists() and not _is_still(paths, path, original)
        # Where it is the original, an earlier run has put it back, and ended before the record said so.
        if changed and not _is_original(paths.at(path), original):
            now = atomic.read(paths.at(path)) or b""
            if path in whole and not paths.at(path).is_symlink() and _says_so(now):
                copy = displaced.keep_data(paths, paths.at(path), now, original.mode)
                _restore(paths, path, original)
                left[path] = f"{path} was changed since; what was there before is back, and the other one is {copy}"
            elif not paths.at(path).is_symlink() and _OURS.search(now):
                _write(paths.at(path), _OURS.sub(b"", now), original)
                left[path] = f"{path} was changed since; only the lines of gfwtools were taken out"
            else:
                how = _how_to_go_back(paths, path, original)
                left[path] = f"{path} was changed since; it is left as it is; {how}"
        else:
            _restore(paths, path, original)
        del originals[path]
        _save(paths, originals)
    return left


def adopt(paths: Paths, places: Iterable[str], instead: Mapping[str, bytes]) -> list[str]:
    """Record the files of ours that the record does not know, as somebody has removed it: what is ours alone was not
    there before, as far as anybody can tell.

    :param places: where files of ours may be, on the host.
    :param instead: of files that the host cannot do without, what to put there when ours goes.
    :returns: the files that were not known.
    """
    known = recorded(paths)
    found: dict[str, Original] = {}
    for path in places:
        data = None if path in known or paths.at(path).is_symlink() else atomic.read(paths.at(path))
        if data is None:
            continue
        if _OURS.search(data):
            before: bytes | None = _OURS.sub(b"", data)
        elif _says_so(data) or "gfwtools" in path.rpartition("/")[2]:
            before = instead.get(path)
        else:
            continue
        found[path] = replace(_look(paths, path), data=before, wrote=atomic.digest(data))
    if found:
        _save(paths, {**known, **found})
    return list(found)


def _how_to_go_back(paths: Paths, path: str, original: Original) -> str:
    """What to type for what was there before; it is kept, as the record of it goes."""
    place = paths.at(path)
    if original.target is not None:
        return f"before, it was a link: ln -sfn {shlex.quote(original.target)} {shlex.quote(str(place))}"
    if original.data is None:
        return f"before, there was none: rm {shlex.quote(str(place))}"
    copy = displaced.keep_data(paths, place, original.data, original.mode)
    return f"what was there before: cp {shlex.quote(str(copy))} {shlex.quote(str(place))}"


# ---------------------------------------------------------------- one file


def _is(edit: FileEdit, path: Path) -> bool:
    try:
        status = path.lstat()
        executable = edit.mode == stat.S_IMODE(status.st_mode) or edit.mode == atomic.MODE
        return stat.S_ISREG(status.st_mode) and executable and path.read_bytes() == edit.data
    except OSError:
        return False


def _look(paths: Paths, path: str) -> Original:
    """What is at ``path`` now."""
    place = paths.at(path)
    missing = [str(folder) for folder in reversed(Path(path).parents) if not paths.at(folder).exists()]
    try:
        if place.is_symlink():
            return Original(target=os.readlink(place))
        status = place.stat()
        return Original(
            data=_OURS.sub(b"", place.read_bytes()),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            folders=tuple(missing),
        )
    except (FileNotFoundError, NotADirectoryError):
        return Original(folders=tuple(missing))
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}") from None


def _grew_from(edit: FileEdit, paths: Paths) -> bool:
    """Whether somebody has edited a file that is ours alone: the line that says so is still in it."""
    heading = next((line for line in edit.data.split(b"\n")[:3] if line[:1] == b"#" and b"gfwtools" in line), None)
    if heading is None or _OURS.search(edit.data) or paths.at(edit.path).is_symlink():
        return False
    return heading in (atomic.read(paths.at(edit.path)) or b"").split(b"\n")


def _is_original(place: Path, original: Original) -> bool:
    """Whether it is as it was before us."""
    if place.is_symlink() or original.target is not None:
        return place.is_symlink() and os.readlink(place) == original.target
    return original.data is not None and atomic.read(place) == original.data


def _says_so(data: bytes) -> bool:
    """Whether the head of a file says that it is ours, as a whole. That somebody speaks of us there is not enough."""
    return any(line.startswith(_WRITTEN) for line in data.split(b"\n")[:3]) and not _OURS.search(data)


def _is_still(paths: Paths, path: str, original: Original) -> bool:
    """Whether the file is as we have written it."""
    place = paths.at(path)
    if place.is_symlink():
        return False
    data = atomic.read(place)
    return data is not None and atomic.digest(data) == original.wrote


def _write(path: Path, data: bytes, like: Original) -> None:
    """Write the file with the mode and the owner of the ``like``; what is secret in it is so at every moment."""
    atomic.write_all({path: data}, like.mode)
    try:
        if (like.uid, like.gid) != (path.stat().st_uid, path.stat().st_gid) and os.geteuid() == 0:
            os.chown(path, like.uid, like.gid)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None


def _restore(paths: Paths, path: str, original: Original) -> None:
    place = paths.at(path)
    try:
        if original.target is not None:
            atomic.put_link(place, original.target)
        elif original.data is not None:
            _write(place, original.data, original)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be put back: {error.strerror}") from None
    for folder in reversed(original.folders):
        with suppress(OSError):  # somebody else has put something there
            paths.at(folder).rmdir()


# ---------------------------------------------------------------- the record


def record_path(paths: Paths) -> Path:
    """Where the record is."""
    return paths.state_dir / "bootstrap.json"


def _save(paths: Paths, originals: Mapping[str, Original]) -> None:
    if not originals:
        atomic.remove([record_path(paths)])
        return
    document = {"files": {path: _to_json(original) for path, original in originals.items()}}
    # Whoever may not read one of the files may not read it here.
    secret = any(original.data is not None and not original.mode & 0o004 for original in originals.values())
    mode = 0o600 if secret else atomic.MODE
    atomic.write_all({record_path(paths): (json.dumps(document, indent=1) + "\n").encode()}, mode)


def _to_json(original: Original) -> dict[str, Any]:
    return {
        "data": None if original.data is None else base64.b64encode(original.data).decode("ascii"),
        "target": original.target,
        "mode": original.mode,
        "uid": original.uid,
        "gid": original.gid,
        "wrote": original.wrote,
        "folders": list(original.folders),
    }


def _from_json(value: Mapping[str, Any]) -> Original:
    return Original(
        data=None if value["data"] is None else base64.b64decode(value["data"], validate=True),
        target=None if value["target"] is None else str(value["target"]),
        mode=int(value["mode"]),
        uid=int(value["uid"]),
        gid=int(value["gid"]),
        wrote=str(value["wrote"]),
        folders=tuple(map(str, value["folders"])),
    )
