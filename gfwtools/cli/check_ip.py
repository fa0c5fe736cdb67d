"""``gfwtools check ip``."""

import sys

import click

from gfwtools.cli import Context

__all__ = ["ip"]

#: More names than these are counted, not shown.
SHOWN = 5


@click.command(short_help="Show the sets, names, mark and route of an address.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per address, one per line.")
@click.pass_obj
def ip(context: Context, addresses: tuple[str, ...], as_json: bool) -> None:
    """Show what happens to ADDRESS on this host: its sets, the names that resolve to it, its mark and its route.

    The names come from the last `gfwtools warm`, and from dnsmasq's log if dnsmasq is configured with log-queries and
    log-facility. Exits with 1 if an address in a set does not take the tunnel.

    \b
    Examples:
      gfwtools check ip 198.51.100.7
      gfwtools check ip 198.51.100.7 2001:db8::7 --json
    """
    from gfwtools.diagnose.address import parse_address, report
    from gfwtools.dnsmasq.conf import is_wired, never_bootstrapped
    from gfwtools.system.commands import System

    parsed, wrong = [], False
    for text in addresses:
        try:
            parsed.append(parse_address(text))
        except ValueError as error:
            if len(addresses) == 1:
                raise click.UsageError(str(error)) from None
            # One of many: the others are answered all the same.
            context.warn(str(error))
            wrong = True
    try:
        reports = list(report(parsed, context.config, System()))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not is_wired(context.config) and not any(found.sets for found in reports):
        context.warn(f"this host was {never_bootstrapped(context.config.policies[0])}")
    for found in reports:
        if as_json:
            import json

            click.echo(json.dumps(found.to_json()))
            continue
        from gfwtools.cli.text import printable

        click.echo(f"{found.address}: {'tunnel' if found.policy else 'direct'}")
        direct = f"{', '.join(found.direct_sets)} (of an exception; not marked)" if found.direct_sets else ""
        click.echo(f"  set       {', '.join(filter(None, [*found.sets, direct])) or 'none'}")
        if found.names:
            more = f" and {len(found.names) - SHOWN:,} more" if len(found.names) > SHOWN else ""
            click.echo(f"  names     {printable(', '.join(found.names[:SHOWN]))}{more}")
        elif found.sources:
            click.echo(f"  names     none in {', '.join(found.sources)}")
        else:
            click.echo("  names     not known; run: gfwtools warm (or give dnsmasq log-queries and log-facility)")
        click.echo(f"  mark      {f'{found.mark:#x}' if found.mark else 'none'}")
        kept = "" if found.carried else "  (the tunnel carries no IPv6: nothing leaks)"
        click.echo(f"  route     {found.way}{kept}")
        if found.policy and not found.well:
            click.echo(f"  broken    the address should take {found.policy.interface}; see: gfwtools check host")
    if wrong or not all(found.well for found in reports):
        sys.exit(2 if wrong else 1)
