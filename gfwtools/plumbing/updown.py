"""``up`` and ``down``: look, compare, and run the difference. This is what the boot script runs."""

from collections.abc import Callable
from dataclasses import replace

from gfwtools.config.model import Config
from gfwtools.plumbing import learned, record
from gfwtools.plumbing.apply import apply, take_back
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.survey import Survey, look, look_for_down
from gfwtools.storage.interrupts import Held
from gfwtools.storage.lock import lock
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step

__all__ = ["down", "go_back", "look", "look_for_down", "up"]


def up(config: Config, runner: Runner, *, clear_caches: Callable[[Config], bool]) -> list[Step]:
    """Bring the plumbing from whatever it is to what the configuration wants; where it is so already, change nothing.

    The endpoints of the tunnels are read anew, and addresses that :func:`down` has saved are back in their sets. Where
    an interface is missing or down the packets of its policy are refused (:meth:`Survey.interfaces_down` tells).

    :param clear_caches: has the resolvers clear their caches (:func:`gfwtools.dnsmasq.daemon.clear_caches`), and says
        whether the main one has.
    :returns: the steps that were run.
    :raises HostError: a step failed, and the host is as it was before; or nothing was begun.
    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        survey = look(config, runner)
        after = survey.next_record()
        _run(config, survey, runner, after)
        if survey.makes_sets:
            record.save(config.paths, replace(after, cache_cleared=clear_caches(config)))
        learned.forget(config)
        return survey.steps


def down(config: Config, runner: Runner) -> list[Step]:
    """Remove what is ours and put back what was there before it; what dnsmasq has learned is saved for :func:`up`.

    It needs neither the interface nor the tools of a backend, and a second time it finds nothing to do.

    :returns: the steps that were run.
    :raises HostError: a step failed, and the plumbing is as it was before.
    :raises StoreError: one of our files cannot be read or written.
    """
    with lock(config.paths.state_dir / "host.lock"):
        survey = look_for_down(config, runner)
        learned.save(config, survey.learned)
        _run(config, survey, runner, Record())
        record.forget(config.paths)
        return survey.steps


def go_back(config: Config, survey: Survey, runner: Runner) -> None:
    """Undo an :func:`up` that found the host as ``survey`` has it.

    :raises HostError: a step failed.
    :raises StoreError: one of our files cannot be written.
    """
    if not survey.is_up:
        down(config, runner)
        return
    if look(config, runner).steps == survey.steps:
        return  # it has failed, and was taken back then
    # It was up before, perhaps for another configuration: that is not taken down.
    with lock(config.paths.state_dir / "host.lock"):
        take_back(survey.steps, runner)
        record.save(config.paths, survey.record)


def _run(config: Config, survey: Survey, runner: Runner, after: Record) -> None:
    """Run the steps. Until they are done the record holds both ends: the power may go half-way."""
    if not survey.steps:
        return
    before = survey.record
    both = replace(
        after,
        boot=before.boot,
        sysctls={**before.sysctls, **after.sysctls},
        chains=tuple(sorted({*before.chains, *after.chains})),
        sets=tuple(sorted({*before.sets, *after.sets})),
        folders=after.folders or before.folders,
    )
    with Held() as held:
        try:
            with held.let():
                record.save(config.paths, both)
                apply(survey.steps, runner)
        except BaseException:
            record.save(config.paths, before)
            raise
    record.save(config.paths, after)
