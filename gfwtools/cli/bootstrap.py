"""``gfwtools bootstrap`` and ``gfwtools teardown``."""

import sys
from typing import TYPE_CHECKING, Literal

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.config.model import Config
    from gfwtools.system.init import Init

__all__ = ["bootstrap", "teardown"]


def _interface(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from gfwtools.config.checks import parse_interface

    try:
        return value if value is None else parse_interface(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(short_help="Set up this host: list, plumbing, dnsmasq, start at boot.")
@click.option("--interface", metavar="NAME", callback=_interface, help="The tunnel interface.  [default: wg0]")
@click.option("--gateway/--no-gateway", default=None, help="Also route the traffic of the LAN behind this host.")
@click.option(
    "--backend", type=click.Choice(["auto", "iptables", "nftables"]), help="The packet filter that marks the packets."
)
@click.option(
    "--layout",
    type=click.Choice(["paired", "split"]),
    help="How dnsmasq gets the list: one daemon (paired) or two (split).",
)
@click.option(
    "--init",
    type=click.Choice(["auto", "systemd", "openrc", "none"]),
    default="auto",
    show_default=True,
    help="The init system that starts gfwtools at boot.",
)
@click.option("--warm/--no-warm", default=None, help="Fill the sets, now and after each update (see: gfwtools warm).")
@click.option("--dry-run", is_flag=True, help="Print what would be written and run; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before changing the resolver set-up of this host.")
@click.pass_obj
def bootstrap(
    context: Context,
    interface: str | None,
    gateway: bool | None,
    backend: str | None,
    layout: str | None,
    init: "Init | Literal['auto']",
    warm: bool | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Set up this host. The tunnel interface must already exist. Blocked sites then go through the tunnel, everything
    else goes directly.

    Checks everything first and reports every problem together. Then sets up the configuration (yours is not
    overwritten), the list, sets, marks, rules, routes, NAT, dnsmasq, the host's resolver, the boot services and the
    update job, and runs `gfwtools check host`. If a step fails, all steps are undone. A second run changes only what
    differs. `gfwtools teardown` undoes it.

    \b
    Examples:
      gfwtools bootstrap --interface wg0 --dry-run
      gfwtools bootstrap --interface wg0
      gfwtools bootstrap --interface wg0 --gateway --layout split --yes
    """
    from gfwtools.setup.bootstrap import run
    from gfwtools.setup.plan import Choices, Refused, plan

    if not dry_run:
        context.require_host("bootstrap")
    choices = Choices(interface, gateway, backend, layout, warm)
    runner = context.runner()
    try:
        planned = plan(context.config_path, context.root, choices, init, runner)
    except Refused as refused:
        for problem in refused.problems:
            context.warn(problem)
        problems = len(refused.problems)
        context.warn(f"{problems} problem{'s' if problems > 1 else ''} to fix first; nothing was changed")
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
        _confirm(context, "Change the host's resolver set-up?")
    run(planned, runner, say=context.say, warn=context.warn)
    unknown = _require_whole(context, planned.config)
    if planned.config.dns.warm:
        from gfwtools.cli.warm import warm_after

        warm_after(context, planned.config)
    if unknown:
        context.say(f"the host is set up; not checked: {', '.join(unknown)}")
        return
    context.say("blocked sites go through the tunnel; try: gfwtools check domain google.com")


def _require_whole(context: Context, config: "Config") -> list[str]:
    """Check the host after bootstrap. A piece that is not OK is printed and ends the command.

    :returns: the names of the pieces that could not be checked.
    """
    from gfwtools.cli.text import printable
    from gfwtools.diagnose.host import check
    from gfwtools.plumbing.plan import Kind, State
    from gfwtools.system.commands import System

    try:
        # Without an echo, as `check host` itself: a probe's device is no step of bootstrap, and is gone after it.
        findings = check(config, System())
    except KeyboardInterrupt:
        context.warn("the host is set up; run: gfwtools check host")
        raise
    unknown = [finding for finding in findings if finding.state is State.UNKNOWN]
    bad = [finding for finding in findings if finding.state not in (State.OK, State.UNKNOWN)]
    for finding in [*bad, *unknown]:
        remedy = f"; fix: {finding.remedy}" if finding.remedy else ""
        context.warn(printable(f"{finding.state.value}: {finding.name}: {finding.detail}{remedy}", 2000))
    if bad:
        count = f"{len(bad)} piece{'s are' if len(bad) > 1 else ' is'} not OK"
        context.warn(f"the host is set up, but {count}; fix what is named above, or undo it all: gfwtools teardown")
        sys.exit(1)
    for finding in findings:
        if finding.kind is Kind.RESOLVERS and finding.state is State.OK:
            context.say(printable(f"what is not blocked is asked of {finding.detail}", 2000))
    return [finding.name for finding in unknown]


@click.command(short_help="Undo bootstrap.")
@click.option("--purge", is_flag=True, help="Also remove the configuration, the lists and the state.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def teardown(context: Context, purge: bool, yes: bool) -> None:
    """Undo bootstrap: plumbing, dnsmasq's files, the host's resolver set-up, boot and cron.

    A file that was changed after bootstrap stays, and is named. The old resolv.conf comes back; a copy of a changed one
    is kept. The configuration and the lists stay, unless --purge is given. If teardown fails, run it again.

    \b
    Examples:
      gfwtools teardown
      gfwtools teardown --purge --yes
    """
    from gfwtools.setup.teardown import undo
    from gfwtools.system.privileges import require_net_admin

    context.require_host("teardown")
    require_net_admin()
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this takes the plumbing down; give --yes, or run it at a terminal")
        _confirm(context, "Take the plumbing down" + (" and remove configuration and lists?" if purge else "?"))
    done: list[str] = []

    def say(text: str) -> None:
        done.append(text)
        context.say(text)

    notes = undo(context.config, context.runner(), purge=purge, say=say)
    for note in notes:
        context.warn(note)
    if not done and not notes:
        context.say("nothing to undo")
    elif not notes and not purge:
        context.say("the host is as before bootstrap; the configuration and the lists stay (--purge removes them)")


def _confirm(context: Context, question: str) -> None:
    """Ask at the terminal. A no ends the command."""
    if not click.confirm(question):
        context.warn("nothing was changed")
        sys.exit(130)
