"""``deny`` and ``allow``: edits the user's own lists, and shows what that changes for a name.

Of the user's domains the longest one decides; of one that is on both lists, deny (:meth:`Policy.lookup
<gfwtools.lists.policy.Policy.lookup>`). So an entry that goes onto one list leaves the other one of the same policy.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from gfwtools.config.model import Config, PolicyConfig, is_url
from gfwtools.config.userinfo import masked
from gfwtools.dnsmasq.conf import is_wired
from gfwtools.errors import ConfigError, GfwtoolsError, ListError
from gfwtools.lists.answer import decide
from gfwtools.lists.compiler import Compiled
from gfwtools.lists.decode import text_of
from gfwtools.lists.entries import Entry, entries_in, with_entry, without_entry
from gfwtools.lists.policy import Verdict
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state
from gfwtools.system.commands import System
from gfwtools.update.freed import Freed
from gfwtools.update.inputs import STARTER_NAME, USER_LIST_LIMIT, UserLists, compile_with, list_or_starter
from gfwtools.update.replace import NOTHING
from gfwtools.update.update import update

__all__ = ["Edited", "Effect", "Outcome", "Side", "edit_lists", "preview", "reloads"]

Side = Literal["deny", "allow"]
_OTHER: dict[Side, Side] = {"deny": "allow", "allow": "deny"}


class Outcome(NamedTuple):
    """What was done about one entry, in words."""

    changed: bool
    done: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Effect(NamedTuple):
    """What happens to a name, or to an address, and by what."""

    verdict: Verdict
    reason: str
    """``list``, ``deny``, ``allow``, ``exception`` or ``none``; empty for an address."""
    matched: str | None = None
    policy: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "reason": self.reason or None, "matched": self.matched, "policy": self.policy}


class Edited(NamedTuple):
    """What an edit does to the lists, and to each entry."""

    files: Mapping[Path, bytes] = MappingProxyType({})
    """The lists that change: their new content."""
    outcomes: Mapping[Entry, Outcome] = MappingProxyType({})
    before: Mapping[Entry, Effect] = MappingProxyType({})
    after: Mapping[Entry, Effect] = MappingProxyType({})


def reloads(config: Config) -> bool:
    """Whether there is a dnsmasq that reads our files: bootstrap has run, or an ``update --reload``.

    Below another root than / there is none: the one that runs is this host's.
    """
    if config.root != Path("/"):
        return False
    return is_wired(config) or any(policy.loaded for policy in read_state(config.paths.state).policies.values())


def edit_lists(
    config: Config, policy: PolicyConfig, side: Side, entries: Sequence[Entry], *, remove: bool
) -> tuple[Edited, list[str], list[str]]:
    """Put ``entries`` onto a list of the user's or take them off it, merge, and have the daemons read the result.

    It is one transaction: where a step fails, the lists are as before.

    :returns: what was done, what the reload did, and the update's warnings, in words.
    :raises GfwtoolsError: nothing was changed, or all of it was put back.
    """
    edited = Edited()
    freed: list[Freed] = []
    reload = reloads(config)

    def edit() -> Mapping[Path, bytes]:
        nonlocal edited, freed
        edited = preview(config, policy, side, entries, remove=remove)
        freed = _freed(config, edited) if reload else []
        return edited.files

    try:
        done, notes = update(config, offline=True, reload=reload, edit=edit)
    except GfwtoolsError as error:
        error.outcome = error.outcome or NOTHING
        raise
    warnings = done.all_warnings
    compiled = _compiled(config, {}, None) if freed else ()
    for each in freed:
        try:
            notes += each.release(partial(_takes, each.policy, compiled))
        except GfwtoolsError as error:  # the list is in use all the same
            warnings.append(f"addresses of {', '.join(each.names)} may still be in the set: {error}")
    return edited, notes, warnings


def _freed(config: Config, edited: Edited) -> list[Freed]:
    """The names that the edit takes from a policy."""
    names: dict[str, list[str]] = {}
    for entry, before in edited.before.items():
        if entry.name and (before.verdict, edited.after[entry].verdict) == ("tunnel", "direct"):
            names.setdefault(before.policy, []).append(entry.name)
    return [Freed(config, policy, names[policy.name], System()) for policy in config.policies if policy.name in names]


def _takes(policy: PolicyConfig, compiled: Sequence[tuple[PolicyConfig, Compiled]], name: str) -> bool:
    """Whether a name takes the tunnel by that policy."""
    decides, found = decide(name, compiled)
    return decides == policy and found.policy.match(name).verdict == "tunnel"


def preview(config: Config, policy: PolicyConfig, side: Side, entries: Sequence[Entry], *, remove: bool) -> Edited:
    """What :func:`edit_lists` would do to the lists as they are now.

    :raises GfwtoolsError: it cannot be done.
    """
    lists = _Lists(config, policy)
    change = lists.remove if remove else lists.add
    outcomes = {entry: change(side, entry) for entry in dict.fromkeys(entries)}
    files = lists.changed()
    before = _effects(config, entries, {})
    return Edited(files, outcomes, before, _effects(config, entries, files) if files else before)


class _Lists:
    """The user's lists of one policy, in memory."""

    def __init__(self, config: Config, policy: PolicyConfig) -> None:
        self._config = config
        self._policy = policy
        self._said: dict[Side, tuple[str, ...]] = {"deny": policy.deny, "allow": policy.allow}
        self._before: dict[Path, bytes | None] = {}
        self._now: dict[Path, bytes | None] = {}
        self._read: dict[Path, tuple[bytes, dict[int, Entry]]] = {}
        for entry in (*policy.deny, *policy.allow):
            path = config.paths.own_list(entry)
            if path not in self._before:
                self._before[path] = self._now[path] = atomic.read(config.paths.follow(path), limit=USER_LIST_LIMIT)

    def changed(self) -> dict[Path, bytes]:
        return {path: data for path, data in self._now.items() if data is not None and data != self._before[path]}

    def add(self, side: Side, entry: Entry) -> Outcome:
        holding = self._holding(side, entry)
        moved, comment, kept = self._take_off(_OTHER[side], entry)
        warnings = []
        if kept:
            where = ", ".join(kept)
            if side == "allow":
                raise ListError(f"{entry.text} is in {where} too, and deny wins", "take it out of that list")
            warnings.append(f"{entry.text} is in {where} too; deny wins")
        if holding:
            words = [f"{entry.text} is already in {', '.join(holding)}"]
            words += [f"removed {entry.text} from {path}" for path in moved]
            return Outcome(bool(moved), tuple(words), tuple(warnings))
        path = self._first_file(side)
        try:
            self._now[path] = with_entry(self._now[path] or b"", entry, comment)
        except ListError as error:
            raise ListError(f"{path}: {error.what}", error.remedy) from None
        words = [
            f"moved {entry.text} from {', '.join(map(str, moved))} to {path}"
            if moved
            else f"added {entry.text} to {path}"
        ]
        if entry.name and "." not in entry.name:
            warnings.append(
                f"{entry.text} is a whole top-level domain, with every name under it; "
                f"to undo it: gfwtools {side} --remove {entry.text}"
            )
        return Outcome(True, tuple(words), (*warnings, *self._longer(side, entry)))

    def remove(self, side: Side, entry: Entry) -> Outcome:
        found, _, kept = self._take_off(side, entry)
        warnings = tuple(f"{entry.text} is in {place} too, where it stays" for place in kept)
        if found:
            return Outcome(True, tuple(f"removed {entry.text} from {path}" for path in found), warnings)
        places = ", ".join(self._places(side)) or f"policy.{self._policy.name}.{side}"
        return Outcome(False, () if kept else (f"{entry.text} is not in {places}",), warnings)

    def _holding(self, side: Side, entry: Entry) -> list[str]:
        """The lists of that side that have the entry."""
        return [
            place for said, place in zip(self._said[side], self._places(side), strict=True) if self._has(said, entry)
        ]

    def _places(self, side: Side) -> list[str]:
        return [masked(said) if is_url(said) else str(self._config.paths.at(said)) for said in self._said[side]]

    def _has(self, said: str, entry: Entry) -> bool:
        return entry in self._entries(said).values()

    def _entries(self, said: str) -> dict[int, Entry]:
        """Line -> entry, of a list as it is now; a list that is not there has none."""
        path = self._config.paths.own_list(said)
        data = self._now[path] or b""
        if path not in self._read or self._read[path][0] is not data:
            self._read[path] = data, entries_in(text_of(data))
        return self._read[path][1]

    def _take_off(self, side: Side, entry: Entry) -> tuple[list[Path], str, list[str]]:
        """Remove the entry from every file of that side.

        :returns: the files that had it, the comment behind it there, and the URLs that have it.
        """
        files: list[Path] = []
        comments: list[str] = []
        kept: list[str] = []
        for said, place in zip(self._said[side], self._places(side), strict=True):
            if not self._has(said, entry):
                continue
            if is_url(said):
                kept.append(place)
                continue
            path = self._config.paths.at(said)
            try:
                removed = without_entry(self._now[path] or b"", entry)
            except ListError as error:
                raise ListError(f"{path}: {error.what}", error.remedy) from None
            self._now[path] = removed.data
            files.append(path)
            comments += removed.comments
        return files, "; ".join(comments), kept

    def _first_file(self, side: Side) -> Path:
        """The file that takes new entries.

        :raises ConfigError: the policy names none.
        """
        for said in self._said[side]:
            if not is_url(said):
                return self._config.paths.at(said)
        key = f"policy.{self._policy.name}.{side}"
        raise ConfigError(f"{key} names no file", f'add one in config.toml: {side} = ["/etc/gfwtools/{side}.txt"]')

    def _longer(self, side: Side, entry: Entry) -> list[str]:
        """What the other list says about names under this one: the longer domain decides."""
        if not entry.name:
            return []
        verdict = "direct" if side == "deny" else "through the tunnel"
        found = []
        for said, place in zip(self._said[_OTHER[side]], self._places(_OTHER[side]), strict=True):
            for line, other in self._entries(said).items():
                if other.name and other.name.endswith(f".{entry.name}"):
                    found.append(f"{other.name} stays {verdict}: {place} line {line} is about the longer name")
        return found


