"""``bootstrap`` and ``teardown``: the order in which a host is set up, and the way back.

    configuration -> list -> plumbing -> dnsmasq's files and the host's resolver -> boot -> reload -> check

Each stage is a module of its own that says what differs; nothing here knows a command. A stage that fails has the
stages before it taken back, the last one first.
"""

import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gfwtools import kept, store
from gfwtools.backend import backend_of
from gfwtools.config import Config, Paths, loads
from gfwtools.dnsmasq_conf import MAIN_CONF
from gfwtools.errors import ConfigError, GfwtoolsError, HostError, ResolverError
from gfwtools.host import boot, daemon, files, plumbing, preflight, resolver_setup
from gfwtools.host.apply import AS_BEFORE, apply, take_back
from gfwtools.host.boot import Init
from gfwtools.host.check import Finding, check
from gfwtools.host.facts import choose_backend
from gfwtools.host.files import FileEdit
from gfwtools.host.plan import Step, script
from gfwtools.host.run import Command, Runner
from gfwtools.inputs import current_list
from gfwtools.interrupts import Held
from gfwtools.resolver import daemon_of, end, manager_of, runs
from gfwtools.state import read_state, write_state
from gfwtools.update import PolicyUpdate, update

__all__ = ["Choices", "Planned", "Refused", "plan", "run", "undo", "way_back"]

TEMPLATE = Path(__file__).parent.parent / "data" / "config.toml"
#: Where the program is after `make install`; a virtual environment has it beside its Python.
PROGRAM = "gfwtools"
USER_LISTS = {
    "allow": "# Domains that always go directly, one a line; then: gfwtools update --offline --reload\n",
    "deny": "# Domains that always go through the tunnel, one a line; then: gfwtools update --offline --reload\n",
}

RESOLV_CONF = "/etc/resolv.conf"
#: What belongs to the host and not to us: its owner is asked before it is changed.
HOSTS_OWN = (
    RESOLV_CONF,
    "/etc/dnsmasq.conf",
    "/etc/dhcpcd.conf",
    "/etc/resolvconf.conf",
    "/etc/resolvconf/resolv.conf.d/head",
)

Say = Callable[[str], None]


class Refused(Exception):
    """Something is in the way; each of ``problems`` is a line with its remedy. Nothing was changed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Choices:
    """What the command line says; None for what it does not."""

    interface: str | None = None
    gateway: bool | None = None
    backend: str | None = None
    layout: str | None = None
    warm: bool | None = None

    def keys(self) -> dict[str, dict[str, object]]:
        """The same as keys of the configuration."""
        said: dict[str, dict[str, object]] = {
            "host": {"gateway": self.gateway, "backend": self.backend},
            "dns": {"layout": self.layout, "warm": self.warm},
            "policy": {"interface": self.interface},
        }
        return {table: {key: value for key, value in keys.items() if value is not None} for table, keys in said.items()}


@dataclass(frozen=True)
class Planned:
    """Everything that bootstrap is going to do, as far as it can be said before."""

    config: Config
    config_path: Path
    config_text: str | None
    """The configuration to be written; None where the user's stays as it is."""
    init: Init
    edits: list[FileEdit]
    resolver_steps: list[Step]
    boot_steps: list[Step]
    plumbing_steps: list[Step]
    is_first: bool = True
    """Nothing of an earlier run is there: how the host is now is how it was before gfwtools."""
    notes: list[str] = field(default_factory=list)

    @property
    def asks(self) -> list[str]:
        """What the host's owner should agree to, in words; empty where the host's own resolver set-up stays."""
        return [
            f"{edit.path}: {edit.why}"
            for edit in files.differing(self.edits, self.config.paths)
            if edit.path in HOSTS_OWN
        ]

    def script(self) -> str:
        """What would be written and run, as a script to be read."""
        lines = ["#!/bin/sh", "# What gfwtools bootstrap does here, in this order.", ""]
        if self.config_text is not None:
            edit = FileEdit(str(self.config_path), self.config_text.encode(), "the configuration")
            lines += [*script([_as_step(edit)]).splitlines()[2:], ""]
        for path, data in _missing_lists(self.config).items():
            edit = FileEdit(str(path), data, "a list of your own")
            lines += [*script([_as_step(edit)]).splitlines()[2:], ""]
        lines.append("gfwtools update")
        lines += script(self.plumbing_steps).splitlines()[2:]
        written = [_as_step(edit) for edit in files.differing(self.edits, self.config.paths)]
        lines += script([*written, *self.resolver_steps, *self.boot_steps]).splitlines()[2:]
        lines += ["", "gfwtools update --offline --reload", "gfwtools check host"]
        return "\n".join(lines) + "\n"


