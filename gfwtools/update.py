"""``update``: the pipeline from a source to the files on disk, for every policy, all of it or nothing."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.config.userinfo import masked
from gfwtools.errors import ConfigError, FetchError, ListError
from gfwtools.inputs import STARTER_NAME, UserLists, compile_with, current_list, digest_of, is_starter, starter_list
from gfwtools.lists.decode import Decoded, decode
from gfwtools.lists.formats import Listing
from gfwtools.plumbing.backend import backend_of
from gfwtools.render.files import Role, cover_of, files_of, on_host, role_of, unset_of, without_claimed
from gfwtools.storage import atomic, displaced
from gfwtools.storage.lock import lock
from gfwtools.storage.state import MAX_TEXT, Change, Mirror, PolicyState, State, read_state

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress
    from gfwtools.lists.compiler import Compiled, Counts

__all__ = [
    "PolicyUpdate",
    "Update",
    "prepare",
    "require_list",
    "update",
]

#: Of a list's rules at least this share names a host; 98 of 100 did in the worst of the published lists. A page that
#: somebody's network gives in place of the list has a few lines that look like one.
USABLE_SHARE = 0.1


class Obtained(NamedTuple):
    """A list, decoded, and where it came from."""

    source: str
    decoded: Decoded
    compiler: Callable[[], "Compiled"]
    """Compiles it with the user's lists, once: whether it is a list at all is seen by compiling it."""
    starter: bool = False
    mirror: Mirror | None = None
    warnings: tuple[str, ...] = ()


