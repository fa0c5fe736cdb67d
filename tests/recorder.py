"""A runner without a host, for unit tests."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gfwtools.system.commands import Command, CommandError


@dataclass
class Recorder:
    """Answers reading commands from ``answers``, records changing ones, and fails those of ``fails``."""

    answers: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    tools: frozenset[str] = frozenset()
    fails: Callable[[Command], bool] = lambda _: False
    changes: list[Command] = field(default_factory=list)

    def has(self, tool: str) -> bool:
        return tool in self.tools

    def read(self, *argv: str) -> str:
        if argv not in self.answers:
            raise CommandError(shlex.join(argv), "not known here")
        return self.answers[argv]

    def ask(self, *argv: str) -> str | None:
        return self.answers.get(argv)

    def change(self, command: Command) -> None:
        self.changes.append(command)
        if self.fails(command):
            raise CommandError(str(command), "told to fail")
