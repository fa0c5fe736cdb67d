"""``gfwtools up`` and ``gfwtools down``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.system.commands import System
    from gfwtools.system.step import Step

__all__ = ["down", "up"]


@click.command(short_help="Set up sets, marks, rules, routes and NAT (what the boot script runs).")
@click.option("--dry-run", is_flag=True, help="Print the commands as a script and run none.")
@click.pass_obj
def up(context: Context, dry_run: bool) -> None:
    """Bring the plumbing to what the configuration wants: sets, marks, rules, routes, NAT.

    Only what differs is changed; a second run changes nothing. A step that fails is taken back with all before it. The
    tunnel's endpoint is looked up anew.

    \b
    Examples:
      gfwtools up
      gfwtools up --dry-run      what would be run?
    """
    from gfwtools.dnsmasq.daemon import clear_caches
    from gfwtools.plumbing import updown
    from gfwtools.system.step import script

    config, runner = context.config, _system(context)
    seen = updown.look(config, runner)
    for note in seen.interfaces_down(config):
        context.warn(note)
    if dry_run:
        click.echo(script(seen.steps) if seen.steps else "# nothing to do", nl=not seen.steps)
        return
    _tell(context, updown.up(config, runner, clear_caches=clear_caches), "up")


@click.command(short_help="Take the plumbing down; what is not ours is left alone.")
@click.pass_obj
def down(context: Context) -> None:
    """Remove our sets, marks, rules, routes and NAT, and nothing else.

    The addresses that dnsmasq has learned are kept for the next `gfwtools up`. Blocked sites are then not reachable,
    everything else is.

    \b
    Examples:
      gfwtools down
    """
    from gfwtools.plumbing import updown

    _tell(context, updown.down(context.config, _system(context)), "down")


def _system(context: Context) -> "System":
    """The host; with -v each changing command is shown before it runs."""
    from gfwtools.system.commands import System

    return System(echo=(lambda command: click.echo(f"+ {command}", err=True)) if context.verbose else lambda _: None)


def _tell(context: Context, done: "Sequence[Step]", what: str) -> None:
    if not done:
        context.say(f"the plumbing is {what} already")
        return
    for step in done:
        context.say(f"{step.what}: {step.why}")