class PolicyUpdate(NamedTuple):
    """What an update does, or did, to one policy."""

    policy: PolicyConfig
    obtained: Obtained
    state: PolicyState
    """The state after the update."""
    files: Mapping[Path, bytes] = {}
    """The whole content of every file of the policy; empty where nothing has changed."""
    obsolete: tuple[Path, ...] = ()
    """Files that the policy had in another layout or backend."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        return not self.files

    @property
    def source(self) -> str:
        return self.obtained.source

    @property
    def list_date(self) -> str:
        return self.obtained.decoded.last_modified

    @property
    def compiled(self) -> "Compiled":
        """The policy with the account of its rules."""
        return self.obtained.compiler()

    @property
    def counts(self) -> "Counts":
        return self.compiled.counts()


class Update(NamedTuple):
    """What an update does to all policies."""

    policies: tuple[PolicyUpdate, ...]
    state: State
    """The state after the update."""
    gone: Mapping[str, tuple[Path, ...]] = {}
    """Policies that are no longer in the configuration -> their files."""
    warnings: tuple[str, ...] = ()

    def files(self, config: Config) -> dict[Path, bytes]:
        """Every file to be written, the state last, in the order in which they go into place."""
        files: dict[Path, bytes] = {}
        for policy in self.policies:
            files.update(policy.files)
        if files or self.gone:
            files[config.paths.state] = self.state.to_json()
        return files

    @property
    def obsolete(self) -> list[Path]:
        """Files to be removed."""
        gone = [path for paths in self.gone.values() for path in paths]
        return [path for policy in self.policies for path in policy.obsolete] + gone


def update(
    config: Config,
    *,
    sources: Sequence[str] = (),
    offline: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
    reload: bool = False,
) -> tuple[Update, list[str]]:
    """Fetch, compile and write, with the lock held.

    :param sources: instead of the configured ones, for the first policy.
    :param offline: take the last good list (or the starter list) and use no network.
    :param force: accept a list that has shrunk below ``fetch.min_share``.
    :param reload: have dnsmasq and the kernel take the files, and see that they did.
    :returns: what was done, and what the reload did, in words.
    :raises GfwtoolsError: nothing was changed, or all of it was put back.
    """
    paths = config.paths
    with lock(paths.lock, wait=lock_wait()):
        folders = {config.dnsmasq_conf(policy).parent for policy in config.policies}
        atomic.remove_leftovers(paths.state_dir, paths.etc / "dns", *folders, tree=displaced.folder(paths))
        prepared = prepare(config, sources=sources, offline=offline, force=force, progress=progress)
        with displaced.keep(paths, (path for policy in prepared.policies for path in policy.files)) as told:
            prepared = prepared._replace(warnings=(*prepared.warnings, *told))
            if not reload:
                atomic.replace_all(prepared.files(config), prepared.obsolete, paths.state)
                return prepared, []
            from gfwtools.reload import install

            return prepared, install(config, prepared)


def prepare(
    config: Config,
    *,
    sources: Sequence[str] = (),
    offline: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
) -> Update:
    """Everything that :func:`update` does before it writes.

    :raises GfwtoolsError: no list, or one that may not be used.
    """
    state = read_state(config.paths.state)
    done: list[PolicyUpdate] = []
    inputs = ""
    for index, policy in enumerate(config.policies):
        own = UserLists.read(config, policy)
        obtained = _obtain(
            config,
            policy,
            state.of(policy.name),
            own,
            explicit=tuple(sources) if index == 0 else (),
            offline=offline,
            force=force,
            progress=progress,
        )
        inputs = digest_of(config, policy, obtained.decoded, own, inputs)
        done.append(_prepare_policy(config, policy, state.of(policy.name), obtained, inputs, done))
    gone = {
        name: _files_of(config, name, policy_state)
        for name, policy_state in state.policies.items()
        if name not in {policy.name for policy in config.policies}
    }
    warnings = [state.problem] if state.problem else []
    warnings += [f"policy.{name} is no longer in the configuration; its files are removed" for name in gone]
    return Update(tuple(done), State({update.policy.name: update.state for update in done}), gone, tuple(warnings))


def lock_wait() -> float:
    """How many seconds a second gfwtools waits for the first: 30, or GFWTOOLS_LOCK_WAIT.

    :raises ConfigError: the variable is no number.
    """
    text = os.environ.get("GFWTOOLS_LOCK_WAIT", "30")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ConfigError(f"GFWTOOLS_LOCK_WAIT: {text!r} is no number of seconds; give one such as 30") from None


# ---------------------------------------------------------------- the list


def _obtain(
    config: Config,
    policy: PolicyConfig,
    state: PolicyState,
    own: UserLists,
    *,
    explicit: tuple[str, ...],
    offline: bool,
    force: bool,
    progress: "Progress | None",
) -> Obtained:
    last = current_list(config, policy)
    starting = last is not None and is_starter(last, state)
    good = None if starting else last
    had_one = bool(state.list_digest) and not state.starter
    path = config.paths.list(policy.name)

    def compiler(decoded: Decoded) -> "Callable[[], Compiled]":
        return cache(lambda: compile_with(str(path), policy, decoded, own))

    def starter(warning: str) -> Obtained:
        decoded = starter_list()
        return Obtained(STARTER_NAME, decoded, compiler(decoded), True, warnings=(warning,))

    if offline:
        if last:
            return Obtained(_public(state.source) or str(path), last, compiler(last), starting)
        if had_one:
            raise ListError(f"{path} is missing or damaged; run: gfwtools update")
        if not _starter_stands_in(policy):
            raise ListError(f"policy.{policy.name}: no list was ever fetched; run: gfwtools update")
        return starter("no list was ever fetched; the starter list it is")

    from gfwtools.fetch.race import fetch
    from gfwtools.fetch.values import Validators

    # A validator stands for the list that its mirror gave; once another mirror's list is the last good one, a 304 would
    # say nothing about it.
    held = atomic.digest(good.data) if good else ""
    sources = explicit or policy.sources
    validators = {
        source: Validators(mirror.etag, mirror.last_modified)
        for source in sources
        if (mirror := state.mirrors.get(_public(source))) and held and mirror.digest == held
    }
    accepted: dict[int, tuple[Decoded, Callable[[], Compiled]]] = {}

    def accept(data: bytes) -> None:
        decoded = decode(data, base64=policy.format == "autoproxy", max_bytes=config.fetch.max_bytes)
        compiled = compiler(decoded)
        if not good or decoded.data != good.data:
            require_list(compiled())
            if good and not force:
                counted = _counted(state) if held == state.list_digest else None
                _require_share(_usable(compiled()), counted, good, policy, config.fetch.min_share)
        accepted[id(data)] = decoded, compiled

    try:
        fetched = fetch(sources, config.fetch, validators=validators, accept=accept, progress=progress)
    except FetchError as error:
        if explicit:
            raise
        if good or had_one:
            date = good.last_modified if good else state.list_date
            raise FetchError(f"{error}; the list of {date or 'the last update'} stays in use") from None
        if not _starter_stands_in(policy):
            raise FetchError(f"policy.{policy.name}: {error}; mend its sources in the configuration") from None
        reasons = "; ".join(dict.fromkeys(error.answers))
        return starter(
            f"no list from {len(error.answers)} sources ({reasons}); the starter list is used until one answers"
        )
    if fetched.data is None:
        assert good is not None  # a 304 answers a validator, and those are sent for a good list only
        return Obtained(_public(fetched.source), good, compiler(good))
    decoded, compiled = accepted[id(fetched.data)]
    mirror = Mirror(fetched.validators.etag, fetched.validators.last_modified, atomic.digest(decoded.data))
    return Obtained(_public(fetched.source), decoded, compiled, mirror=mirror)


def _public(source: str) -> str:
    """A source as state.json and the output have it, which anybody may read: without the name and password that a URL
    may have (RFC 3986 section 3.2.1), and the bytes of a path that are no UTF-8 escaped."""
    return masked(source, "").encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def _starter_stands_in(policy: PolicyConfig) -> bool:
    """Whether the starter list may be used where no source answers: it stands for gfwlist, whose mirrors are often
    blocked themselves. A mistyped path, or a list of another kind, must not send its domains into somebody's tunnel."""
    return policy.format == "autoproxy" and any(
        source.lower().startswith(("http://", "https://")) for source in policy.sources
    )


def require_list(compiled: "Compiled") -> None:
    """Whether what was compiled is a list.

    :raises ListError: hardly a line of it names a host.
    """
    usable, rules = _usable(compiled), compiled.read
    if not usable or usable < USABLE_SHARE * rules:
        raise ListError(f"the text is no list; {usable:,} of its {rules:,} lines name a host")


