"""``update --reload``: check, install, reload, ask the running daemon; when a step fails, the old files come back.

What is due is the difference between what the files say and what the daemons were seen to have read, both in
``state.json``: so that a run that was killed in between is finished by the next one, and a run with nothing new does
nothing.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.check import check_configuration
from gfwtools.dnsmasq.daemon import Daemon, daemon_of, hang_up
from gfwtools.dnsmasq.manager import Manager, manager_of
from gfwtools.errors import GfwtoolsError, HostError, ResolverError
from gfwtools.plumbing.apply import COMMANDS, apply, undo_commands
from gfwtools.plumbing.backend import backend_of, seed_files
from gfwtools.render.files import Role, role_of
from gfwtools.storage import atomic
from gfwtools.storage.journal import Entry, Journal, Transaction, Undo
from gfwtools.storage.state import State, read_state, write_state
from gfwtools.system.commands import Runner, System
from gfwtools.update.replace import NAME, NOTHING
from gfwtools.update.replace import replace as replace_files
from gfwtools.update.values import Update
from gfwtools.update.verify import verify

__all__ = ["install", "inverses"]

#: The kind of the entry that says which daemons read files of ours.
DAEMONS = "daemons"
#: What a failed update says where everything was taken back.
BACK = "the old files are back and in use"
#: And where it was not.
AGAIN = "fix that, then run: gfwtools update --reload"


@dataclass(frozen=True, slots=True)
class Due:
    """What has to be read anew, and by whom."""

    main: bool
    """The main dnsmasq, by a restart."""
    servers: bool
    """The main dnsmasq, by SIGHUP."""
    second: tuple[PolicyConfig, ...]
    gone: tuple[str, ...]
    """Policies whose second dnsmasq has no configuration any more."""
    seeds: tuple[PolicyConfig, ...]

    @property
    def daemons(self) -> bool:
        return self.main or self.servers or bool(self.second)

    def __bool__(self) -> bool:
        return self.daemons or bool(self.gone) or bool(self.seeds)


def install(
    config: Config,
    update: Update,
    foreign: Collection[Path] = (),
    runner: Runner | None = None,
    *,
    within: Transaction | None = None,
) -> list[str]:
    """Put the files of ``update`` in place and have them read; the lock is held.

    :param foreign: files in their places that are not ours.
    :param within: the transaction that this is a part of, which then has the daemons read the old files again.
    :returns: what was done, in words; empty where nothing was due.
    :raises GfwtoolsError: a step failed, and the old files are back.
    """
    runner = runner or System()
    due = _due(config, update)
    if not update.files(config) and not due:
        return []
    journal, paths = Journal(config.paths), config.paths
    manager = manager_of(config, runner)
    if manager is None or not due:
        with journal.transaction(NAME, {}, outcome=NOTHING, within=within) as transaction:
            replace_files(config, update, foreign, transaction)
        note = 'nothing was reloaded (dns.manager = "none")'
        return ["nothing to reload: only comments have changed" if manager else note]
    if due.daemons:
        with _step("check"):
            check_configuration(config, _all_files(config, update), runner)
    daemon = daemon_of(config)
    notes: list[str] = []
    with journal.transaction(NAME, inverses(config, runner), outcome=BACK, remedy=AGAIN, within=within) as transaction:
        if within is None:
            # It is the first, so that its inverse is the last: by then the old files are back.
            transaction.record(DAEMONS, _as_data(config, due, was_up=daemon.is_up() if due.daemons else True))
        backend = backend_of(config, runner)
        seeds = {p.name: atomic.read_ours(seed_files(backend, paths, p)[0]) for p in due.seeds}
        with _step("install"):
            replace_files(config, update, foreign, transaction)
        _take(config, update, due, manager, daemon, runner, seeds, transaction, notes)
        transaction.write({paths.state: _all_read(update).to_json()})
    return notes


def _all_files(config: Config, update: Update) -> dict[Path, bytes]:
    """The new content of every file that a dnsmasq reads, be it new or not."""
    files = {}
    for policy in update.policies:
        for name in policy.state.effective:
            path = config.paths.at(name)
            data = policy.files.get(path) or atomic.read(path)
            if data is not None:
                files[path] = data
    return files


def _due(config: Config, update: Update) -> Due:
    main = servers = False
    second, gone, seeds = [], [], []
    for policy_update in update.policies:
        policy, state = policy_update.policy, policy_update.state
        differs = {path for path, digest in state.effective.items() if state.loaded.get(path) != digest}
        changed = differs | (state.loaded.keys() - state.effective.keys())
        roles = {role_of(config, policy, config.paths.at(path)): path for path in changed}
        main = main or Role.MAIN in roles
        servers = servers or (Role.SERVERS in roles and roles[Role.SERVERS] in state.effective)
        if Role.SECOND in roles:
            if roles[Role.SECOND] in state.effective:
                second.append(policy)
            else:
                gone.append(policy.name)
        if any(role_of(config, policy, config.paths.at(path)) is Role.SEED for path in differs):
            seeds.append(policy)
    if update.gone:
        main = True
        gone += update.gone
    if main or servers or second:
        # The sets must be there before the first answer; loading a seed over a full set changes nothing.
        seeds = list(config.policies)
    return Due(main, servers, tuple(second), tuple(gone), tuple(seeds))


def _take(
    config: Config,
    update: Update,
    due: Due,
    manager: Manager,
    daemon: Daemon,
    runner: Runner,
    seeds: Mapping[str, bytes | None],
    transaction: Transaction,
    notes: list[str],
) -> None:
    """Have everything read what is due, and see that it did.

    :param seeds: policy -> its seed file as it was before.
    """
    for policy in due.seeds:
        with _step("load the seed"):
            _load_seed(config, policy, runner, seeds[policy.name], transaction)
        notes.append(f"loaded the seed of {policy.set}")
    silent = _silent_seconds(config, due) if due.daemons else ()
    notes += _reload(config, replace(due, second=(*due.second, *silent)), manager, was_up=daemon.is_up(0.5))
    if due.daemons:
        with _step("ask dnsmasq"):
            if not daemon.wait():
                raise ResolverError(
                    f"it does not answer at {daemon}, where port= and listen-address= of its configuration lead; "
                    "run: gfwtools check host"
                )
            for policy in config.policies if config.dns.layout == "split" else ():
                second = _second(config, policy)
                if not second.wait():
                    raise ResolverError(
                        f"the second dnsmasq of {policy.name} does not answer at {second}, though it was restarted; "
                        "run: gfwtools check host"
                    )
            for policy_update in update.policies:
                notes += verify(config, policy_update, daemon, runner)
    for name in due.gone:
        with _step("stop the second dnsmasq"):
            manager.stop_second(name)


def _second(config: Config, policy: PolicyConfig) -> Daemon:
    return Daemon("127.0.0.1", config.second_port(policy))


def _silent_seconds(config: Config, due: Due) -> tuple[PolicyConfig, ...]:
    """Policies whose second dnsmasq has ended or hangs, and is not restarted anyway.

    It is asked what it answers itself: a clean resolver that is silent behind it is no fault of its own.
    """
    if config.dns.layout != "split":
        return ()
    others = [policy for policy in config.policies if policy not in due.second]
    return tuple(policy for policy in others if not _second(config, policy).is_up())


def _reload(config: Config, due: Due, manager: Manager, *, was_up: bool) -> list[str]:
    """Restart or signal what is due; in words."""
    notes = []
    restarts: list[tuple[str, Callable[[], None]]] = []
    for policy in due.second:
        restarts.append((f"the second dnsmasq of {policy.name}", partial(manager.restart_second, policy)))
    pid_file = config.paths.at(config.dns.pid_file)
    if not due.main and due.servers and was_up and hang_up(pid_file):
        signalled = True
    else:
        signalled = False
        if due.main or due.servers:
            restarts.append(("dnsmasq", manager.restart_main))
    if manager.name == "command":
        restarts = restarts[-1:]  # one command for all of them
    for what, restart in restarts:
        with _step(f"restart {what}"):
            restart()
        notes.append(f"restarted {what}")
    if signalled:
        notes.append("dnsmasq has read its list again (SIGHUP)")
    return notes


def _load_seed(
    config: Config, policy: PolicyConfig, runner: Runner, old: bytes | None, transaction: Transaction
) -> None:
    """Load the seed into the kernel, and take out what was in the last one and is not in this one.

    :raises HostError: with the tool's own message, or another program has made a set of that name.
    """
    backend = backend_of(config, runner)
    step = backend.seed_step(policy, seed_files(backend, config.paths, policy)[0], old or b"")
    try:
        apply([step], runner, transaction)
    except HostError as error:
        raise backend.seed_problem(step, error.message, runner) or error from None


def inverses(config: Config, runner: Runner) -> dict[str, Undo]:
    """The inverses of what an update does, but for files."""

    def read_again(entry: Entry, doubtful: bool) -> None:
        """The old files are back: have them read."""
        daemon, manager = daemon_of(config), manager_of(config, runner)
        if manager is None or not entry.data["daemons"]:
            return
        second = tuple(policy for policy in config.policies if policy.name in entry.data["second"])
        due = Due(entry.data["main"], entry.data["servers"], second, (), ())
        try:
            _reload(config, due, manager, was_up=daemon.is_up(0.5))
            if entry.data["was_up"] and not daemon.wait():
                raise ResolverError(f"dnsmasq does not answer at {daemon}")
        except GfwtoolsError:
            _forget(config)  # so that the next run has all of it read, new or not
            raise

    return {DAEMONS: read_again, COMMANDS: undo_commands(runner)}


def _as_data(config: Config, due: Due, *, was_up: bool) -> dict[str, Any]:
    """What has to be read again when the old files are back: a second dnsmasq that had no configuration has nothing."""
    had = [policy.name for policy in due.second if config.paths.second(policy.name).exists()]
    return {"daemons": due.daemons, "main": due.main, "servers": due.servers, "second": had, "was_up": was_up}


def _forget(config: Config) -> None:
    """Write down that nobody is known to have read anything."""
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
    """Names the step in whatever fails within it."""
    try:
        yield
    except GfwtoolsError as error:
        raise ResolverError(f"{name}: {error.message}") from None
