"""``bootstrap``: the order in which a host is set up, and the way back.

    configuration -> list -> plumbing -> dnsmasq's files and the host's resolver -> boot -> reload -> check

Each stage is a module of its own that says what differs; nothing here knows a command. A stage that fails has the
stages before it taken back, the last one first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from gfwtools.config.model import Config, Paths
from gfwtools.dnsmasq import service
from gfwtools.dnsmasq.conf import MAIN_CONF, SNIPPET
from gfwtools.dnsmasq.daemon import clear_caches, end, runs
from gfwtools.dnsmasq.manager import manager_of
from gfwtools.errors import GfwtoolsError, HostError, ResolverError
from gfwtools.plumbing import updown
from gfwtools.plumbing.apply import AS_BEFORE, apply, take_back
from gfwtools.setup import files, resolver_edits
from gfwtools.setup.files import FileEdit
from gfwtools.setup.ours import adopt, forget_loaded, generated_files, lost_words, main_runs, possible_files, reason_of
from gfwtools.setup.plan import Planned, boot_steps, missing_lists
from gfwtools.storage import atomic, displaced
from gfwtools.storage.interrupts import Held
from gfwtools.storage.state import read_state
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step
from gfwtools.update.inputs import current_list
from gfwtools.update.update import update
from gfwtools.update.values import PolicyUpdate

__all__ = ["Say", "run", "way_back"]

Say = Callable[[str], None]


def run(planned: Planned, runner: Runner, *, say: Say, warn: Say) -> None:
    """Do it, stage by stage. Whether the host then works is for ``check host`` to say.

    :raises GfwtoolsError: a stage failed, and those before it have been taken back.
    """
    config, paths = planned.config, planned.config.paths
    before = _Running.of(config)
    with way_back(warn) as back:
        back.append(("dnsmasq", lambda: before.come_back(config, runner)))
        _write_configuration(planned, say, back)
        had_list = all(current_list(config, policy) is not None for policy in config.policies)
        _first_list(config, had_list, say, warn, back)
        seen = updown.look(config, runner)
        steps = seen.steps
        if steps:
            back.append(("plumbing", lambda: updown.go_back(config, seen, runner)))
            updown.up(config, runner, clear_caches=clear_caches)
            say(f"plumbing: {len(steps)} steps")
        # Whoever has read a file of ours reads it again once that was put back: this is first, to be undone last.
        due = [edit.path for edit in files.differing(planned.edits, paths)]
        back.append(("services", lambda: apply(resolver_edits.leave_steps(due, runner, paths), runner)))
        found = adopt(config, runner)
        if found:
            warn(lost_words(config, found))
        _put(planned.edits, paths, say, back)
        _apply([replace(step, undo=()) for step in planned.resolver_steps], runner, say, back)
        before.is_touched = True
        _apply(boot_steps(config, planned.init, runner, is_first=planned.is_first), runner, say, back)
        _reload(config, say, warn)
        if planned.is_first and not before.main:
            before.remember(config)
    try:
        if any(_is_starter(config, policy.name) for policy in config.policies):
            _real_list(config, say, warn)
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
        return cls(main_runs(config), frozenset(second))

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
            atomic.mark(config.paths.state_dir / service.STARTED)


def _write_configuration(planned: Planned, say: Say, back: "_Back") -> None:
    config = planned.config
    wanted: dict[Path, bytes] = {}
    if planned.config_text is not None:
        wanted[planned.config_path] = planned.config_text.encode()
    wanted |= missing_lists(config)
    before = atomic.snapshot(wanted)
    back.append(("configuration", lambda: atomic.restore(before)))
    for path in atomic.write_all(wanted, None):  # a proxy's password may be in it
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
    places = dict.fromkeys([*(paths.at(path) for path in generated_files(config)), *possible_files(config)])
    before = atomic.snapshot([paths.state, *places])
    # A copy that an earlier run has made stays where it is: teardown gives it back.
    placed = [place for place in places if not os.path.lexists(displaced.copy_of(paths, place))]
    back.append(("list", lambda: [displaced.give_back(paths, place) for place in placed]))
    back.append(("list", lambda: atomic.restore(before)))
    done, _ = update(config, offline=had_list or from_network)
    for warning in done.warnings:
        warn(warning)
    for policy in done.policies:
        if not policy.unchanged:
            say(_came(policy))


def _put(edits: list[FileEdit], paths: Paths, say: Say, back: "_Back") -> None:
    due = [edit.path for edit in files.differing(edits, paths)]
    # Where somebody has put a link since, that is recorded anew.
    known = {path for path in files.recorded(paths) if not paths.at(path).is_symlink()}
    # What an earlier run has put there comes back as that run had it; the record speaks of the host's own.
    earlier = atomic.snapshot([files.record_path(paths), *(paths.at(path) for path in due if path in known)])
    back.append(("files", lambda: atomic.restore({p: d for p, d in earlier.items() if known or d is not None})))
    back.append(("files", lambda: files.put_back(paths, [path for path in due if path not in known], force=True)))
    for path in files.put(edits, paths):
        say(f"wrote {path}")
    if any(path == MAIN_CONF or path.endswith(f"/{SNIPPET}") for path in due):
        # What dnsmasq has loaded, it has loaded with another set-up: a restart is due.
        forget_loaded(paths)


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
                raise HostError(f"{reason_of(error)}; {after}") from None
            for problem_text in left:
                warn(f"could not be taken back: {problem_text}")
            raise
