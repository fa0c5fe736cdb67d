"""Steps and files as bootstrap takes them, in a transaction of the host's own journal."""

from collections.abc import Iterable

from gfwtools.config.model import Paths
from gfwtools.plumbing.apply import COMMANDS, undo_commands
from gfwtools.plumbing.apply import apply as apply_within
from gfwtools.setup import files
from gfwtools.setup.files import FileEdit
from gfwtools.storage.journal import Journal
from gfwtools.system.commands import Runner
from gfwtools.system.step import Step


def put(edits: Iterable[FileEdit], paths: Paths) -> list[str]:
    with Journal(paths).transaction("test", {}) as transaction:
        return files.put(edits, paths, transaction)


def apply(steps: list[Step], runner: Runner, paths: Paths) -> None:
    with Journal(paths).transaction("test", {COMMANDS: undo_commands(runner)}) as transaction:
        apply_within(steps, runner, transaction)