def _as_step(edit: FileEdit) -> Step:
    """The writing of a file as commands."""
    folder = Command(("mkdir", "-p", str(Path(edit.path).parent)))
    text = edit.data.decode("utf-8", "surrogateescape")
    return Step(f"write {edit.path}", edit.why, (folder, Command(("tee", edit.path), text)), ())


# ---------------------------------------------------------------- look


def plan(config_path: Path, root: Path, choices: Choices, init: str, runner: Runner) -> Planned:
    """Look at the host, and find out what is to be done.

    :raises Refused: something is in the way; all of it at once.
    :raises ConfigError: the configuration, with the choices in it, cannot be meant.
    """
    text, is_new = _configuration(config_path, choices)
    config = loads(text, str(config_path), root)
    problems = preflight.preflight(config, runner)
    if problems:
        raise Refused([str(problem) for problem in problems])
    if config.host.backend == "auto":
        backend = choose_backend(config, runner)
        if is_new:
            # Written down, so that what update renders and what up sets up can never be two things.
            text = _with_value(text, "backend", backend)
            config = loads(text, str(config_path), root)
        elif backend != backend_of(config):
            raise Refused(
                [
                    f"{config_path}: host.backend = auto: update would write for {backend_of(config)} by the programs "
                    f'that are here, and only {backend} can work; write backend = "{backend}" there'
                ]
            )
    chosen: Init = boot.detect_init(root) if init == "auto" else init  # type: ignore[assignment]
    facts = resolver_setup.observe(config, runner)
    has_cron = config.paths.at(boot.CRON_D).is_dir()
    edits = [*resolver_setup.edits(config, facts), *boot.boot_files(config, chosen, _program(), cron=has_cron)]
    stuck = _stuck(config.paths, [edit.path for edit in files.differing(edits, config.paths)])
    if stuck:
        raise Refused(stuck)
    seen = plumbing.look(config, runner)
    is_first = not files.recorded(config.paths)
    return Planned(
        config=config,
        config_path=config_path,
        config_text=text if not config_path.exists() or config_path.read_text("utf-8") != text else None,
        init=chosen,
        edits=edits,
        resolver_steps=resolver_setup.steps(facts),
        boot_steps=_boot_steps(config, chosen, runner, is_first=is_first),
        is_first=is_first,
        plumbing_steps=seen.steps,
        notes=seen.interfaces_down(config),
    )


def _boot_steps(config: Config, init: Init, runner: Runner, *, is_first: bool) -> list[Step]:
    ours = boot.boot_steps(config, init, boot.observe(config, init, runner))
    return [*ours, *daemon.steps(config, init, daemon.observe(config, init, runner), is_first=is_first)]


def _stuck(paths: Paths, changed: Iterable[str]) -> list[str]:
    """The files that are mounts of their own, as containers have some, with the remedy: no other can take its place."""
    mounts = [place for path in changed if store.is_mount(place := paths.at(path))]
    return [f"{place} is a mount, and cannot be replaced; run: umount {place}" for place in mounts]


def _configuration(path: Path, choices: Choices) -> tuple[str, bool]:
    """The text of the configuration with the choices in it, and whether it is a new one.

    A key that the user has written is never changed, and one that he has not is added with everything else as it is.

    :raises ConfigError: the choices are at odds with what the user has written.
    """
    said = choices.keys()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = TEMPLATE.read_text("utf-8")
        for keys in said.values():
            for key, value in keys.items():
                text = _with_value(text, key, value)
        return text, True
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    config = loads(text, str(path))
    has = {"host": config.host, "dns": config.dns, "policy": config.policies[0]}
    news = {
        table: {key: value for key, value in keys.items() if getattr(has[table], key) != value}
        for table, keys in said.items()
    }
    return _amended(text, news, path), False