def _require_share(usable: int, counted: int | None, good: Decoded, policy: PolicyConfig, min_share: float) -> None:
    """``usable``: how many rules of a list name a host; ``counted``: of the last good one, when it came.

    :raises ListError: they are less than ``min_share`` of those of the last good one.
    """
    before = counted
    if before is None or usable < min_share * before:
        # A number that somebody may have written into state.json is no reason to refuse a list.
        before = _usable(_alone(good, policy))
    if usable < min_share * before:
        raise ListError(
            f"the list has {usable:,} rules, the last good one has {before:,}; less than fetch.min_share, "
            f"{min_share:g} of it, is not accepted; give --force if that is right"
        )


def _usable(compiled: "Compiled") -> int:
    """How many rules of a list name a host."""
    return compiled.read - sum(compiled.dropped.values())


def _counted(state: PolicyState) -> int | None:
    """The same of the last good list, as it was counted when it came; None where ``state`` does not tell."""
    match state.counts:
        case {"read": int(read), "dropped": dict(dropped)} if all(isinstance(n, int) for n in dropped.values()):
            return read - sum(dropped.values())
    return None


def _alone(decoded: Decoded, policy: PolicyConfig) -> "Compiled":
    """A list without the user's."""
    from gfwtools.lists.compiler import compile_lists

    return compile_lists(Listing("", decoded.text, policy.format))


# ---------------------------------------------------------------- the files


def _prepare_policy(
    config: Config,
    policy: PolicyConfig,
    state: PolicyState,
    obtained: Obtained,
    inputs: str,
    before: Sequence[PolicyUpdate],
) -> PolicyUpdate:
    decoded = obtained.decoded
    if state.inputs == inputs and _intact(config, state):
        return PolicyUpdate(policy, obtained, state, warnings=obtained.warnings)
    compiled = obtained.compiler()
    warnings = [*obtained.warnings, *(str(problem) for problem in compiled.problems)]
    cover = cover_of(config, compiled)
    lost: list[str] = []
    if before:
        claimed = {pattern for other in before for pattern in cover_of(config, other.compiled).patterns}
        cover, lost = without_claimed(cover, claimed)
    if lost:
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        warnings.append(
            f"policy.{policy.name}: an earlier policy has {', '.join(lost[:3])}{more} as well, and keeps what it has"
        )
    files = files_of(config, policy, cover, compiled.seeds, decoded, backend_of(config), unset_of(config, compiled))
    domains_file = config.paths.domains(policy.name)
    added, removed = _difference(atomic.read_ours(domains_file), cover.tunnelled)
    counts = compiled.counts()
    now = atomic.now()
    mirrors = {_public(source): mirror for source, mirror in state.mirrors.items()}
    if obtained.mirror:
        mirrors[obtained.source] = obtained.mirror
    digests = {on_host(config, path): atomic.digest(data) for path, data in files.items()}
    new_state = PolicyState(
        source=obtained.source,
        starter=obtained.starter,
        list_date=decoded.last_modified,
        list_digest=atomic.digest(decoded.data),
        inputs=inputs,
        updated=now,
        counts=counts._asdict(),
        domains=len(cover.tunnelled),
        files=digests,
        effective={
            on_host(config, path): atomic.digest(without_comments(data))
            for path, data in files.items()
            if role_of(config, policy, path) is not Role.NONE
        },
        loaded=state.loaded,
        mirrors=mirrors,
        history=state.history,
    )
    change = Change(
        now, obtained.source, new_state.list_digest, counts._asdict(), new_state.domains, len(added), len(removed)
    )
    return PolicyUpdate(
        policy,
        obtained,
        new_state.remember(change),
        files,
        tuple(path for path in _files_of(config, policy.name, state) if on_host(config, path) not in digests),
        added,
        removed,
        tuple(warnings),
    )


def without_comments(data: bytes) -> bytes:
    """What a program reads of a file of ours, which has comments at its head only: a list's new date is nothing to
    reload for."""
    start = 0
    while data.startswith(b"#", start):
        start = data.find(b"\n", start) + 1 or len(data)
    return data[start:]


def _files_of(config: Config, policy: str, state: PolicyState) -> tuple[Path, ...]:
    """The files that the state speaks of. It is only a file, too: nothing but names of ours is believed."""
    names = {f"{policy}.{ending}" for ending in ("conf", "servers", "list", "domains", "ipset", "nft")}
    paths = map(Path, state.in_place)
    return tuple(config.paths.at(path) for path in paths if path.name in names and ".." not in path.parts)


def _intact(config: Config, state: PolicyState) -> bool:
    """Whether every file is as the last update left it."""
    return bool(state.files) and all(
        atomic.is_as_written(config.paths.at(file), expected) for file, expected in state.files.items()
    )


def _difference(before: bytes | None, new: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The domains that came and those that went, each sorted as the ``new`` ones are."""
    if not before:
        return tuple(new), ()
    old = set(before.decode("utf-8", "replace").split())
    return tuple(domain for domain in new if domain not in old), tuple(sorted(old.difference(new)))
