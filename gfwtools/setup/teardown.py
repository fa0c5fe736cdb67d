"""``teardown``: undo bootstrap, or finish a teardown that was interrupted."""

import shutil
from contextlib import suppress
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.dnsmasq import service
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import GfwtoolsError, HostError, ResolverError
from gfwtools.plumbing import learned, taken_down, updown
from gfwtools.plumbing.apply import apply, kept_commands, undo_kept
from gfwtools.setup import boot, files, resolver_edits, saved_rules
from gfwtools.setup.bootstrap import Say, recover
from gfwtools.setup.lease_hooks import COPIES, DHCPCD_LEASES, LEASES
from gfwtools.setup.ours import adopt, forget_loaded, generated_files, lost_words, possible_files
from gfwtools.setup.plan import mounts_in_the_way
from gfwtools.setup.renewal import with_servers_of_today
from gfwtools.storage import atomic, displaced
from gfwtools.storage.journal import Journal
from gfwtools.storage.lock import lock
from gfwtools.system import ownership
from gfwtools.system.commands import Runner
from gfwtools.system.init import detect_init
from gfwtools.system.questions import RESOLV_CONF
from gfwtools.update.update import lock_wait

__all__ = ["undo"]

#: The kind of an entry that is kept from the first change of :func:`undo` until dnsmasq has forgotten our files.
RESTART_DUE = "restart due"


def undo(config: Config, runner: Runner, *, purge: bool, say: Say) -> list[str]:
    """Undo bootstrap: read the journal backwards. A teardown that was interrupted is finished.

    :returns: what was not undone, in words.
    :raises HostError: a file cannot be replaced, and nothing was changed; or a step failed, and what was undone before
        it stays undone.
    """
    with files.lock_setup(config.paths):
        recover(config, runner)
        found = adopt(config, runner)
        stuck = mounts_in_the_way(config.paths, files.recorded(config.paths))
        if stuck:
            raise HostError("; ".join(stuck))
        # An update that runs meanwhile would bring back what is undone.
        with lock(config.paths.lock, wait=lock_wait()):
            try:
                notes = _undo(config, runner, say=say)
            except KeyboardInterrupt:
                say("what was undone stays undone; run again: gfwtools teardown")
                raise
            except GfwtoolsError as error:
                raise HostError(
                    f"{error.message}; what was undone before that stays undone",
                    "fix it, then run again: gfwtools teardown",
                ) from None
    if purge:
        for folder in (config.paths.etc, config.paths.state_dir):
            _remove(folder, but=displaced.folder(config.paths))
            say(f"removed {folder}")
    return [f"{lost_words(config, found)}; these files were removed, or our lines in them", *notes] if found else notes


def _undo(config: Config, runner: Runner, *, say: Say) -> list[str]:
    paths, journal = config.paths, Journal(config.paths)
    recorded = files.recorded(paths)
    changed = list(recorded)
    was_there = {path for path, entry in recorded.items() if files.original_of(entry).exists}
    init = boot.init_of(changed) or detect_init(config.root)
    there = boot.observe(config, init, runner)
    kinds = (paths.list, paths.direct, paths.domains)
    lists = {str(place(policy.name)) for policy in config.policies for place in kinds}
    generated = [paths.at(path) for path in generated_files(config)]
    # The state may not know these: their header marks them as ours.
    generated += [path for path in possible_files(config) if path not in generated and ownership.has_header(path)]
    removed = [
        path for path in generated if str(path) not in lists and path.parent != paths.state_dir and path.exists()
    ]
    if changed or removed:
        journal.keep(RESTART_DUE, "", {})
    apply(boot.leave_steps(config, init, there), runner)
    undo_kept(paths, runner, boot.LOCAL_ENABLED)
    # By hand, so that no event of the host brings it up before all is undone.
    for step in updown.down(config, runner, by_hand=True):
        say(f"undone: {step.what}")
    unrecorded = [name for path in removed if (name := f"/{path.relative_to(paths.root)}") not in changed]
    atomic.remove(map(paths.at, unrecorded))
    for name in unrecorded:
        say(f"removed {name}")
    with_servers_of_today(config)
    ours = [*COPIES, *(f"/{path.relative_to(paths.root)}" for path in generated)]
    left = files.put_back(paths, whole=(RESOLV_CONF,), ours=ours)
    for leases in (LEASES, DHCPCD_LEASES):
        shutil.rmtree(paths.at(leases).parent, ignore_errors=True)
    for path in changed:
        if path not in left:
            say(f"{'put back' if path in was_there else 'removed'} {path}")
    apply(boot.forget_steps(init, there), runner)
    apply(resolver_edits.leave_steps(changed, runner, paths), runner)
    forget_loaded(paths, removed=removed)
    notes = [*left.values(), *saved_rules.notes(paths)]
    if journal.kept_entries(RESTART_DUE):
        notes += _leave_dnsmasq(config, runner)
        journal.forget(RESTART_DUE)
    taken_down.forget(paths)
    learned.forget(config)
    learned.forget_noted(config)
    Dnsmasq(config, runner).remove_folders()
    return notes


def _leave_dnsmasq(config: Config, runner: Runner) -> list[str]:
    """Restart dnsmasq without our files where it ran before gfwtools, and end it where it did not."""
    resolver: Resolver = Dnsmasq(config, runner)
    ends = service.STARTED in kept_commands(config.paths)
    if ends:
        resolver.end()
    undo_kept(config.paths, runner, service.STARTED, service.ENABLED)
    has_second = [policy for policy in config.policies if resolver.end_second(policy)]
    return _restart(resolver) if not ends and (has_second or resolver.is_running()) else []


def _remove(folder: Path, *, but: Path) -> None:
    """Remove a folder and everything in it, except the folder ``but``."""
    with suppress(OSError):  # there is none, or something is left
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                if path != but:
                    shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        folder.rmdir()


def _restart(resolver: Resolver) -> list[str]:
    """The resolver reads its files again.

    :raises CommandError: the restart failed.
    """
    try:
        may_restart = resolver.can_reload()
    except ResolverError as error:
        return [f"dnsmasq was not restarted, and still has the list in its memory: {error}"]
    if not may_restart:
        return ["dnsmasq was not restarted (dns.manager); it still has the list in its memory"]
    resolver.restart()
    return []