def _amended(text: str, said: dict[str, dict[str, object]], path: Path) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    changed = False
    for table, keys in said.items():
        for key, value in keys.items():
            where, name = (document, table)
            if table == "policy":
                policies = document.setdefault("policy", tomlkit.table(is_super_table=True))
                where, name = policies, next(iter(policies), "gfwlist")
            if name not in where:
                where[name] = tomlkit.table()
            shown = f"{'policy.' if table == 'policy' else ''}{name}.{key}"
            if key in where[name]:
                if where[name][key] != value:
                    raise ConfigError(
                        f"{path}: {shown} is {where[name][key]!r} there, and bootstrap changes nothing that you have "
                        f"written; edit it, or leave the option out"
                    )
            else:
                where[name][key] = value
                changed = True
    return tomlkit.dumps(document) if changed else text


def _with_value(template: str, key: str, value: object) -> str:
    """The template with another value for ``key``, which it has once."""
    shown = str(value).lower() if isinstance(value, bool) else f'"{value}"'
    lines = [f"{key} = {shown}" if line.startswith(f"{key} = ") else line for line in template.split("\n")]
    return "\n".join(lines)


def _program() -> str:
    """The program as boot scripts call it: beside this Python, or where the search path has it."""
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if not found:
        raise HostError("the program gfwtools is not in the search path; install it with: make install")
    link = Path("/usr/local/bin") / PROGRAM
    # `make install` links it there, and a later one may move what the link points to.
    return str(link) if link.exists() and link.resolve() == Path(found).resolve() else found


# ---------------------------------------------------------------- do


def run(planned: Planned, runner: Runner, *, say: Say, warn: Say) -> list[Finding]:
    """Do it, stage by stage, and look whether it works.

    :returns: the findings of ``check host``.
    :raises GfwtoolsError: a stage failed, and those before it have been taken back.
    """
    config, paths = planned.config, planned.config.paths
    before = _Running.of(config)
    with way_back(warn) as back:
        back.append(("dnsmasq", lambda: before.come_back(config, runner)))
        _write_configuration(planned, say, back)
        had_list = all(current_list(config, policy) is not None for policy in config.policies)
        _first_list(config, had_list, say, warn, back)
        seen = plumbing.look(config, runner)
        steps = seen.steps
        if steps:
            back.append(("plumbing", lambda: plumbing.go_back(config, seen, runner)))
            plumbing.up(config, runner)
            say(f"plumbing: {len(steps)} steps")
        # Whoever has read a file of ours reads it again once that was put back: this is first, to be undone last.
        due = [edit.path for edit in files.differing(planned.edits, paths)]
        back.append(("services", lambda: apply(resolver_setup.leave_steps(due, runner, paths), runner)))
        found = _adopt(config, runner)
        if found:
            warn(_unknown(config, found))
        _put(planned.edits, paths, say, back)
        _apply([replace(step, undo=()) for step in planned.resolver_steps], runner, say, back)
        before.is_touched = True
        _apply(_boot_steps(config, planned.init, runner, is_first=planned.is_first), runner, say, back)
        _reload(config, say, warn)
        if planned.is_first and not before.main:
            before.remember(config)
    try:
        if any(_is_starter(config, policy.name) for policy in config.policies):
            _real_list(config, say, warn)
        return check(config, runner)
    except KeyboardInterrupt:
        warn("the host is set up; run: gfwtools check host")
        raise


