"""``gfwtools bootstrap`` and ``gfwtools teardown``."""

import sys
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.system.commands import System

__all__ = ["bootstrap", "teardown"]


def _interface(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from gfwtools.config.checks import parse_interface

    try:
        return value if value is None else parse_interface(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(short_help="Set a fresh host up: configuration, list, plumbing, dnsmasq, boot.")
@click.option("--interface", metavar="NAME", callback=_interface, help="The tunnel's interface.  [default: wg0]")
@click.option("--gateway/--no-gateway", default=None, help="Also route what is forwarded for a LAN.")
@click.option("--backend", type=click.Choice(["auto", "iptables", "nftables"]), help="What marks the packets.")
@click.option("--layout", type=click.Choice(["paired", "split"]), help="How dnsmasq is told.")
@click.option(
    "--init",
    type=click.Choice(["auto", "systemd", "openrc", "none"]),
    default="auto",
    show_default=True,
    help="What starts things at boot.",
)
@click.option("--warm/--no-warm", default=None, help="Fill the sets, now and after each update (gfwtools warm).")
@click.option("--dry-run", is_flag=True, help="Print what would be written and run, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before the host's own resolver set-up is changed.")
@click.pass_obj
def bootstrap(
    context: Context,
    interface: str | None,
    gateway: bool | None,
    backend: str | None,
    layout: str | None,
    init: str,
    warm: bool | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Set this host up, with the tunnel's interface being there: blocked sites through it, everything else directly.

    Looks first, and tells all that is in the way at once. Then: configuration (yours is not overwritten), list, sets,
    marks, rules, routes, NAT, dnsmasq and the host's resolver, boot, cron; and `gfwtools check host` at the end. When a
    step fails all of them are taken back. A second run changes only what differs. `gfwtools teardown` undoes it.

    \b
    Examples:
      gfwtools bootstrap --interface wg0 --dry-run
      gfwtools bootstrap --interface wg0
      gfwtools bootstrap --interface wg0 --gateway --layout split --yes
    """
    from gfwtools.diagnose.host import check
    from gfwtools.setup.bootstrap import run
    from gfwtools.setup.plan import Choices, Refused, plan

    choices = Choices(interface, gateway, backend, layout, warm)
    runner = _system(context)
    try:
        planned = plan(context.config_path, context.root, choices, init, runner)
    except Refused as refused:
        for problem in refused.problems:
            context.warn(problem)
        count = len(refused.problems)
        context.warn(f"{count} thing{'s' if count > 1 else ''} to mend first; nothing was changed")
        sys.exit(1)
    for note in planned.notes:
        context.warn(note)
    if dry_run:
        click.echo(planned.script(), nl=False)
        return
    if planned.asks and not yes:
        for line in planned.asks:
            click.echo(line)
        if not sys.stdin.isatty():
            raise click.UsageError("this changes the host's own resolver set-up; give --yes, or run it at a terminal")
        click.confirm("Change the host's resolver set-up?", abort=True)
    run(planned, runner, say=context.say, warn=context.warn)
    try:
        findings = check(planned.config, runner)
    except KeyboardInterrupt:
        context.warn("the host is set up; run: gfwtools check host")
        raise
    bad = [finding for finding in findings if finding.state.value != "OK"]
    for finding in bad:
        context.warn(f"{finding.state.value}: {finding.name}: {finding.detail}; mend it: {finding.remedy}")
    if bad:
        told = f"{len(bad)} piece{'s are' if len(bad) > 1 else ' is'} not OK"
        context.warn(f"the host is set up, but {told}; mend what is named above, or undo it all: gfwtools teardown")
        sys.exit(1)
    if planned.config.dns.warm:
        from gfwtools.cli.warm import warm_after

        warm_after(context, planned.config)
    context.say("blocked sites go through the tunnel; try: gfwtools check domain google.com")


@click.command(short_help="Undo bootstrap.")
@click.option("--purge", is_flag=True, help="Remove configuration, lists and state as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def teardown(context: Context, purge: bool, yes: bool) -> None:
    """Undo bootstrap: plumbing, dnsmasq's files, the host's resolver set-up, boot and cron.

    A file that somebody has changed since is left as it is, and named; of resolv.conf the old one comes back, and the
    changed one is kept. The configuration and the lists stay, unless --purge is given. Where it fails, run it again.

    \b
    Examples:
      gfwtools teardown
      gfwtools teardown --purge --yes
    """
    from gfwtools.setup.teardown import undo

    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this takes the plumbing down; give --yes, or run it at a terminal")
        click.confirm("Take the plumbing down" + (" and remove configuration and lists?" if purge else "?"), abort=True)
    for note in undo(context.config, _system(context), purge=purge, say=context.say):
        context.warn(note)


def _system(context: Context) -> "System":
    """The host; with -v each changing command is shown before it runs."""
    from gfwtools.system.commands import System

    return System(echo=(lambda command: click.echo(f"+ {command}", err=True)) if context.verbose else lambda _: None)
