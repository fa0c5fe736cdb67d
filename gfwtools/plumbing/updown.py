"""``up`` and ``down``: look, compare, and run the difference. This is what the boot script runs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gfwtools.config.model import Address, Config
from gfwtools.plumbing import connections, learned, record, taken_down, this_boot
from gfwtools.plumbing.apply import COMMANDS, apply, as_words, undo_commands
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.survey import Survey, look, look_for_closed, look_for_down
from gfwtools.plumbing.this_boot import boot_id
from gfwtools.storage.journal import Entry, Journal, Undo
from gfwtools.storage.lock import lock
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step

__all__ = ["as_data", "close", "down", "go_back", "keep_up", "look", "look_for_down", "save_learned", "up"]

#: The transaction of both; made with host.lock held.
NAME = "plumbing"


def up(config: Config, runner: Runner, *, clear_caches: Callable[[], bool]) -> list[Step]:
    """Bring the plumbing to the state that the configuration wants; where nothing differs, change nothing.

    The endpoints of the tunnels are read anew, and addresses that :func:`down` has saved are back in their sets. Where
    an interface is missing or down the packets of its policy are refused (:meth:`Survey.interfaces_down` names it).

    Connections that would now go another way than they began are removed from conntrack
    (:mod:`~gfwtools.plumbing.connections`).

    :param clear_caches: :meth:`gfwtools.dnsmasq.resolver.Resolver.clear_caches`.
    :returns: the steps that were run.
    :raises HostError: a step failed, and the host is as it was before; or nothing was begun.
    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        _, steps = _bring_up(config, runner, clear_caches)
        taken_down.forget(config.paths)
        return steps


def keep_up(
    config: Config,
    runner: Runner,
    *,
    clear_caches: Callable[[], bool],
    endpoints: Mapping[str, Address] = MappingProxyType({}),
) -> tuple[Survey, list[Step]] | None:
    """The same as :func:`up` for cron and for events: plumbing that was taken down by hand stays down.

    :param endpoints: interface -> an endpoint that it gets in a moment, besides those that it has.
    :returns: the host as it was found, and the steps that were run; None where it stays down.
    :raises HostError: as :func:`up`.
    :raises StoreError: as :func:`up`.
    """
    with lock(config.paths.state_dir / "host.lock"):
        if taken_down.is_noted(config.paths):
            return None
        done = _bring_up(config, runner, clear_caches, endpoints)
        learned.note(config, look_for_down(config, runner).learned)
        return done


def _bring_up(
    config: Config,
    runner: Runner,
    clear_caches: Callable[[], bool],
    endpoints: Mapping[str, Address] = MappingProxyType({}),
) -> tuple[Survey, list[Step]]:
    _recover(config, runner)
    survey = look(config, runner, endpoints)
    after = survey.next_record()
    adopted = connections.adopt(config, survey)
    _run(config, survey, runner, after)
    if survey.makes_sets:
        record.save(config.paths, replace(after, cache_cleared=clear_caches()))
    learned.note(config, survey.learned)  # a power cut may come before the timer does
    learned.forget(config)
    return survey, [*adopted, *survey.steps, *connections.settle(config, survey)]


def down(config: Config, runner: Runner, *, by_hand: bool = False) -> list[Step]:
    """Remove what is ours and put back what was there before it; what dnsmasq has learned is saved for :func:`up`.

    It needs neither the interface nor the tools of a backend, and a second time it finds nothing to do.

    :param by_hand: it stays down until :func:`up` or the next boot, and :func:`keep_up` leaves it alone.
    :returns: the steps that were run.
    :raises HostError: a step failed, and the plumbing is as it was before.
    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        _recover(config, runner)
        survey = look_for_down(config, runner)
        learned.save(config, survey.learned)
        was_up = bool(survey.steps) or record.is_kept(config.paths)
        _run(config, survey, runner, Record())
        record.forget(config.paths)
        this_boot.forget(config.paths)
        if not by_hand:
            taken_down.forget(config.paths)
        elif was_up:
            taken_down.note(config.paths)
        return [*survey.steps, *connections.drop_all(config, survey)]


def close(config: Config, runner: Runner, *, clear_caches: Callable[[], bool]) -> list[Step]:
    """The same as :func:`down` by hand, but what goes to an address in a set is refused: the sets stay, and dnsmasq
    fills them.

    :param clear_caches: as for :func:`up`.
    :returns: the steps that were run.
    :raises HostError: a tool is missing; or a step failed, and the plumbing is as it was before.
    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        _recover(config, runner)
        before = look(config, runner)
        survey = look_for_closed(config, runner, before)
        _run(config, survey, runner, survey.next_record())
        taken_down.note(config.paths, closed=True)
        if survey.makes_sets:
            clear_caches()
        learned.forget(config)
        return [*survey.steps, *connections.drop_all(config, survey), *connections.settle(config, before)]


def save_learned(config: Config, runner: Runner) -> None:
    """Save what dnsmasq has learned for the next :func:`up`, and leave everything in the kernel.

    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        learned.save(config, look_for_down(config, runner).learned)


def as_data(config: Config, before: Survey, runner: Runner) -> dict[str, Any]:
    """What :func:`go_back` needs to undo an :func:`up` that finds the host as ``before`` has it."""
    return {
        "boot": boot_id(config.paths, runner),
        "was_up": before.is_up,
        "by_hand": taken_down.is_noted(config.paths),
        "steps": [step.what for step in before.steps],
        "undo": [list(undo) for step in reversed(before.steps) for undo in as_words(step.undo)],
        "record": record.as_data(before.record),
    }


def go_back(config: Config, runner: Runner, before: Mapping[str, Any]) -> None:
    """Undo an :func:`up`: the plumbing is down again, or up as before, perhaps for another configuration.

    :param before: :func:`as_data`.
    :raises HostError: a step failed.
    :raises StoreError: one of our files cannot be written.
    """
    if not before["was_up"]:
        down(config, runner, by_hand=before["by_hand"])
        return
    with lock(config.paths.state_dir / "host.lock"):
        _recover(config, runner)
        now = look(config, runner)
        if [step.what for step in now.steps] == before["steps"]:
            return  # it has failed, and was taken back then
        entry = Entry(0, COMMANDS, "plumbing", {"boot": before["boot"], "undo": before["undo"]})
        undo_commands(runner, boot_id(config.paths, runner))(entry, False)
        Journal(config.paths).keep(record.KIND, "", before["record"])
        was = record.from_data(before["record"])
        connections.drop(connections.gone(now.record.connmarks, was.connmarks if was else ()))


def _recover(config: Config, runner: Runner) -> None:
    """Undo what a killed run has begun. The next look finds what is left."""
    Journal(config.paths).recover(NAME, _inverses(config, runner))


def _run(config: Config, survey: Survey, runner: Runner, after: Record) -> None:
    """Run the steps. The record of what was before is written down first."""
    if not survey.steps:
        return
    this_boot.note(config.paths, runner)
    with Journal(config.paths).transaction(NAME, _inverses(config, runner)) as transaction:
        record.note(transaction, after)
        apply(survey.steps, runner, transaction, boot=boot_id(config.paths, runner))


def _inverses(config: Config, runner: Runner) -> dict[str, Undo]:
    return {COMMANDS: undo_commands(runner, boot_id(config.paths, runner)), record.KIND: record.leave}
