"""Runs every command of gfwtools: reading commands, which change nothing, and changing ones."""

import errno
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gfwtools.errors import HostError
from gfwtools.system import programs

__all__ = ["AskedOnce", "Command", "CommandError", "Runner", "System"]

#: Seconds that a command may take. A changing one may wait for the lock of iptables, or load a big set.
READ_TIMEOUT = 10.0
CHANGE_TIMEOUT = 60.0
BUSY_TIMEOUT = 2.0


class CommandError(HostError):
    """A command failed; the message is the command and its own error message, in one line."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"{command}: {said}")
        self.said = said
        """The command's own error message."""


@dataclass(frozen=True, slots=True)
class Command:
    """One changing command: its words, and its standard input where it reads one."""

    argv: tuple[str, ...]
    stdin: str = ""
    busy: str = ""
    """Part of the message that means "not yet": the command is then tried again for two seconds."""

    def __str__(self) -> str:
        return shlex.join(self.argv)


class Runner(Protocol):
    """Runs commands, each a list of words and never a line for a shell."""

    def has(self, tool: str) -> bool:
        """Whether there is such a program."""

    def read(self, *argv: str) -> str:
        """The standard output of a command that changes nothing.

        :raises CommandError: it failed or took longer than 10 s.
        """

    def ask(self, *argv: str) -> str | None:
        """The same as :meth:`read`, but None where the command fails."""

    def change(self, command: Command) -> None:
        """Run a command that changes the host.

        :raises CommandError: it failed or took longer than 60 s.
        """


class System:
    """The host itself; ``echo`` is called with each changing command before it runs, as wg-quick shows them."""

    def __init__(self, echo: Callable[[Command], None] = lambda _: None) -> None:
        self._echo = echo
        self._environment = programs.environment()

    def has(self, tool: str) -> bool:
        return programs.find(tool) is not None

    def read(self, *argv: str) -> str:
        return self._run(Command(argv), READ_TIMEOUT)

    def ask(self, *argv: str) -> str | None:
        try:
            return self.read(*argv)
        except CommandError:
            return None

    def change(self, command: Command) -> None:
        self._echo(command)
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._run(command, CHANGE_TIMEOUT)
                return
            except CommandError as error:
                if not command.busy or command.busy not in error.said or time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)

    def _run(self, command: Command, timeout: float) -> str:
        program = programs.find(command.argv[0])
        if program is None:
            raise CommandError(str(command), os.strerror(errno.ENOENT))
        try:
            # A process group of its own: a Ctrl-C at the terminal is for us alone, who may be taking things back.
            done = subprocess.run(
                command.argv,
                executable=program,
                input=command.stdin,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=self._environment,
                timeout=timeout,
                check=False,
                process_group=0,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(str(command), f"not done after {timeout:g} s") from None
        except OSError as error:
            raise CommandError(str(command), error.strerror or str(error)) from None
        if done.returncode:
            raise CommandError(str(command), _message(done.stderr) or f"exit code {done.returncode}")
        return done.stdout


class AskedOnce:
    """A runner that asks the host each question once, until it changes something.

    For what only looks. A value that changes by itself, such as a counter, needs the other runner.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._answers: dict[tuple[str, ...], str | None] = {}

    def has(self, tool: str) -> bool:
        return self._runner.has(tool)

    def read(self, *argv: str) -> str:
        answer = self._answers.get(argv)
        if answer is None:  # an error is raised with its message
            answer = self._answers[argv] = self._runner.read(*argv)
        return answer

    def ask(self, *argv: str) -> str | None:
        if argv not in self._answers:
            self._answers[argv] = self._runner.ask(*argv)
        return self._answers[argv]

    def change(self, command: Command) -> None:
        self._answers.clear()
        self._runner.change(command)


def _message(stderr: str) -> str:
    """A command's own message in one line, without the carets that nft draws below its input."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip(" \t^~")]
    return "; ".join(lines[:2])[:300]
