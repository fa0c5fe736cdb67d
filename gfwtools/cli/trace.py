"""``gfwtools trace``."""

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.config.model import Address
    from gfwtools.diagnose.trace import Packet

__all__ = ["trace"]

#: How much of a hook's line is shown (characters): it quotes a rule with the comment that others gave it.
LONGEST = 1000


@click.command(short_help="Follow packets to and from an address through netfilter.")
@click.argument("target", metavar="NAME|ADDRESS")
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 3600),
    default=10.0,
    show_default=True,
    metavar="N",
    help="Follow the packets for N seconds.",
)
@click.option(
    "--connect", is_flag=True, help="Open a connection to port 443 from this host, so that there are packets."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_obj
def trace(context: Context, target: str, seconds: float, connect: bool, as_json: bool) -> None:
    """Follow the packets to and from NAME or ADDRESS for some seconds, and explain each hook. Open the site meanwhile,
    or give --connect.

    Shows the first packet of each connection, per direction. The trace rules are in their own table and are always
    removed at the end. Exits with 1 if no packet came.

    \b
    Examples:
      gfwtools trace blocked.example --connect
      gfwtools trace 198.51.100.7 --seconds 60
      gfwtools trace 198.51.100.7 --json | jq '.packets[].words'
    """
    from gfwtools.cli.text import printable
    from gfwtools.diagnose.trace import legacy_note
    from gfwtools.diagnose.trace import trace as follow
    from gfwtools.storage.lock import lock
    from gfwtools.system.commands import System
    from gfwtools.system.privileges import require_net_admin

    context.require_host("trace")
    require_net_admin()
    addresses = _addresses(context, target)
    runner = System()
    note = legacy_note(runner)
    shown = ", ".join(map(str, addresses))

    def ready() -> None:
        if not as_json:
            context.say(f"tracing {shown} for {seconds:g} s" + ("" if connect else "; open the site now"))
            sys.stdout.flush()
        if connect:
            _connect(addresses)

    found: list[Packet] = []
    if note:
        context.warn(note)
    following = follow(addresses, runner, seconds=seconds, ready=ready)
    with lock(context.config.paths.state_dir / "trace.lock", wait=0), closing(following):
        for packet in following:
            found.append(packet)
            if not as_json:
                click.echo(packet.title)
                for line in packet.words():
                    click.echo(f"  {printable(line, LONGEST)}")
                sys.stdout.flush()
    if as_json:
        import json

        document = {
            "target": target,
            "addresses": list(map(str, addresses)),
            "seconds": seconds,
            "note": note or None,
            "packets": [packet.to_json() for packet in found],
        }
        click.echo(json.dumps(document, indent=1))
    else:
        for line in _summary(found, f"{shown} within {seconds:g} s"):
            context.say(line)
    sys.exit(0 if found else 1)


def _summary(found: "list[Packet]", searched: str) -> list[str]:
    """What came of it, in words."""
    if not found:
        return [f"no packet to or from {searched}; open the site meanwhile, through this host, or give --connect"]
    more = sum(packet.repeated for packet in found)
    shows = f"{len(found)} packet{'' if len(found) == 1 else 's'} shown"
    lines = [f"{shows}; {more:,} more belong{'s' if more == 1 else ''} to the same connections"]
    return lines if any(packet.reply for packet in found) else [*lines, "no reply came back"]


def _addresses(context: Context, target: str) -> "list[Address]":
    """The target if it is an address, otherwise what the local dnsmasq answers for the name."""
    from gfwtools.diagnose.address import parse_address
    from gfwtools.dnsmasq import client
    from gfwtools.dnsmasq.conf import is_wired, never_bootstrapped
    from gfwtools.dnsmasq.dnsmasq import Dnsmasq
    from gfwtools.errors import HostError, InvalidNameError
    from gfwtools.lists.hostname import to_ascii
    from gfwtools.system.commands import System

    try:
        return [parse_address(target)]
    except ValueError:
        pass
    try:
        name = to_ascii(target)
    except InvalidNameError as error:
        raise click.UsageError(f"{target[:60]!r} is neither an address nor a name: {error}") from None
    daemon = Dnsmasq(context.config, System()).main
    kinds: tuple[str, ...] = ("A", "AAAA")
    replies = [daemon.ask(name, kind) for kind in kinds]
    addresses = list(dict.fromkeys(address for reply in replies for address in reply.addresses))
    if not addresses:
        remedy = "give an address, or a name that has one"
        if not is_wired(context.config):
            remedy = f"this host was {never_bootstrapped(context.config.policies[0])}"
        raise HostError(f"{name}: {client.words(replies)} (asked {daemon})", remedy)
    return addresses[:8]


def _connect(addresses: "list[Address]") -> None:
    """Connect to port 443 of each address and ignore the result."""
    import socket
    from contextlib import suppress
    from threading import Thread

    def one(address: str) -> None:
        with suppress(OSError):
            socket.create_connection((address, 443), timeout=3).close()

    for address in addresses:
        Thread(target=one, args=(str(address),), daemon=True).start()
