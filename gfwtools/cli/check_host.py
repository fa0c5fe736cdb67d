"""``gfwtools check host``."""

import sys

import click

from gfwtools.cli import Context

__all__ = ["host"]


@click.command(short_help="Is every piece of the plumbing there, and does it work?")
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
@click.pass_obj
def host(context: Context, as_json: bool) -> None:
    """Look at every piece of the plumbing: OK, MISSING or MISMATCH, with the command that mends it.

    Exits with 1 where one is not OK. Nothing is changed.

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

        document = [
            {"name": f.name, "state": f.state.value, "detail": f.detail, "remedy": f.remedy or None} for f in findings
        ]
        click.echo(json.dumps(document, indent=1))
    else:
        for finding in findings if not context.quiet else bad:
            click.echo(f"{finding.state.value:<8}  {finding.name}" + (f": {finding.detail}" if finding.detail else ""))
            if finding.remedy:
                click.echo(f"          mend it: {finding.remedy}")
        context.say(f"{len(findings)} pieces, {len(bad)} not OK" if bad else f"all {len(findings)} pieces are OK")
    sys.exit(1 if bad else 0)
