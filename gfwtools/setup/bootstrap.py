"""``bootstrap``: the order in which a host is set up, and the way back.

    configuration -> list -> plumbing -> dnsmasq's files and the host's resolver -> boot -> reload -> check

Each stage is a module of its own that finds what differs; this module knows no command. When a stage fails, the stages
before it are taken back, the last one first.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gfwtools.config.model import Config
from gfwtools.dnsmasq import service
from gfwtools.dnsmasq.conf import MAIN_CONF, SNIPPET
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import GfwtoolsError, HostError, NoManagerError, ResolverError
from gfwtools.plumbing import updown
from gfwtools.plumbing.apply import COMMANDS, apply, undo_commands
from gfwtools.setup import files, resolver_edits
from gfwtools.setup.ours import adopt, forget_loaded, lost_words
from gfwtools.setup.plan import Planned, boot_steps, missing_lists
from gfwtools.storage.journal import Entry, Journal, Transaction, Undo
from gfwtools.storage.lock import lock
from gfwtools.storage.state import read_state
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step
from gfwtools.update.inputs import current_list
from gfwtools.update.update import lock_wait, update
from gfwtools.update.update import recover as recover_update
from gfwtools.update.values import PolicyUpdate

__all__ = ["Say", "recover", "run"]

Say = Callable[[str], None]

#: The kinds of the transaction's entries, besides files and commands.
RUNNING, PLUMBING, SERVICES = "running", "up", "services"


def run(planned: Planned, runner: Runner, *, say: Say, warn: Say) -> None:
    """Set up the host, stage by stage. ``check host`` then shows whether it works.

    :raises GfwtoolsError: a stage failed, and the stages before it have been taken back.
    """
    config = planned.config
    resolver: Resolver = Dnsmasq(config, runner)
    with files.lock_setup(config.paths), _transaction(config, runner, warn) as transaction:
        running = _note_what_runs(config, resolver, transaction)
        _write_configuration(planned, transaction, say)
        _first_list(config, transaction, say, warn)
        _set_up_plumbing(config, runner, resolver, transaction, say)
        _adopt_what_is_lost(config, runner, warn)
        _put_files(planned, transaction, say)
        _apply(planned.resolver_steps, runner, transaction, say)
        transaction.amend(running, {**running.data, "touched": True})
        _apply(boot_steps(config, planned.init, runner, is_first=planned.is_first), runner, transaction, say)
        _reload(config, transaction, say, warn)
        _note_what_was_started(planned, resolver, running, transaction)
    _fetch_real_list(config, say, warn)


def recover(config: Config, runner: Runner) -> None:
    """Take back a bootstrap that was killed, and an update within it; the lock on the state's folder is held.

    :raises HostError: not all of it could be taken back.
    """
    with lock(config.paths.lock, wait=lock_wait()):
        recover_update(config)
    left = Journal(config.paths).recover(files.TRANSACTION, _inverses(config, runner))
    if left:
        raise HostError(
            f"an earlier bootstrap was killed, and could not be taken back: {'; '.join(left)}",
            "fix that, then run again",
        )


@contextmanager
def _transaction(config: Config, runner: Runner, warn: Say) -> Iterator[Transaction]:
    recover(config, runner)
    begun: Transaction | None = None
    try:
        with Journal(config.paths).transaction(files.TRANSACTION, _inverses(config, runner)) as begun:
            yield begun
    except KeyboardInterrupt:
        if begun and not begun.left:
            warn("every step was taken back; the host is as before")
        for problem in begun.left if begun else ():
            warn(f"could not be taken back: {problem}")
        raise


def _inverses(config: Config, runner: Runner) -> dict[str, Undo]:
    return {
        RUNNING: lambda entry, doubtful: _run_as_before(config, Dnsmasq(config, runner), entry.data),
        PLUMBING: lambda entry, doubtful: updown.go_back(config, runner, entry.data),
        SERVICES: lambda entry, doubtful: apply(
            resolver_edits.leave_steps(entry.data["files"], runner, config.paths), runner
        ),
        COMMANDS: undo_commands(runner),
    }


# ---------------------------------------------------------------- what runs


def _note_what_runs(config: Config, resolver: Resolver, transaction: Transaction) -> Entry:
    """Which dnsmasqs run. It is the first entry, so that its inverse is the last: by then the old files are back."""
    second = [policy.name for policy in config.policies if resolver.runs_second(policy)]
    return transaction.record(RUNNING, {"main": resolver.is_running(), "second": second, "touched": False})


def _run_as_before(config: Config, resolver: Resolver, before: Mapping[str, Any]) -> None:
    """Restart the daemons that ran before, so that they read the old files, which are back; end the others.

    :raises GfwtoolsError: the restart failed.
    """
    restarts = before["touched"] and config.dns.manager != "none"
    if restarts:
        for policy in config.policies:
            if policy.name not in before["second"]:
                resolver.end_second(policy)
    if not before["second"]:
        resolver.remove_folders()
    if not restarts:
        return
    if not before["main"]:
        resolver.end()
        return
    with suppress(ResolverError):  # no service manager is known, so none has restarted it
        resolver.restart()


def _note_what_was_started(planned: Planned, resolver: Resolver, running: Entry, transaction: Transaction) -> None:
    """Where no dnsmasq ran and one does now, teardown ends it."""
    is_new = planned.is_first and not running.data["main"] and service.STARTED not in transaction.recorded(COMMANDS)
    if is_new and resolver.is_running():
        transaction.record(COMMANDS, {"boot": "", "undo": []}, service.STARTED, keep=True)


# ---------------------------------------------------------------- the stages


def _write_configuration(planned: Planned, transaction: Transaction, say: Say) -> None:
    wanted: dict[Path, bytes] = {}
    if planned.config_text is not None:
        wanted[planned.config_path] = planned.config_text.encode()
    wanted |= missing_lists(planned.config)
    for path in transaction.write(wanted, mode=None):  # a proxy's password may be in it
        say(f"wrote {path}")


def _first_list(config: Config, transaction: Transaction, say: Say, warn: Say) -> None:
    """The list that dnsmasq starts from.

    Mirrors are often blocked themselves. Where no list is there yet and it has to come over the network, the starter
    list is used until the tunnel is up.
    """
    had_list = all(current_list(config, policy) is not None for policy in config.policies)
    from_network = any(
        source.startswith(("http://", "https://")) for policy in config.policies for source in policy.sources
    )
    done, _ = update(config, offline=had_list or from_network, within=transaction)
    for warning in done.warnings:
        warn(warning)
    for policy in done.policies:
        if not policy.unchanged:
            say(_came(policy))


def _set_up_plumbing(config: Config, runner: Runner, resolver: Resolver, transaction: Transaction, say: Say) -> None:
    resolver.make_folders()
    seen = updown.look(config, runner)
    if seen.steps:
        transaction.record(PLUMBING, updown.as_data(config, seen, runner))
        updown.up(config, runner, clear_caches=resolver.clear_caches)
        say(f"plumbing: {len(seen.steps)} steps")


def _adopt_what_is_lost(config: Config, runner: Runner, warn: Say) -> None:
    found = adopt(config, runner)
    if found:
        warn(lost_words(config, found))


def _put_files(planned: Planned, transaction: Transaction, say: Say) -> None:
    """dnsmasq's set-up, the host's resolver set-up, units and scripts."""
    paths = planned.config.paths
    due = [edit.path for edit in files.differing(planned.edits, paths)]
    # A service that has read a file of ours reads it again after it was put back: this is first, to be undone last.
    transaction.record(SERVICES, {"files": due})
    for path in files.put(planned.edits, paths, transaction):
        say(f"wrote {path}")
    if any(path == MAIN_CONF or path.endswith(f"/{SNIPPET}") for path in due):
        # What dnsmasq has loaded, it has loaded with another set-up: a restart is due.
        forget_loaded(paths, transaction)


def _apply(steps: list[Step], runner: Runner, transaction: Transaction, say: Say) -> None:
    apply(steps, runner, transaction)
    for step in steps:
        say(f"{step.what}: {step.why}")


def _reload(config: Config, transaction: Transaction, say: Say, warn: Say) -> None:
    """Have dnsmasq read everything. Where no service manager runs, the owner restarts it."""
    try:
        _, notes = update(config, offline=True, reload=True, within=transaction)
    except NoManagerError:
        warn("dnsmasq was not restarted: no service manager runs here; restart it (see dns.manager)")
        return
    for note in notes:
        say(note)


def _fetch_real_list(config: Config, say: Say, warn: Say) -> None:
    """The list itself in place of the starter list, now that the tunnel is up."""
    try:
        if any(_is_starter(config, policy.name) for policy in config.policies):
            _real_list(config, say, warn)
    except KeyboardInterrupt:
        warn("the host is set up; run: gfwtools check host")
        raise


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