@dataclass
class _Running:
    """Which dnsmasqs ran before bootstrap."""

    main: bool
    second: frozenset[str]
    """Policies."""
    is_touched: bool = False
    """They may have read something of ours since."""

    @classmethod
    def of(cls, config: Config) -> "_Running":
        second = (policy.name for policy in config.policies if runs(config.paths.second_pid(policy.name)))
        return cls(_main_runs(config), frozenset(second))

    def come_back(self, config: Config, runner: Runner) -> None:
        """Have those that ran read the files of before, which are back; the others end.

        :raises GfwtoolsError: the restart failed.
        """
        if not self.is_touched or config.dns.manager == "none":
            return
        for policy in config.policies:
            if policy.name not in self.second:
                end(config.paths.second_pid(policy.name))
        if not self.main:
            end(config.paths.at(config.dns.pid_file))
            return
        with suppress(ResolverError):  # nobody is known who could, and nobody has
            manager = manager_of(config, runner)
            if manager:
                manager.restart_main()

    def remember(self, config: Config) -> None:
        """Where none ran and one does now, :func:`undo` ends it."""
        if runs(config.paths.at(config.dns.pid_file)):
            store.mark(config.paths.state_dir / daemon.STARTED)


def _missing_lists(config: Config) -> dict[Path, bytes]:
    """The user's own lists that are not there yet, with what is in them at first."""
    named = [
        (kind, config.paths.at(file))
        for policy in config.policies
        for kind, listed in (("allow", policy.allow), ("deny", policy.deny))
        for file in listed
    ]
    return {path: USER_LISTS[kind].encode() for kind, path in named if not path.exists()}


def _main_runs(config: Config) -> bool:
    """Whether the main dnsmasq runs, though it may be slow, or answer elsewhere than its files of now say."""
    return runs(config.paths.at(config.dns.pid_file)) or daemon_of(config).is_up(0.5)


def _write_configuration(planned: Planned, say: Say, back: "_Back") -> None:
    config = planned.config
    wanted: dict[Path, bytes] = {}
    if planned.config_text is not None:
        wanted[planned.config_path] = planned.config_text.encode()
    wanted |= _missing_lists(config)
    before = store.snapshot(wanted)
    back.append(("configuration", lambda: store.restore(before)))
    for path in store.write_all(wanted, None):  # a proxy's password may be in it
        say(f"wrote {path}")


def _first_list(config: Config, had_list: bool, say: Say, warn: Say, back: "_Back") -> None:
    """The list that dnsmasq starts from.

    Mirrors are often blocked themselves: where there is no list yet and it would have to come over the network, the
    starter list does until the tunnel is up.
    """
    from_network = any(
        source.startswith(("http://", "https://")) for policy in config.policies for source in policy.sources
    )
    paths = config.paths
    places = dict.fromkeys([*(paths.at(path) for path in _generated(config)), *_possible(config)])
    before = store.snapshot([paths.state, *places])
    # A copy that an earlier run has made stays where it is: teardown gives it back.
    placed = [place for place in places if not os.path.lexists(kept.copy_of(paths, place))]
    back.append(("list", lambda: [kept.give_back(paths, place) for place in placed]))
    back.append(("list", lambda: store.restore(before)))
    done, _ = update(config, offline=had_list or from_network)
    for warning in done.warnings:
        warn(warning)
    for policy in done.policies:
        if not policy.unchanged:
            say(_came(policy))


def _possible(config: Config) -> Iterator[Path]:
    """Every file that an update may write for the policies, in any layout and backend."""
    paths = config.paths
    for policy in config.policies:
        yield config.dnsmasq_conf(policy)
        for place in (paths.servers, paths.second, paths.list, paths.domains, paths.ipset, paths.nft):
            yield place(policy.name)


def _generated(config: Config) -> list[str]:
    """Every file that the state speaks of."""
    state = read_state(config.paths.state)
    return [path for policy in state.policies.values() for path in policy.in_place]


def _put(edits: list[FileEdit], paths: Paths, say: Say, back: "_Back") -> None:
    due = [edit.path for edit in files.differing(edits, paths)]
    # Where somebody has put a link since, that is recorded anew.
    known = {path for path in files.recorded(paths) if not paths.at(path).is_symlink()}
    # What an earlier run has put there comes back as that run had it; the record speaks of the host's own.
    earlier = store.snapshot([files.record_path(paths), *(paths.at(path) for path in due if path in known)])
    back.append(("files", lambda: store.restore({p: d for p, d in earlier.items() if known or d is not None})))
    back.append(("files", lambda: files.put_back(paths, [path for path in due if path not in known], force=True)))
    for path in files.put(edits, paths):
        say(f"wrote {path}")
    if any(path == MAIN_CONF or path.endswith(f"/{resolver_setup.SNIPPET}") for path in due):
        # What dnsmasq has loaded, it has loaded with another set-up: a restart is due.
        _forget_loaded(paths)


