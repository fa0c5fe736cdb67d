"""Run the steps; when one fails, take back those that were done."""

from collections.abc import Sequence
from dataclasses import replace

from gfwtools.errors import HostError
from gfwtools.storage.interrupts import Held
from gfwtools.system.commands import CommandError, Runner
from gfwtools.system.step import Step

__all__ = ["AS_BEFORE", "apply", "take_back"]

AS_BEFORE = "the host is as it was before"


def apply(steps: Sequence[Step], runner: Runner) -> None:
    """Run ``steps`` in order.

    :raises HostError: a step failed: which one, the command and its message. All before it has been taken back, or the
        message says what could not be.
    """
    begun: list[Step] = []
    with Held() as held:
        try:
            with held.let():
                for step in steps:
                    begun.append(step)
                    for command in step.do:
                        runner.change(command)
        except CommandError as error:
            *before, step = begun
            if step.divisible:
                _take_back(step, runner)
            left = [problem for done in reversed(before) for problem in _take_back(done, runner)]
            after = f"; could not be taken back: {'; '.join(left)}" if left else f"; {AS_BEFORE}"
            raise HostError(f"{step.what}: {error}{after}") from None
        except BaseException:
            # Ctrl-C and the like must not leave half of a plumbing either.
            for done in reversed(begun):
                _take_back(done, runner)
            raise


def take_back(steps: Sequence[Step], runner: Runner) -> None:
    """Run the inverse of ``steps`` that were all done, the last one first.

    :raises HostError: as for :func:`apply`.
    """
    apply([replace(step, do=step.undo, undo=step.do) for step in reversed(steps) if step.undo], runner)


def _take_back(step: Step, runner: Runner) -> list[str]:
    """Run a step's inverse as far as it goes; what failed, in words."""
    problems = []
    for command in step.undo:
        try:
            runner.change(command)
        except CommandError as error:
            problems.append(str(error))
    return problems
