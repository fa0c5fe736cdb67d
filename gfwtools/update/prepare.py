"""Everything that an update does before it writes: for each policy its list, its files and its new state."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from gfwtools.config.model import BackendName, Config, PolicyConfig
from gfwtools.dnsmasq.version import filters_here
from gfwtools.lists.policy import Cover
from gfwtools.plumbing.choice import decide_here
from gfwtools.render.backends import TEXTS
from gfwtools.render.files import Role, cover_of, files_of, on_host, role_of, unset_of, without_claimed
from gfwtools.storage import atomic
from gfwtools.storage.state import Change, Mirror, PolicyState, State, read_state
from gfwtools.update.inputs import UserLists, digest_of
from gfwtools.update.obtain import obtain, public
from gfwtools.update.own_lists import fetch_own_lists, held_own_lists
from gfwtools.update.values import Obtained, PolicyUpdate, Update

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress
    from gfwtools.lists.compiler import Compiled

__all__ = ["prepare"]


def prepare(
    config: Config,
    *,
    sources: Sequence[str] = (),
    offline: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
    edits: Mapping[Path, bytes] = MappingProxyType({}),
) -> Update:
    """Everything that :func:`update` does before it writes.

    :param edits: the new content of files of the user's; they are a part of the update.
    :raises GfwtoolsError: no list, or one that may not be used.
    """
    state = read_state(config.paths.state)
    backend = decide_here(config)
    done: list[PolicyUpdate] = []
    inputs = ""
    own_lists = held_own_lists(config) if offline else fetch_own_lists(config, state, progress)
    for index, policy in enumerate(config.policies):
        own = UserLists.read(config, policy, {**own_lists.copies, **edits})
        obtained = obtain(
            config,
            policy,
            state.of(policy.name),
            own,
            explicit=tuple(sources) if index == 0 else (),
            offline=offline,
            force=force,
            progress=progress,
        )
        inputs = digest_of(config, policy, obtained.decoded, own, backend, inputs)
        before = state.of(policy.name)
        if mirrors := own_lists.mirrors_of(policy):
            before = before._replace(mirrors=before.mirrors | mirrors)
        done.append(_prepare_policy(config, policy, backend, before, obtained, inputs, done, force))
    gone = {
        name: _files_of(config, name, policy_state)
        for name, policy_state in state.policies.items()
        if name not in {policy.name for policy in config.policies}
    }
    warnings = [*([state.problem] if state.problem else []), *own_lists.warnings]
    warnings += [f"policy.{name} is no longer in the configuration; its files are removed" for name in gone]
    new_state = State({update.policy.name: update.state for update in done})
    learned = new_state.policies != state.policies
    return Update(tuple(done), new_state, gone, tuple(warnings), learned, own_lists.copies, edits)


def _prepare_policy(
    config: Config,
    policy: PolicyConfig,
    backend: BackendName,
    state: PolicyState,
    obtained: Obtained,
    inputs: str,
    before: Sequence[PolicyUpdate],
    force: bool,
) -> PolicyUpdate:
    decoded = obtained.decoded
    if state.inputs == inputs and _intact(config, state):
        return PolicyUpdate(policy, obtained, _with_answer(state, obtained), warnings=obtained.warnings)
    from gfwtools.update.measure import changed_much  # most updates bring nothing new
    from gfwtools.update.reference import next_reference

    compiled = obtained.compiler()
    cover, claimed = _cover(config, policy, compiled, before)
    warnings = [*obtained.warnings, *(str(problem) for problem in compiled.problems), *claimed]
    unset = unset_of(config, compiled)
    files = files_of(
        config, policy, cover, compiled.seeds, decoded, TEXTS[backend], unset, filters=filters_here(config)
    )
    domains_file = config.paths.domains(policy.name)
    written = atomic.read_ours(domains_file)
    added, removed = _difference(written, cover.tunnelled)
    list_digest = atomic.digest(decoded.data)
    is_other = bool(state.list_digest) and state.list_digest != list_digest
    reference = next_reference(config, policy, state, datetime.now(UTC), is_other=is_other, force=force)
    if reference.data:
        files = {config.paths.reference(policy.name): reference.data, **files}
    if is_other and not state.starter and written:
        much = changed_much(written.count(b"\n"), len(added), len(removed))
        warnings += [f"policy.{policy.name}: {much}"] if much else []
    new_state = PolicyState(
        source=obtained.source,
        starter=obtained.starter,
        list_date=decoded.last_modified,
        list_digest=list_digest,
        inputs=inputs,
        updated=atomic.now(),
        counts=compiled.counts()._asdict(),
        domains=len(cover.tunnelled),
        files={on_host(config, path): atomic.digest(data) for path, data in files.items()},
        effective=_effective(config, policy, files),
        loaded=state.loaded,
        mirrors=_mirrors(state, obtained),
        answered=obtained.answered or state.answered,
        reference=reference.since,
        history=state.history,
    )
    obsolete = (path for path in _files_of(config, policy.name, state) if on_host(config, path) not in new_state.files)
    new_state = new_state.remember(_change(new_state, added, removed, forced=force and is_other))
    return PolicyUpdate(policy, obtained, new_state, files, tuple(obsolete), added, removed, tuple(warnings))


def _cover(
    config: Config, policy: PolicyConfig, compiled: "Compiled", before: Sequence[PolicyUpdate]
) -> tuple[Cover, list[str]]:
    """What dnsmasq gets of a policy, and a warning about what an earlier one has as well."""
    cover = cover_of(config, compiled)
    if not before:
        return cover, []
    claimed = {pattern for other in before for pattern in cover_of(config, other.compiled).patterns}
    cover, lost = without_claimed(cover, claimed)
    if not lost:
        return cover, []
    more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
    names = f"{', '.join(lost[:3])}{more}"
    return cover, [f"policy.{policy.name}: an earlier policy has {names} as well, and keeps what it has"]


def _effective(config: Config, policy: PolicyConfig, files: Mapping[Path, bytes]) -> dict[str, str]:
    """The digests of what programs read of the files."""
    return {
        on_host(config, path): atomic.digest(_without_comments(data))
        for path, data in files.items()
        if role_of(config, policy, path) is not Role.NONE
    }


def _change(state: PolicyState, added: Sequence[str], removed: Sequence[str], *, forced: bool) -> Change:
    """The entry in the history."""
    numbers = (state.domains, len(added), len(removed))
    return Change(state.updated, state.source, state.list_digest, state.counts, *numbers, forced)


def _mirrors(state: PolicyState, obtained: Obtained) -> dict[str, Mirror]:
    """The validators of every mirror, with those of the one that answered."""
    mirrors = {public(source): mirror for source, mirror in state.mirrors.items()}
    if obtained.mirror:
        mirrors[obtained.source] = obtained.mirror
    return mirrors


def _with_answer(state: PolicyState, obtained: Obtained) -> PolicyState:
    """The state of a policy that has nothing new. It is another one only where another mirror answered than the last
    time: a run in which nothing at all is new writes no file."""
    if obtained.answered in ("", state.answered):
        return state
    return state._replace(answered=obtained.answered, mirrors=_mirrors(state, obtained))


def _without_comments(data: bytes) -> memoryview:
    """What a program reads of a file of ours, which has comments at its head only: a list's new date is nothing to
    reload for."""
    start = 0
    while data.startswith(b"#", start):
        start = data.find(b"\n", start) + 1 or len(data)
    return memoryview(data)[start:]


def _files_of(config: Config, policy: str, state: PolicyState) -> tuple[Path, ...]:
    """The files that the state speaks of. It is only a file, too: nothing but names of ours is believed."""
    endings = ("conf", "servers", "list", "earlier", "direct", "domains", "ipset", "nft")
    names = {f"{policy}.{ending}" for ending in endings}
    paths = map(Path, state.in_place)
    return tuple(config.paths.at(path) for path in paths if path.name in names and ".." not in path.parts)


def _intact(config: Config, state: PolicyState) -> bool:
    """Whether every file is as the last update left it."""
    return bool(state.files) and all(
        atomic.is_as_written(config.paths.at(file), expected) for file, expected in state.files.items()
    )


def _difference(before: bytes | None, new: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The domains that came and those that went. Both lists are sorted, so that no set of a million is made of one."""
    if not before:
        return tuple(new), ()
    from gfwtools.lists.rule import batches

    added, removed = [], []
    lines = (line for _, lines in batches(before.decode("utf-8", "replace")) for line in lines if line)
    old = next(lines, None)
    for domain in new:
        while old is not None and old < domain:
            removed.append(old)
            old = next(lines, None)
        if old == domain:
            old = next(lines, None)
        else:
            added.append(domain)
    removed += [] if old is None else [old, *lines]
    return tuple(added), tuple(removed)
