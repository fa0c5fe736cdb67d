"""``gfwtools check host``."""

import sys

import click

from gfwtools.cli import Context

__all__ = ["host"]

#: How much of a detail and of a remedy is shown (characters).
LONGEST = 1000


@click.command(short_help="Check that every piece of the plumbing is there and works.")
@click.option("--json", "as_json", is_flag=True, help="Print the pieces as JSON.")
@click.pass_obj
def host(context: Context, as_json: bool) -> None:
    """Check every piece of the plumbing. Each is OK, MISSING or MISMATCH, and is shown with the command that fixes it.

    A piece that cannot be judged is UNKNOWN. Exits with 1 if a piece is MISSING or MISMATCH. Changes nothing.

    \b
    Examples:
      gfwtools check host
      gfwtools -q check host || gfwtools up
      gfwtools check host --json | jq '.[] | select(.state != "OK")'
    """
    from gfwtools.cli.text import printable
    from gfwtools.diagnose.host import check
    from gfwtools.dnsmasq.conf import is_wired, never_bootstrapped
    from gfwtools.plumbing.plan import State
    from gfwtools.system.commands import System

    findings = check(context.config, System())
    bad = [finding for finding in findings if finding.state not in (State.OK, State.UNKNOWN)]
    unknown = [finding for finding in findings if finding.state is State.UNKNOWN]
    if bad and not is_wired(context.config):
        context.warn(f"this host was {never_bootstrapped(context.config.policies[0])}")
    if as_json:
        import json

        click.echo(json.dumps([finding.to_json() for finding in findings], indent=1))
    else:
        for finding in findings if not context.quiet else [*bad, *unknown]:
            # It may quote rules and names of files that others made.
            detail = f": {printable(finding.detail, LONGEST)}" if finding.detail else ""
            click.echo(f"{finding.state.value:<8}  {printable(finding.name)}{detail}")
            if finding.remedy:
                click.echo(f"          fix: {printable(finding.remedy, LONGEST)}")
        wrong = f"{len(bad)} not OK" if bad else "nothing wrong in what could be checked"
        more = f"; {len(unknown)} not checked" if unknown else ""
        context.say(
            f"{len(findings)} pieces, {wrong}{more}" if bad or unknown else f"all {len(findings)} pieces are OK"
        )
    sys.exit(1 if bad else 0)