def _forget_loaded(paths: Paths, removed: Collection[Path] = ()) -> None:
    """Note that no running program has read our files any more, and that some are ``removed``."""
    state = read_state(paths.state)
    policies = {}
    for name, policy in state.policies.items():
        files = {path: "" if paths.at(path) in removed else written for path, written in policy.files.items()}
        policies[name] = policy._replace(loaded={}, files=files)
    if state.policies != policies:
        write_state(paths.state, state._replace(policies=policies))


def _apply(steps: list[Step], runner: Runner, say: Say, back: "_Back") -> None:
    if not steps:
        return
    apply(steps, runner)
    back.append((steps[0].what, lambda: take_back(steps, runner)))
    for step in steps:
        say(f"{step.what}: {step.why}")


def _reload(config: Config, say: Say, warn: Say) -> None:
    """Have dnsmasq read everything. Where nobody is known who could restart it, that is the owner's to do."""
    try:
        _, notes = update(config, offline=True, reload=True)
    except ResolverError as error:
        if "dns.manager" not in str(error):
            raise
        warn("dnsmasq was not restarted, as no service manager runs here; restart it (see dns.manager)")
        return
    for note in notes:
        say(note)


def _real_list(config: Config, say: Say, warn: Say) -> None:
    """The list itself, now that the tunnel is up; without it the host works all the same."""
    try:
        done, _ = update(config, reload=config.dns.manager != "none")
    except GfwtoolsError as error:
        warn(f"the starter list stays for now: {error}")
        return
    for policy in done.policies:
        if policy.obtained.starter:
            warn(f"{policy.policy.name}: no mirror answers yet; the starter list stays until the next update")
        else:
            say(_came(policy))


def _came(policy: PolicyUpdate) -> str:
    count = policy.state.domains
    return f"{policy.policy.name}: {count:,} domain{'s' * (count != 1)} from {policy.source}"


def _is_starter(config: Config, policy: str) -> bool:
    return read_state(config.paths.state).of(policy).starter


_Back = list[tuple[str, Callable[[], object]]]


@contextmanager
def way_back(warn: Say) -> Iterator[_Back]:
    """A list of what has to be taken back when something fails within, the last first."""
    back: _Back = []
    with Held() as held:
        try:
            with held.let():
                yield back
        except BaseException as error:
            left = []
            for what, way in reversed(back):
                try:
                    way()
                except GfwtoolsError as problem:
                    left.append(f"{what}: {problem}")
            if isinstance(error, GfwtoolsError):
                after = f"could not be taken back: {'; '.join(left)}" if left else AS_BEFORE
                raise HostError(f"{_reason(error)}; {after}") from None
            for problem_text in left:
                warn(f"could not be taken back: {problem_text}")
            raise


def _reason(error: GfwtoolsError) -> str:
    """A message without what its own part of the work says of the rest of the host."""
    text = str(error)
    for sentence in (AS_BEFORE, store.NOTHING):
        text = text.removesuffix(f"; {sentence}")
    return text


# ---------------------------------------------------------------- undo


#: Below the state's folder, from the first change of :func:`undo` until dnsmasq has forgotten our files.
RESTART_DUE = "restart-due"


def undo(config: Config, runner: Runner, *, purge: bool, say: Say) -> list[str]:
    """Undo :func:`run`; where that was begun before, finish it.

    :returns: what was left as it is, in words.
    :raises HostError: a file cannot be replaced, and nothing was changed; or a step failed, and what was undone before
        it stays undone.
    """
    found = _adopt(config, runner)
    stuck = _stuck(config.paths, files.recorded(config.paths))
    if stuck:
        raise HostError("; ".join(stuck))
    try:
        notes = _undo(config, runner, purge=purge, say=say)
        return [f"{_unknown(config, found)}; they went, or our lines in them", *notes] if found else notes
    except KeyboardInterrupt:
        say("what was undone stays undone; run again: gfwtools teardown")
        raise
    except GfwtoolsError as error:
        raise HostError(
            f"{_reason(error)}; what was undone before that stays undone; mend it and run again: gfwtools teardown"
        ) from None


