"""``gfwtools check host``."""

import sys

import click

from gfwtools.cli import Context

__all__ = ["host"]


@click.command(short_help="Check that every piece of the plumbing is there and works.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def host(context: Context, as_json: bool) -> None:
    """Check every piece of the plumbing. Each is OK, MISSING or MISMATCH, and is shown with the command that fixes it.

    Exits with 1 if a piece is not OK. Changes nothing.

    \b
    Examples:
      gfwtools check host
      gfwtools -q check host || gfwtools up
      gfwtools check host --json | jq '.[] | select(.state != "OK")'
    """
    from gfwtools.diagnose.host import check
    from gfwtools.plumbing.plan import State
    from gfwtools.system.commands import System

    findings = check(context.config, System())
    bad = [finding for finding in findings if finding.state is not State.OK]
    if as_json:
        import json

        click.echo(json.dumps([finding.to_json() for finding in findings], indent=1))
    else:
        for finding in findings if not context.quiet else bad:
            click.echo(f"{finding.state.value:<8}  {finding.name}" + (f": {finding.detail}" if finding.detail else ""))
            if finding.remedy:
                click.echo(f"          fix: {finding.remedy}")
        context.say(f"{len(findings)} pieces, {len(bad)} not OK" if bad else f"all {len(findings)} pieces are OK")
    sys.exit(1 if bad else 0)
