"""``update``: the pipeline from a source to the files on disk, for every policy, all of it or nothing."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gfwtools.config.model import Config
from gfwtools.errors import ConfigError, GfwtoolsError, HostError, StoreError
from gfwtools.storage import atomic, displaced
from gfwtools.storage.journal import Journal, Transaction, Undo
from gfwtools.storage.lock import lock
from gfwtools.storage.state import write_state
from gfwtools.system import ownership
from gfwtools.update.prepare import prepare
from gfwtools.update.replace import NAME, NOTHING, replace
from gfwtools.update.values import NotRepairedError, Update

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress
    from gfwtools.system.commands import Runner

__all__ = ["lock_wait", "recover", "update"]


def update(
    config: Config,
    *,
    sources: Sequence[str] = (),
    offline: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
    reload: bool = False,
    report: Callable[[str], None] | None = None,
    edit: Callable[[], Mapping[Path, bytes]] = dict,
    within: Transaction | None = None,
) -> tuple[Update, list[str]]:
    """Fetch, compile and write, with the lock held.

    :param sources: instead of the configured ones, for the first policy.
    :param offline: take the last good list (or the starter list) and use no network.
    :param force: accept a list that has shrunk below ``fetch.min_share``.
    :param reload: have dnsmasq and the kernel take the files, and see that they did.
    :param report: repair this host first (:func:`gfwtools.update.repair.repair`), and call this with what was found.
    :param edit: gives the new content of files of the user's, with the lock held. They are a part of the update.
    :param within: the transaction that this is a part of; without one it is one of its own.
    :returns: what was done, and what the reload did, in words.
    :raises GfwtoolsError: nothing was changed, or all of it was put back.
    :raises NotRepairedError: the update was done, and something could not be repaired.
    """
    paths = config.paths
    if reload and config.root != Path("/"):
        raise HostError(f"a reload below {config.root} would reach the kernel and dnsmasq of this host", "leave it out")
    was_wired = reload and _is_wired(config)
    with lock(paths.lock, wait=lock_wait()):
        if was_wired and not _is_wired(config):
            raise HostError("gfwtools teardown ran while this waited", "to set the host up again: gfwtools bootstrap")
        recover(config)
        with _repaired(config, report) as require_repaired:
            folders = {config.dnsmasq_conf(policy).parent for policy in config.policies}
            atomic.remove_leftovers(paths.state_dir, paths.dns, *folders, tree=displaced.folder(paths))
            prepared = prepare(config, sources=sources, offline=offline, force=force, progress=progress, edits=edit())
            foreign = ownership.not_ours(paths, (path for policy in prepared.policies for path in policy.files))
            replaced = tuple(
                f"{place}: not written by gfwtools; it is replaced, and teardown gives it back" for place in foreign
            )
            prepared = prepared._replace(warnings=(*prepared.warnings, *replaced))
            if prepared.learned and not prepared.files(config):
                with suppress(StoreError):  # it saves the next run a wait, and is no reason for this one to fail
                    write_state(paths.state, prepared.state)
            if reload:
                from gfwtools.system.commands import System
                from gfwtools.update.install import install

                notes = install(config, prepared, foreign, within=within)
                overridden = _overridden(config, System())
                done = prepared._replace(warnings=(*prepared.warnings, *overridden))
                require_repaired(done, notes)
                return done, notes
            with Journal(paths).transaction(NAME, {}, outcome=NOTHING, within=within) as transaction:
                replace(config, prepared, foreign, transaction)
            return prepared, []


def _is_wired(config: Config) -> bool:
    from gfwtools.dnsmasq.conf import is_wired

    return is_wired(config)


@contextmanager
def _repaired(config: Config, report: Callable[[str], None] | None) -> Iterator[Callable[[Update, list[str]], None]]:
    """Repair the host before the update. The context is a function to call after it, which raises what is not repaired.

    Where the update fails, its error is the one that is raised, and the other one is reported.
    """
    if report is None:
        yield lambda done, notes: None
        return
    from gfwtools.system.commands import System
    from gfwtools.update.repair import repair

    found = repair(config, System())
    for line in (*found.notes, found.line()):
        if line:
            report(line)

    try:
        yield found.raise_problems
    except NotRepairedError:
        raise
    except GfwtoolsError:
        for problem in found.problems:
            report(f"not repaired: {problem}")
        raise


def _overridden(config: Config, runner: "Runner") -> list[str]:
    """A warning about lines of the user's that decide listed names, or cannot be read. It is no failure: the new list
    is in use, and the old one would be overridden as well."""
    from gfwtools.dnsmasq.dnsmasq import Dnsmasq
    from gfwtools.dnsmasq.overrides import words

    try:
        found = [override for override in Dnsmasq(config, runner).overrides() if not override.is_block]
    except StoreError as error:
        return [str(error)]
    return [f"lines of yours override the list: {words(found)}; run: gfwtools check host"] if found else []


def recover(config: Config) -> None:
    """Take back what an update that was killed has begun; the lock is held."""
    journal = Journal(config.paths)
    undo: Mapping[str, Undo] = {}
    if journal.is_open(NAME):  # every bootstrapped host has a journal, and few updates have to undo one
        from gfwtools.system.commands import System
        from gfwtools.update.install import inverses

        undo = inverses(config, System())
    journal.recover(NAME, undo)


def lock_wait() -> float:
    """How many seconds a second gfwtools waits for the first: 30, or GFWTOOLS_LOCK_WAIT.

    :raises ConfigError: the variable is no number.
    """
    text = os.environ.get("GFWTOOLS_LOCK_WAIT", "30")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ConfigError(f"GFWTOOLS_LOCK_WAIT: {text!r} is no number of seconds", "give one such as 30") from None