def _effects(config: Config, entries: Sequence[Entry], edits: Mapping[Path, bytes]) -> dict[Entry, Effect]:
    """What happens to each entry by the lists as they are with ``edits``."""
    # Of one name alone the rules about it are enough.
    compiled = _compiled(config, edits, entries[0].name if len(entries) == 1 else None)
    return {entry: _effect(entry, compiled) for entry in entries}


def _compiled(config: Config, edits: Mapping[Path, bytes], about: str | None) -> list[tuple[PolicyConfig, Compiled]]:
    """Every policy, with the user's lists as they are with ``edits``."""
    compiled = []
    for policy in config.policies:
        decoded, _ = list_or_starter(config, policy)
        path = config.paths.list(policy.name)
        source = str(path) if path.exists() else STARTER_NAME
        own = UserLists.read(config, policy, edits)
        compiled.append((policy, compile_with(source, policy, decoded, own, about)))
    return compiled


def _effect(entry: Entry, compiled: Sequence[tuple[PolicyConfig, Compiled]]) -> Effect:
    if entry.name:
        policy, decided = decide(entry.name, compiled)
        match = decided.policy.match(entry.name)
        return Effect(match.verdict, match.reason, match.matched, policy.name)
    network = entry.network
    assert network is not None
    for policy, found in compiled:
        for seed in found.seeds:
            if (
                seed.version == network.version
                and network.network_address in seed
                and network.prefixlen >= seed.prefixlen
            ):
                return Effect("tunnel", "", str(seed), policy.name)
    return Effect("direct", "", None, compiled[0][0].name)
