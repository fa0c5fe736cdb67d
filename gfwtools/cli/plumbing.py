"""``gfwtools up`` and ``gfwtools down``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.system.step import Step

__all__ = ["down", "keep_resolv_conf", "renew_resolvers", "up"]


@click.command(short_help="Set up sets, marks, rules, routes and NAT (runs at boot).")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the commands as a script, removals from conntrack as comments; run none.",
)
@click.option("--unless-down", is_flag=True, help="Do nothing after `gfwtools down` (for units and hooks).")
@click.option("--tunnel-follows", is_flag=True, help="Do not warn where the tunnel is not up yet (for units).")
@click.pass_obj
def up(context: Context, dry_run: bool, unless_down: bool, tunnel_follows: bool) -> None:
    """Set up what the configuration asks for: sets, marks, rules, routes and NAT.

    Changes only what differs; a second run changes nothing. If a step fails, all steps are undone. The address of the
    tunnel's endpoint is read again, and the copy of the ISP's resolvers is renewed where dnsmasq reads a copy.

    \b
    Examples:
      gfwtools up
      gfwtools up --dry-run      what would be run?
    """
    from gfwtools.dnsmasq.dnsmasq import Dnsmasq
    from gfwtools.plumbing import connections, updown
    from gfwtools.system.privileges import require_net_admin
    from gfwtools.system.step import script

    if not dry_run:
        context.require_host("up")
    require_net_admin()
    config, runner = context.config, context.runner()
    seen = updown.look(config, runner)
    for note in () if tunnel_follows else seen.interfaces_down(config):
        context.warn(note)
    if dry_run:
        steps = [*seen.steps, *connections.foresee(config, seen)]
        click.echo(script(steps) if steps else "# nothing to do", nl=not steps)
        return
    resolver = Dnsmasq(config, runner)
    resolver.make_folders()
    renew_resolvers(context, restarts=False)
    if unless_down:
        kept = updown.keep_up(config, runner, clear_caches=resolver.clear_caches)
        if kept is None:
            context.say("the plumbing was taken down by `gfwtools down`, and stays down until `gfwtools up`")
        else:
            _report(context, kept[1], "up")
        return
    _report(context, updown.up(config, runner, clear_caches=resolver.clear_caches), "up")


def renew_resolvers(context: Context, *, restarts: bool) -> None:
    """Renew the ISP's resolvers (:func:`gfwtools.setup.renewal.renew`). What stops it stops nothing else."""
    from gfwtools.errors import GfwtoolsError
    from gfwtools.setup.renewal import renew

    try:
        for note in renew(context.config, context.runner(), restarts=restarts):
            context.say(note)
    except GfwtoolsError as error:
        context.warn(f"the ISP's resolvers were not looked up again: {error}")


def keep_resolv_conf(context: Context) -> None:
    """Put /etc/resolv.conf back (:func:`gfwtools.setup.resolv_conf.put_back_ours`). What stops it stops no other."""
    from gfwtools.errors import GfwtoolsError
    from gfwtools.setup.resolv_conf import put_back_ours

    try:
        line = put_back_ours(context.config, context.runner())
    except GfwtoolsError as error:
        line = f"/etc/resolv.conf was not put back: {error}"
    if line:
        context.warn(line)


@click.command(short_help="Remove the sets, marks, rules, routes and NAT of gfwtools.")
@click.option("--closed", is_flag=True, help="Refuse blocked sites meanwhile: no packet to them leaves this host.")
@click.option(
    "--unless-shutdown", is_flag=True, help="At shutdown only save the learned addresses, remove nothing (for units)."
)
@click.pass_obj
def down(context: Context, closed: bool, unless_shutdown: bool) -> None:
    """Remove the sets, marks, rules, routes and NAT of gfwtools, and nothing else.

    This opens the host: packets to blocked sites then leave by the WAN in clear, and the ISP sees and drops them. With
    --closed the sets and the rules that drop those packets stay.

    The addresses that dnsmasq has learned are kept for the next `gfwtools up`. Everything else still works. It stays
    down until `gfwtools up` or the next boot: `gfwtools update --reload`, which repairs the plumbing otherwise, leaves
    it down.

    \b
    Examples:
      gfwtools down
      gfwtools down --closed     stop the tunnel for an hour, and leak nothing
    """
    from gfwtools.dnsmasq.dnsmasq import Dnsmasq
    from gfwtools.plumbing import updown
    from gfwtools.system.init import is_stopping
    from gfwtools.system.privileges import require_net_admin

    context.require_host("down")
    require_net_admin()  # without it nothing of ours is seen, and "down already" would be wrong
    config, runner = context.config, context.runner()
    if unless_shutdown and is_stopping(config, runner):
        # The LAN is served to the end, and must not be served without the kill switch.
        updown.save_learned(config, runner)
    elif closed:
        done = updown.close(config, runner, clear_caches=Dnsmasq(config, runner).clear_caches)
        _report(context, done, "closed")
    else:
        _report(context, updown.down(config, runner, by_hand=True), "down")


def _report(context: Context, done: "Sequence[Step]", what: str) -> None:
    if not done:
        context.say(f"the plumbing is {what} already")
        return
    for step in done:
        context.say(f"{step.what}: {step.why}")
