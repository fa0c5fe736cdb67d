"""``gfwtools status``."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context
from gfwtools.cli.terminal import can_redraw, has_colours, screen

if TYPE_CHECKING:
    from gfwtools.cli.status_screen import Line
    from gfwtools.diagnose.status import Status

__all__ = ["status"]

#: Seconds between two refreshes.
INTERVAL = 2.0


@click.command(short_help="Show what is happening on this host, on one screen.")
@click.option("--watch", is_flag=True, help="Refresh every 2 s, until Ctrl-C.")
@click.option("--history", is_flag=True, help="Show the last 30 updates as a table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one per line.")
@click.pass_obj
def status(context: Context, watch: bool, history: bool, as_json: bool) -> None:
    """Show where the list is from and how old it is, what the sets hold, what was marked, the state of the tunnel, and
    which pieces are not OK.

    Changes nothing. Values that only root can read are marked. Always exits 0; scripts use `gfwtools check host`.

    \b
    Examples:
      gfwtools status
      gfwtools status --watch
      gfwtools status --history
      gfwtools status --json | jq '.policies[0].domains'
    """
    from gfwtools.cli.status_screen import WIDTH, history_lines, lines
    from gfwtools.cli.text import printable
    from gfwtools.diagnose.status import status as look
    from gfwtools.system.commands import System

    runner = System()

    def seen() -> "Status":
        return look(context.config, runner)

    def words(width: int) -> "list[Line]":
        found = seen()
        text = history_lines(found.policies) if history else lines(found, min(width, WIDTH))
        # A list's date and a mirror's message come from outside.
        return [replace(line, words=printable(line.words)) for line in text]

    if as_json:
        import json

        def say() -> None:
            click.echo(json.dumps(seen().to_json(), indent=None if watch else 1))

    elif watch and can_redraw(sys.stdout):
        _watch(words)
        return
    else:

        def say() -> None:
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
            click.echo(_shown(words(_width(columns))) + ("\n" if watch else ""))

    say()
    while watch:
        sys.stdout.flush()
        time.sleep(INTERVAL)
        say()


def _watch(words: "Callable[[int], list[Line]]") -> None:
    with screen():
        while True:
            columns, height = shutil.get_terminal_size()
            text = _shown(fit_height(words(_width(columns)), height))
            click.clear()
            click.echo(text, nl=False)
            time.sleep(INTERVAL)


def _width(columns: int) -> int:
    """The width of the terminal, and at least 40: labels and words stand side by side."""
    return max(columns, 40)


def fit_height(lines: "list[Line]", height: int) -> "list[Line]":
    """The lines that a screen has room for. The last one counts those that are left out."""
    from gfwtools.cli.status_screen import Line

    if len(lines) <= height:
        return lines
    shown = lines[: max(height, 1) - 1]
    return [*shown, Line("", f"and {len(lines) - len(shown)} more lines; see: gfwtools status")]


def _shown(lines: "list[Line]") -> str:
    return "\n".join(map(_coloured if has_colours(sys.stdout) else str, lines))


def _coloured(line: "Line") -> str:
    from gfwtools.cli.status_screen import Tone

    colour = {Tone.PLAIN: None, Tone.GOOD: "green", Tone.BAD: "red"}[line.tone]
    label = click.style(line.label, bold=True) if line.label.strip() else line.label
    return label + (click.style(line.words, fg=colour) if colour else line.words)
