"""``update --reload``: check, install, reload, ask the running daemon. When a step fails, the old files come back.

``state.json`` holds the digests of the files, and the digests that the daemons have read. A reload is due where the two
differ. So the next run finishes one that was killed, and a run with nothing new does nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Reading, Resolver, Unread
from gfwtools.errors import GfwtoolsError, HostError, ResolverError
from gfwtools.plumbing import connections
from gfwtools.plumbing.apply import COMMANDS, apply, undo_commands
from gfwtools.plumbing.backend import backend_of, seed_files
from gfwtools.render.files import Role, on_host
from gfwtools.storage import atomic
from gfwtools.storage.journal import Entry, Journal, Transaction, Undo
from gfwtools.storage.state import State, read_state, write_state
from gfwtools.system.commands import Runner, System
from gfwtools.update.replace import NAME, NOTHING
from gfwtools.update.replace import replace as replace_files
from gfwtools.update.values import Update
from gfwtools.update.verify import require_daemons, verify

__all__ = ["install", "inverses"]

#: The kind of the journal's entry that names the daemons that read our files.
DAEMONS = "daemons"
#: The outcome of a failed update where everything was taken back.
BACK = "the old files are back and in use"
#: The remedy where it was not.
AGAIN = "fix that, then run: gfwtools update --reload"


@dataclass(frozen=True, slots=True)
class Due:
    """The files and seeds that have to be read or loaded again."""

    reading: Reading
    """The daemons that read files again."""
    gone: tuple[str, ...]
    """The policies whose second dnsmasq no longer has a configuration."""
    seeds: tuple[PolicyConfig, ...]

    def __bool__(self) -> bool:
        return bool(self.reading) or bool(self.gone) or bool(self.seeds)


def install(
    config: Config,
    update: Update,
    foreign: Collection[Path] = (),
    runner: Runner | None = None,
    *,
    within: Transaction | None = None,
) -> list[str]:
    """Put the files of ``update`` in place and have the daemons read them. The caller holds the lock.

    :param foreign: files in these places that are not ours.
    :param within: the transaction that this is a part of. Its way back has the daemons read the old files again.
    :returns: what was done, in words; empty where nothing was due.
    :raises GfwtoolsError: a step failed, and the old files are back.
    """
    runner = runner or System()
    resolver: Resolver = Dnsmasq(config, runner)
    due = _due(config, update, resolver)
    unread = {} if due.reading else _unread(config, resolver)
    if not update.files(config) and not update.edits and not due and not unread:
        return []
    journal, paths = Journal(config.paths), config.paths
    can_reload = resolver.can_reload()
    if can_reload and unread:
        due = _due(config, update, resolver, unread)
    if not can_reload or not due:
        with journal.transaction(NAME, {}, outcome=NOTHING, within=within) as transaction:
            replace_files(config, update, foreign, transaction)
        if can_reload:
            return ["nothing to reload: what dnsmasq reads says the same as before"]
        missing = [f"note: {found}" for some in unread.values() for found in some]
        return ['nothing was reloaded (dns.manager = "none")', *missing]
    if due.reading:
        with _step("check"):
            resolver.check(_all_files(config, update))
    notes: list[str] = []
    edited = " and ".join(map(str, update.edits))
    outcome = f"{BACK}; {edited} {'are' if len(update.edits) > 1 else 'is'} as before" if edited else BACK
    undo = inverses(config, runner)
    with journal.transaction(NAME, undo, outcome=outcome, remedy=AGAIN, within=within) as transaction:
        if within is None:
            # This entry is the first, so its inverse is the last: by then the old files are back.
            was_up = resolver.main.is_up() if due.reading else True
            transaction.record(DAEMONS, _as_data(config, due, was_up=was_up))
        backend = backend_of(config, runner)
        seeds = {p.name: atomic.read_ours(seed_files(backend, paths, p)[0]) for p in due.seeds}
        with _step("install"):
            replace_files(config, update, foreign, transaction)
        _load_and_verify(config, update, due, resolver, runner, seeds, transaction, notes)
        transaction.write({paths.state: _all_read(update).to_json()})
    return notes


def _all_files(config: Config, update: Update) -> dict[Path, bytes]:
    """The content of every file that a dnsmasq reads, changed or not."""
    files = {}
    for policy in update.policies:
        for name in policy.state.effective:
            path = config.paths.at(name)
            data = policy.files.get(path) or atomic.read(path)
            if data is not None:
                files[path] = data
    return files


def _unread(config: Config, resolver: Resolver) -> dict[str, list[Unread]]:
    """Policy -> files that its running daemons have not read, against the state: they were started another way."""
    if not resolver.main.is_up():
        return {}
    return {policy.name: found for policy in config.policies if (found := resolver.unread([policy]))}


def _due(
    config: Config, update: Update, resolver: Resolver, unread: Mapping[str, list[Unread]] = MappingProxyType({})
) -> Due:
    main = servers = False
    second, gone, seeds = [], [], []
    for policy_update in update.policies:
        policy, state = policy_update.policy, policy_update.state
        differs = {path for path, digest in state.effective.items() if state.loaded.get(path) != digest}
        changed = differs | (state.loaded.keys() - state.effective.keys())
        # A file that was deleted: a daemon that was started meanwhile has read none.
        changed |= {path for path in state.effective if not config.paths.at(path).exists()}
        changed |= {on_host(config, found.path) for found in unread.get(policy.name, ())}
        roles = {resolver.role_of(policy, config.paths.at(path)): path for path in changed}
        main = main or Role.MAIN in roles
        servers = servers or (Role.SERVERS in roles and roles[Role.SERVERS] in state.effective)
        if Role.SECOND in roles:
            if roles[Role.SECOND] in state.effective:
                second.append(policy)
            else:
                gone.append(policy.name)
        if any(resolver.role_of(policy, config.paths.at(path)) is Role.SEED for path in differs):
            seeds.append(policy)
    if update.gone:
        main = True
        gone += update.gone
    if main or servers or second:
        # The sets must be there before the first answer; loading a seed over a full set changes nothing.
        seeds = list(config.policies)
    return Due(Reading(main, servers, tuple(second)), tuple(gone), tuple(seeds))


def _load_and_verify(
    config: Config,
    update: Update,
    due: Due,
    resolver: Resolver,
    runner: Runner,
    seeds: Mapping[str, bytes | None],
    transaction: Transaction,
    notes: list[str],
) -> None:
    """Load the seeds, have the daemons read their files, and check that they did.

    :param seeds: policy -> its old seed file.
    """
    for policy in due.seeds:
        with _step("load the seed"):
            _load_seed(config, policy, runner, seeds[policy.name], transaction)
        notes.append(f"loaded the seed of {policy.set}")
    notes += [step.what for step in connections.begin_again(config, backend_of(config, runner), due.seeds)]
    reading = due.reading
    if reading:
        silent = _silent_seconds(config, resolver, reading)
        notes += resolver.reload(replace(reading, second=(*reading.second, *silent)), was_up=resolver.main.is_up(0.5))
        with _step("ask dnsmasq"):
            require_daemons(config, resolver)
            for policy_update in update.policies:
                notes += verify(config, policy_update, resolver, runner)
    for name in due.gone:
        with _step("stop the second dnsmasq"):
            resolver.stop_second(name)


def _silent_seconds(config: Config, resolver: Resolver, reading: Reading) -> Iterator[PolicyConfig]:
    """Policies whose second dnsmasq has ended or hangs, and is not restarted already.

    The question is one that it answers itself: a clean resolver that does not answer is not its fault.
    """
    for policy in config.policies:
        second = resolver.second(policy)
        if second and policy not in reading.second and not second.is_up():
            yield policy


def _load_seed(
    config: Config, policy: PolicyConfig, runner: Runner, old: bytes | None, transaction: Transaction
) -> None:
    """Load the seed into the kernel, and remove the entries that only the old seed had.

    :raises HostError: the tool failed (the message is its own), or another program has made a set of that name.
    """
    backend = backend_of(config, runner)
    step = backend.seed_step(policy, seed_files(backend, config.paths, policy)[0], old or b"")
    step = replace(step, undo=(*step.undo, *backend.unmake(runner, policy)))
    try:
        apply([step], runner, transaction)
    except HostError as error:
        raise backend.seed_problem(step, error.message, runner) or error from None


def inverses(config: Config, runner: Runner) -> dict[str, Undo]:
    """The inverses of an update's changes, except files."""

    def read_again(entry: Entry, doubtful: bool) -> None:
        """Have the daemons read the old files, which are back."""
        resolver: Resolver = Dnsmasq(config, runner)
        if not entry.data["reading"] or not resolver.can_reload():
            return
        second = tuple(policy for policy in config.policies if policy.name in entry.data["second"])
        reading = Reading(entry.data["main"], entry.data["servers"], second)
        try:
            resolver.reload(reading, was_up=resolver.main.is_up(0.5))
            if entry.data["was_up"] and not resolver.main.wait():
                raise ResolverError(f"dnsmasq does not answer at {resolver.main}")
        except GfwtoolsError:
            _forget(config)  # so that the next run has the daemons read all files, new or not
            raise
        if entry.data["was_up"] and resolver.wait_until_read(config.policies):
            raise ResolverError("dnsmasq does not read the old files either")

    return {DAEMONS: read_again, COMMANDS: undo_commands(runner)}


def _as_data(config: Config, due: Due, *, was_up: bool) -> dict[str, Any]:
    """The daemons that read again when the old files are back, except a second dnsmasq that had no configuration."""
    reading = due.reading
    had = [policy.name for policy in reading.second if config.paths.second(policy.name).exists()]
    what = {"main": reading.main, "servers": reading.servers, "second": had}
    return {"reading": bool(reading), "was_up": was_up, **what}


def _forget(config: Config) -> None:
    """Record that no daemon is known to have read any file."""
    state = read_state(config.paths.state)
    if state.policies:
        policies = {name: policy._replace(loaded={}) for name, policy in state.policies.items()}
        write_state(config.paths.state, State(policies))


def _all_read(update: Update) -> State:
    """The state once everything has been read."""
    policies = dict(update.state.policies)
    for policy in update.policies:
        policies[policy.policy.name] = policy.state._replace(loaded=policy.state.effective)
    return State(policies)


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Names the step in every error within it."""
    try:
        yield
    except GfwtoolsError as error:
        raise ResolverError(f"{name}: {error.what}", error.remedy) from None
