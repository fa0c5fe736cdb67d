"""A change of the host: what and why, the commands that make it, and the commands that take it back."""

from collections.abc import Iterable
from dataclasses import dataclass

from gfwtools.system.commands import Command

__all__ = ["Step", "script"]


@dataclass(frozen=True, slots=True)
class Step:
    """A change: what and why, the commands that make it, and the commands that take it back."""

    what: str
    why: str
    do: tuple[Command, ...]
    undo: tuple[Command, ...]
    divisible: bool = False
    """The change may be half done when it fails. Its inverse must then work from any point of it."""
    keep: str = ""
    """The name under which the journal keeps the inverse for ``teardown``; for changes of the host's own settings."""


def script(steps: Iterable[Step]) -> str:
    """The plan as a shell script; it stops at the first command that fails."""
    lines = ["#!/bin/sh", "set -e"]
    for step in steps:
        lines += ["", f"# {step.what}: {step.why}", *map(_shell, step.do)]
    return "\n".join(lines) + "\n"


def _shell(command: Command) -> str:
    if not command.stdin:
        return str(command)
    end = "EOF"
    while end in command.stdin.splitlines():
        end += "_"
    # tee only writes the file; its output is of no use.
    quiet = " >/dev/null" if command.argv[0] == "tee" else ""
    return f"{command}{quiet} <<'{end}'\n{command.stdin}{end}"
