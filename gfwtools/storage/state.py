"""``state.json``: the last update of each policy, and the history of updates.

It is written last and holds the digests of the other files. So the next run sees what a killed run left undone, and
finishes it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from gfwtools.storage.atomic import read_ours, write_all

__all__ = ["HISTORY", "Change", "Mirror", "PolicyState", "State", "read_state", "usable_of", "write_state"]

STATE_VERSION = 1
#: How many updates ``state.json`` remembers.
HISTORY = 30
#: No text of ours is longer (characters): PATH_MAX. Texts from the network are cut far below it by fetch.
MAX_TEXT = 4096
#: No count of ours comes near; Python cannot make a float of a number of any length.
_MAX_COUNT = 2**53
#: The default of what a state maps. All of them share it; nothing in a state is ever changed in place.
_NOTHING: dict[str, Any] = {}


class Mirror(NamedTuple):
    """The validators of a mirror for its list (RFC 9110 section 8.8), and the digest of that list."""

    etag: str = ""
    last_modified: str = ""
    digest: str = ""


class Change(NamedTuple):
    """An update that changed something, for the history."""

    date: str
    """ISO 8601, UTC."""
    source: str
    digest: str
    counts: dict[str, Any]
    domains: int
    added: int
    removed: int
    forced: bool = False
    """The user has given ``--force`` for this list: what was before counts for nothing when the next is measured."""


def usable_of(counts: dict[str, Any]) -> int | None:
    """How many rules name a host, of the ``counts`` of a state; None where they do not say."""
    match counts:
        case {"read": int(read), "dropped": dict(dropped)} if all(isinstance(n, int) for n in dropped.values()):
            return read - sum(dropped.values())
    return None


class PolicyState(NamedTuple):
    """The last update of a policy."""

    source: str = ""
    """Where the list came from: a URL, a path, or ``starter list``."""
    starter: bool = False
    list_date: str = ""
    list_digest: str = ""
    inputs: str = ""
    """A digest over everything that the files are made from."""
    updated: str = ""
    """When the files last changed: ISO 8601, UTC."""
    counts: dict[str, Any] = _NOTHING
    domains: int = 0
    files: dict[str, str] = _NOTHING
    """Path without the root -> digest. The digest is empty where teardown has removed the file."""
    effective: dict[str, str] = _NOTHING
    """The same for the content that running programs read, without comments."""
    loaded: dict[str, str] = _NOTHING
    """The part of :attr:`effective` that they have proven to have read; where the two differ, a reload is due."""
    mirrors: dict[str, Mirror] = _NOTHING
    answered: str = ""
    """The configured source that answered last, without its password: the next update asks it first."""
    reference: str = ""
    """Since when the list that new ones are compared with is not in use any more: ISO 8601, UTC."""
    history: tuple[Change, ...] = ()

    @property
    def in_place(self) -> list[str]:
        """The paths of the files that were written and not removed since."""
        return [path for path, written in self.files.items() if written]

    def remember(self, change: Change) -> "PolicyState":
        """The state with one more update in its history. Of the older ones the largest list stays as long as others
        are measured by it: thirty small changes in a row do not make it forgotten."""
        history = [*self.history, change]
        while len(history) > HISTORY:
            oldest, *others = [usable_of(old.counts) or 0 for old in history]
            counts = oldest > max(others) and not any(old.forced for old in history[1:])
            history.pop(1 if counts else 0)
        return self._replace(history=tuple(history))

    def to_json(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "mirrors": {url: mirror._asdict() for url, mirror in self.mirrors.items()},
            "history": [change._asdict() for change in self.history],
        }


class State(NamedTuple):
    """``state.json``: it saves work and explains. Everything in it can be found again."""

    policies: dict[str, PolicyState] = _NOTHING
    problem: str = ""
    """Why the file was not used, in one line; not written."""

    def of(self, policy: str) -> PolicyState:
        return self.policies.get(policy, PolicyState())

    def to_json(self) -> bytes:
        document = {
            "version": STATE_VERSION,
            "policies": {name: policy.to_json() for name, policy in self.policies.items()},
        }
        return (json.dumps(document, indent=1) + "\n").encode()


def read_state(path: Path) -> State:
    """The state at ``path``. A missing, damaged or later version gives an empty state, with its ``problem``.

    :raises StoreError: the file is there and cannot be read.
    """
    data = read_ours(path)
    if data is None:  # a link there leads nowhere
        return State(problem=f"{path}: damaged; the next update replaces it" if path.is_symlink() else "")
    try:
        document = json.loads(data)
        if document["version"] != STATE_VERSION:
            version = repr(document["version"])[:20]
            return State(problem=f"{path}: has version {version}; this gfwtools writes version {STATE_VERSION}")
        return State({_text(name): _policy_state(value) for name, value in document["policies"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return State(problem=f"{path}: damaged; the next update replaces it")


def _policy_state(value: dict[str, Any]) -> PolicyState:
    """A policy's part of the file. A shape that we do not write raises TypeError or ValueError."""
    typed = _typed(PolicyState, value)
    for name in ("files", "effective", "loaded"):
        typed[name] = {_text(path): _text(digest) for path, digest in typed.get(name, {}).items()}
    mirrors = typed.get("mirrors", {}).items()
    typed["mirrors"] = {_text(url): Mirror(**_typed(Mirror, mirror)) for url, mirror in mirrors}
    typed["history"] = tuple(Change(**_typed(Change, change)) for change in typed.get("history", ())[-HISTORY:])
    return PolicyState(**typed)


def _typed(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """The known fields of ``value``, each checked for the type that ``kind`` declares and for a usable value."""
    types = {"str": str, "int": int, "bool": bool, "dict": dict, "tuple": list}
    kept = {}
    for name, annotation in kind.__annotations__.items():
        if name in value:
            expected = annotation if isinstance(annotation, type) else annotation.__origin__
            expected = types[expected.__name__]
            if type(value[name]) is not expected:  # true is no number
                raise TypeError(name)
            if expected is str:
                _text(value[name])
            elif expected is int:
                _count(value[name])
            kept[name] = value[name]
    for name, number in kept.get("counts", {}).items():
        _text(name)
        for reason, count in number.items() if type(number) is dict else (("", number),):
            _text(reason)
            _count(count)
    return kept


def _text(text: object) -> str:
    """A text that can be printed as UTF-8 and used as a path: no system call takes a NUL.

    :raises TypeError: it is not a text.
    :raises ValueError: it cannot be printed, is too long or has a NUL.
    """
    if type(text) is not str:
        raise TypeError(text)
    if len(text) > MAX_TEXT or "\0" in text:
        raise ValueError("no text of ours")
    if not text.isascii():
        text.encode()  # JSON can say half of a surrogate pair
    return text


def _count(number: object) -> None:
    """:raises TypeError: it is not a count."""
    if type(number) is not int or not 0 <= number <= _MAX_COUNT:  # true is no number, and NaN is none either
        raise TypeError(number)


def write_state(path: Path, state: State) -> None:
    """:raises StoreError: it could not be written."""
    write_all({path: state.to_json()})