def _undo(config: Config, runner: Runner, *, purge: bool, say: Say) -> list[str]:
    paths = config.paths
    notes: list[str] = []
    changed = list(files.recorded(paths))
    init = boot.init_of(changed) or boot.detect_init(config.root)
    there = boot.observe(config, init, runner)
    service = daemon.observe(config, init, runner)
    lists = {str(path) for policy in config.policies for path in (paths.list(policy.name), paths.domains(policy.name))}
    generated = [paths.at(path) for path in _generated(config)]
    # Whatever the state knows: these say that they are ours.
    generated += [path for path in _possible(config) if path not in generated and kept.says_so(path)]
    removed = [
        path for path in generated if str(path) not in lists and path.parent != paths.state_dir and path.exists()
    ]
    marker = paths.state_dir / RESTART_DUE
    if changed or removed:
        store.mark(marker)
    apply(boot.leave_steps(config, init, there), runner)
    for step in plumbing.down(config, runner):
        say(f"removed {step.what}")
    left = files.put_back(paths, whole=(RESOLV_CONF,))
    notes += left.values()
    for path in changed:
        if path not in left:
            say(f"put back {path}")
    store.remove(removed)
    for place in generated:
        if kept.give_back(paths, place):
            say(f"put back {place}")
    apply(boot.forget_steps(init, there), runner)
    apply(resolver_setup.leave_steps(changed, runner, paths), runner)
    _forget_loaded(paths, removed)
    if marker.exists():
        notes += _leave_dnsmasq(config, init, service, runner)
        store.remove([marker])
    if purge:
        for folder in (paths.etc, paths.state_dir):
            _remove(folder, but=kept.folder(paths))
            say(f"removed {folder}")
    return notes


def _adopt(config: Config, runner: Runner) -> list[str]:
    """Record the files of ours that no record speaks of, as the state's folder was lost.

    :returns: the files.
    """
    paths = config.paths
    snippet = paths.at(config.dns.conf_dir) / resolver_setup.SNIPPET
    if files.record_path(paths).exists() or not snippet.exists():
        return []  # the record is whole, or there was no bootstrap
    places = (*resolver_setup.places(config), *boot.places())
    instead = resolver_setup.nameservers_instead(resolver_setup.observe(config, runner))
    return files.adopt(paths, places, instead)


def _unknown(config: Config, found: list[str]) -> str:
    """What was at those files before us is not known. resolv.conf gets the resolvers that dnsmasq asks."""
    return f"{files.record_path(config.paths)} was lost, and with it what was before gfwtools at {', '.join(found)}"


def _leave_dnsmasq(config: Config, init: Init, service: daemon.DaemonState, runner: Runner) -> list[str]:
    """dnsmasq forgets what it has read of ours where it runs, and ends where it did not run before."""
    started = config.paths.state_dir / daemon.STARTED
    ends = started.exists()
    apply(daemon.leave_steps(config, init, service), runner)
    has_second = [policy for policy in config.policies if end(config.paths.second_pid(policy.name))]
    if not ends:
        return _restart_dnsmasq(config, runner) if has_second or _main_runs(config) else []
    end(config.paths.at(config.dns.pid_file))
    store.remove([started])
    return []


def _remove(folder: Path, *, but: Path) -> None:
    """Remove a folder whole, ``but`` what is somebody else's."""
    with suppress(OSError):  # there is none, or something is left
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                if path != but:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        folder.rmdir()


def _restart_dnsmasq(config: Config, runner: Runner) -> list[str]:
    """dnsmasq reads its files again.

    :raises CommandError: the restart failed.
    """
    try:
        manager = manager_of(config, runner)
    except ResolverError as error:
        return [f"dnsmasq was not restarted, and still has the list in its memory: {error}"]
    if manager is None:
        return ["dnsmasq was not restarted (dns.manager); it still has the list in its memory"]
    manager.restart_main()
    return []
