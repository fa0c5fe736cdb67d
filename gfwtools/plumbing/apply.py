"""Run the steps of a plan in a transaction: each is written down with its inverse before it runs."""

from collections.abc import Sequence

from gfwtools.config.model import Paths
from gfwtools.errors import GfwtoolsError, HostError
from gfwtools.storage.journal import Entry, Journal, Transaction, Undo
from gfwtools.system.commands import Command, CommandError, Runner
from gfwtools.system.step import Step

__all__ = ["COMMANDS", "apply", "as_words", "kept_commands", "undo_commands", "undo_kept"]

#: The kind of an entry whose inverse is commands.
COMMANDS = "commands"


def apply(steps: Sequence[Step], runner: Runner, within: Transaction | None = None, *, boot: str = "") -> None:
    """Run ``steps`` in order, all of them or none.

    :param within: the transaction that they are a part of; without one they are one of their own, in memory alone.
    :param boot: what the kernel calls this boot, where the steps change nothing that outlives it.
    :raises HostError: a step failed; the message names it, the command and its reason.
    """
    undo = {COMMANDS: undo_commands(runner)}
    with Journal(None).transaction("steps", undo, within=within) as transaction:
        for step in steps:
            inverse = {"boot": boot, "undo": as_words(step.undo)}
            entry = transaction.record(COMMANDS, inverse, step.keep or step.what, keep=bool(step.keep))
            try:
                for command in step.do:
                    runner.change(command)
            except CommandError as error:
                if step.divisible:
                    transaction.doubt(entry)
                else:
                    transaction.discard(entry)
                raise HostError(f"{step.what}: {error}") from None


def undo_commands(runner: Runner, boot: str = "") -> Undo:
    """The inverse of a step: its commands. What belongs to an earlier boot than ``boot`` has gone with it."""

    def undo(entry: Entry, doubtful: bool) -> None:
        if entry.data["boot"] and entry.data["boot"] != (boot or entry.data["boot"]):
            return
        problems = []
        for argv, stdin, busy in entry.data["undo"]:
            try:
                runner.change(Command(tuple(argv), stdin, busy))
            except CommandError as error:  # the others still run
                problems.append(str(error))
        if problems and not doubtful:
            raise GfwtoolsError("; ".join(problems))

    return undo


def kept_commands(paths: Paths) -> frozenset[str]:
    """The names of the steps whose inverses are kept for ``teardown``.

    :raises StoreError: the journal is there and cannot be read.
    """
    return frozenset(Journal(paths).kept_entries(COMMANDS))


def undo_kept(paths: Paths, runner: Runner, *names: str) -> None:
    """Run the kept inverses of ``names``, the last change first, and forget them. A name without one is skipped.

    :raises HostError: a command failed.
    """
    journal = Journal(paths)
    for name, entry in reversed(journal.kept_entries(COMMANDS).items()):
        if name in names:
            try:
                undo_commands(runner)(entry, False)
            except GfwtoolsError as error:
                raise HostError(f"{name}: {error.what}", error.remedy) from None
            journal.forget(COMMANDS, name)


def as_words(commands: Sequence[Command]) -> list[tuple[list[str], str, str]]:
    """Commands as values of JSON."""
    return [(list(each.argv), each.stdin, each.busy) for each in commands]
