"""``update --reload``: check, install, reload, ask the running daemon; when a step fails, the old files come back.

What is due is the difference between what the files say and what the daemons were seen to have read, both in
``state.json``: so that a run that was killed in between is finished by the next one, and a run with nothing new does
nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.check import check_configuration
from gfwtools.dnsmasq.daemon import Daemon, daemon_of, hang_up
from gfwtools.dnsmasq.manager import Manager, manager_of
from gfwtools.errors import GfwtoolsError, ResolverError
from gfwtools.plumbing.backend import backend_of, seed_files
from gfwtools.render.files import Role, role_of
from gfwtools.storage import atomic
from gfwtools.storage.interrupts import Held
from gfwtools.storage.state import State, read_state, write_state
from gfwtools.system.commands import Runner, System
from gfwtools.update.values import Update
from gfwtools.update.verify import verify

__all__ = ["install"]


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


def install(config: Config, update: Update, runner: Runner | None = None) -> list[str]:
    """Put the files of ``update`` in place and have them read; the lock is held.

    :returns: what was done, in words; empty where nothing was due.
    :raises GfwtoolsError: a step failed, and the old files are back.
    """
    runner = runner or System()
    files = update.files(config)
    due = _due(config, update)
    if not files and not due:
        return []
    manager = manager_of(config, runner)
    if manager is None:
        _replace(config, update, files)
        return ['nothing was reloaded (dns.manager = "none")']
    if not due:
        _replace(config, update, files)
        return ["nothing to reload: only comments have changed"]
    if due.daemons:
        with _step("check"):
            check_configuration(config, _all_files(config, update), runner)
    daemon = daemon_of(config)
    was_up = daemon.is_up() if due.daemons else True
    before = atomic.snapshot([*files, *update.obsolete])
    notes: list[str] = []
    with Held() as held:
        try:
            with held.let():
                with _step("install"):
                    _replace(config, update, files)
                _take(config, update, due, manager, daemon, runner, before, notes, was_up=was_up)
        except BaseException as error:
            _go_back(config, due, manager, daemon, runner, before, was_up=was_up, cause=error)
            raise
        _remember(config, update)
    return notes


def _replace(config: Config, update: Update, files: dict[Path, bytes]) -> None:
    with Held() as held, held.let():  # one signal has the old files put back; a second one waits for that
        atomic.replace_all(files, update.obsolete, config.paths.state)


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
    before: dict[Path, bytes | None],
    notes: list[str],
    *,
    was_up: bool,
) -> None:
    """Have everything read what is due, and see that it did."""
    for policy in due.seeds:
        with _step("load the seed"):
            backend = backend_of(config, runner)
            path = seed_files(backend, config.paths, policy)[0]
            backend.load_seed(path, before.get(path) or b"", runner)
        notes.append(f"loaded the seed of {policy.set}")
    silent = _silent_seconds(config, due) if due.daemons else ()
    notes += _reload(config, replace(due, second=(*due.second, *silent)), manager, was_up=was_up)
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


def _go_back(
    config: Config,
    due: Due,
    manager: Manager,
    daemon: Daemon,
    runner: Runner,
    before: dict[Path, bytes | None],
    *,
    was_up: bool,
    cause: BaseException,
) -> None:
    """Put the old files back and have them read.

    :raises ResolverError: with the ``cause``; says whether the old state answers again.
    """
    told = str(cause) if isinstance(cause, GfwtoolsError) else "interrupted"
    backend = backend_of(config, runner)
    seeds = [seed_files(backend, config.paths, policy)[0] for policy in due.seeds]
    try:
        tried = {path: atomic.read(path) or b"" for path in seeds}
        atomic.restore(before)
    except GfwtoolsError as error:
        raise ResolverError(f"{told}; then {error}; mend that and run: gfwtools update --reload") from cause
    try:
        for path in seeds:
            if before.get(path):
                backend.load_seed(path, tried[path], runner)
        if due.daemons:
            had = tuple(policy for policy in due.second if before.get(config.paths.second(policy.name)) is not None)
            _reload(config, replace(due, second=had), manager, was_up=daemon.is_up(0.5))
            if was_up and not daemon.wait():
                raise ResolverError(f"dnsmasq does not answer at {daemon}")
    except GfwtoolsError as error:
        problem = f"{told}; the old files are back, but: {error}"
        try:
            _forget(config)
        except GfwtoolsError as second:
            problem += f"; then {second}"
        raise ResolverError(f"{problem}; mend that, then run: gfwtools update --reload") from cause
    if isinstance(cause, GfwtoolsError):
        raise ResolverError(f"{told}; the old files are back and in use") from None


def _forget(config: Config) -> None:
    """Write down that nobody is known to have read anything: so that the next run has all of it read, new or not."""
    state = read_state(config.paths.state)
    if state.policies:
        policies = {name: policy._replace(loaded={}) for name, policy in state.policies.items()}
        write_state(config.paths.state, State(policies))


def _remember(config: Config, update: Update) -> None:
    """Write down that everything has been read."""
    policies = dict(update.state.policies)
    for policy in update.policies:
        policies[policy.policy.name] = policy.state._replace(loaded=policy.state.effective)
    write_state(config.paths.state, State(policies))


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Names the step in whatever fails within it."""
    try:
        yield
    except GfwtoolsError as error:
        raise ResolverError(f"{name}: {error}") from None
