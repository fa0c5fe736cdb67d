"""``update --reload``: check, install, reload, ask the running daemon; when a step fails, the old files come back.

What is due is the difference between what the files say and what the daemons were seen to have read, both in
``state.json``: so that a run that was killed in between is finished by the next one, and a run with nothing new does
nothing.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Reading, Resolver, Unread
from gfwtools.errors import GfwtoolsError, HostError, ResolverError
from gfwtools.plumbing.backend import backend_of
from gfwtools.render.files import Role, on_host
from gfwtools.storage import atomic
from gfwtools.storage.interrupts import Held
from gfwtools.storage.state import State, read_state, write_state
from gfwtools.system.commands import Command, CommandError, Runner, System
from gfwtools.update.values import Update
from gfwtools.update.verify import verify

__all__ = ["install"]


@dataclass(frozen=True, slots=True)
class Due:
    """What has to be read or loaded anew."""

    reading: Reading
    """By the daemons."""
    gone: tuple[str, ...]
    """Policies whose second dnsmasq has no configuration any more."""
    seeds: tuple[PolicyConfig, ...]

    def __bool__(self) -> bool:
        return bool(self.reading) or bool(self.gone) or bool(self.seeds)


def install(config: Config, update: Update, runner: Runner | None = None) -> list[str]:
    """Put the files of ``update`` in place and have them read; the lock is held.

    :returns: what was done, in words; empty where nothing was due.
    :raises GfwtoolsError: a step failed, and the old files are back.
    """
    runner = runner or System()
    files = update.files(config)
    resolver: Resolver = Dnsmasq(config, runner)
    due = _due(config, update, resolver)
    unread = {} if due.reading else _unread(config, resolver)
    if not files and not due and not unread:
        return []
    if not resolver.can_reload():
        _replace(config, update, files)
        missing = [f"note: {found}" for some in unread.values() for found in some]
        return ['nothing was reloaded (dns.manager = "none")', *missing]
    if unread:
        due = _due(config, update, resolver, unread)
    if not due:
        _replace(config, update, files)
        return ["nothing to reload: only comments have changed"]
    if due.reading:
        with _step("check"):
            resolver.check(_all_files(config, update))
    was_up = resolver.main.is_up() if due.reading else True
    before = atomic.snapshot([*files, *update.obsolete])
    notes: list[str] = []
    with Held() as held:
        try:
            with held.let():
                with _step("install"):
                    _replace(config, update, files)
                _take(config, update, due, resolver, runner, before, notes, was_up=was_up)
        except BaseException as error:
            _go_back(config, due, resolver, runner, before, was_up=was_up, cause=error)
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


def _unread(config: Config, resolver: Resolver) -> dict[str, list[Unread]]:
    """Policy -> what its running daemons have not read, though the state says so: somebody started them otherwise."""
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


def _take(
    config: Config,
    update: Update,
    due: Due,
    resolver: Resolver,
    runner: Runner,
    before: dict[Path, bytes | None],
    notes: list[str],
    *,
    was_up: bool,
) -> None:
    """Have everything read what is due, and see that it did."""
    for policy in due.seeds:
        with _step("load the seed"):
            _load_seed(config, policy, runner, before)
        notes.append(f"loaded the seed of {policy.set}")
    reading = due.reading
    if reading:
        silent = _silent_seconds(config, resolver, reading)
        notes += resolver.reload(replace(reading, second=(*reading.second, *silent)), was_up=was_up)
        with _step("ask dnsmasq"):
            if not resolver.main.wait():
                raise ResolverError(
                    f"it does not answer at {resolver.main}, where port= and listen-address= of its configuration "
                    "lead; run: gfwtools check host"
                )
            for policy in config.policies:
                second = resolver.second(policy)
                if second and not second.wait():
                    raise ResolverError(
                        f"the second dnsmasq of {policy.name} does not answer at {second}, though it was restarted; "
                        "run: gfwtools check host"
                    )
            if unread := resolver.wait_until_read(config.policies):
                raise ResolverError(str(unread[0]))
            for policy_update in update.policies:
                notes += verify(config, policy_update, resolver, runner)
    for name in due.gone:
        with _step("stop the second dnsmasq"):
            resolver.stop_second(name)


def _silent_seconds(config: Config, resolver: Resolver, reading: Reading) -> Iterator[PolicyConfig]:
    """Policies whose second dnsmasq has ended or hangs, and is not restarted anyway.

    It is asked what it answers itself: a clean resolver that is silent behind it is no fault of its own.
    """
    for policy in config.policies:
        second = resolver.second(policy)
        if second and policy not in reading.second and not second.is_up():
            yield policy


def _load_seed(config: Config, policy: PolicyConfig, runner: Runner, before: dict[Path, bytes | None]) -> None:
    """Load the seed into the kernel, and take out what was in the last one and is not in this one.

    :raises CommandError: with the tool's own message.
    :raises HostError: somebody has made a set of that name with other options.
    """
    paths = config.paths
    if backend_of(config) == "nftables":
        runner.change(Command(("nft", "-f", str(paths.nft(policy.name)))))
        return
    path = paths.ipset(policy.name)
    new = (atomic.read(path) or b"").decode()
    old = (before.get(path) or b"").decode("utf-8", "replace")
    kept = set(new.splitlines())
    gone = [line for line in old.splitlines() if line.startswith("add ") and line not in kept]
    text = new + "".join(f"del {line.removeprefix('add ')}\n" for line in gone)
    try:
        runner.change(Command(("ipset", "restore"), text))
    except CommandError as error:
        raise _taken(text, str(error), runner) or error from None


def _taken(text: str, message: str, runner: Runner) -> HostError | None:
    """What is wrong with the set that ``ipset restore`` could not make as there is one; None for another failure."""
    from gfwtools.plumbing.iptables import another_kind

    number = re.search(r"in line (\d+): Set cannot be created: set with the same name already exists", message)
    if number is None:
        return None
    _, name, *wanted = text.splitlines()[int(number[1]) - 1].removesuffix(" -exist").split()
    found = (runner.ask("ipset", "list", "-terse", "-output", "save", name) or "").split()[2:]
    return another_kind(name, " ".join(found) or "of another kind", " ".join(wanted))


def _go_back(
    config: Config,
    due: Due,
    resolver: Resolver,
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
    try:
        atomic.restore(before)
    except GfwtoolsError as error:
        raise ResolverError(f"{told}; then {error}; mend that and run: gfwtools update --reload") from cause
    try:
        for policy in due.seeds:
            if before.get(config.paths.ipset(policy.name)) and backend_of(config) == "iptables":
                _load_seed(config, policy, runner, {})
        if due.reading:
            had = tuple(p for p in due.reading.second if before.get(config.paths.second(p.name)) is not None)
            resolver.reload(replace(due.reading, second=had), was_up=resolver.main.is_up(0.5))
            if was_up and not resolver.main.wait():
                raise ResolverError(f"dnsmasq does not answer at {resolver.main}")
    except GfwtoolsError as error:
        problem = f"{told}; the old files are back, but: {error}"
        try:
            _forget(config)
        except GfwtoolsError as second:
            problem += f"; then {second}"
        raise ResolverError(f"{problem}; mend that, then run: gfwtools update --reload") from cause
    if isinstance(cause, GfwtoolsError):
        is_read = not due.reading or not resolver.wait_until_read(config.policies)
        after = "the old files are back and in use" if is_read else "the old files are back, and not in use either"
        raise ResolverError(f"{told}; {after}") from None


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
