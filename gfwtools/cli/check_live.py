"""``gfwtools check domain --live``."""

import json

import click

from gfwtools.cli import Context
from gfwtools.diagnose.blocked import NAME as BLOCKED
from gfwtools.diagnose.link import Chain, LinkState
from gfwtools.lists.answer import Answer

__all__ = ["live", "show"]

#: How much is shown of what was found (characters): several signs of a block are one link's.
SHOWN = 1000


def live(context: Context, found: Answer, *, connect: bool, client: str | None, as_json: bool) -> bool:
    """Check and print the chain of a name. Returns whether no link is broken.

    :param client: the interface to the LAN from which a packet is sent.
    """
    from gfwtools.diagnose.chain import probe
    from gfwtools.diagnose.lan import lan_of
    from gfwtools.system.commands import System

    runner = System()
    lan = lan_of(client, runner) if client else None
    if client and lan is None:
        raise click.UsageError(
            f"--from: {client} is not an interface that is up with an address and an Ethernet layer; "
            "give the LAN's (for a port of a bridge, the bridge)"
        )
    chain = probe(found, context.config, runner, connect=connect, lan=lan)
    if as_json:
        click.echo(json.dumps(chain.to_json()))
    else:
        for line in show(chain, everything=not context.quiet):
            click.echo(line)
    return chain.broken is None


def show(chain: Chain, *, everything: bool = True) -> list[str]:
    """The chain as lines for people. The last line names the first broken link and how to fix it."""
    from gfwtools.cli.text import printable

    lines = [f"{chain.name}: {chain.verdict}"]
    for link in chain.links if everything else ():
        if link.state is LinkState.SKIPPED:
            continue
        lines.append(f"  {link.state.value:<7}  {link.name:<14}  {printable(link.found, SHOWN)}")
        if link.state is not LinkState.OK:
            lines.append(f"{'':<27}expected: {printable(link.expected, 400)}")
    broken = chain.broken
    if broken and broken.name == BLOCKED:
        lines.append(f"looks blocked here; to send it through the tunnel: {broken.remedy}")
    elif broken:
        remedy = f"; fix: {printable(broken.remedy, SHOWN)}" if broken.remedy else ""
        lines.append(f"broken: {broken.name}: {printable(broken.found, 400)}{remedy}")
    elif chain.unknown:
        unknown = ", ".join(link.name for link in chain.unknown)
        lines.append(f"nothing is broken in what could be checked; not checked: {unknown}")
    else:
        lines.append("nothing is broken")
    return lines
