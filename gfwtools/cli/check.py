"""``gfwtools check``: questions about names, addresses and this host."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context, LazyGroup

if TYPE_CHECKING:
    from gfwtools.config.model import PolicyConfig
    from gfwtools.lists.answer import Answer
    from gfwtools.lists.compiler import Compiled

__all__ = ["check", "domain"]

COMMANDS = {
    "domain": ("gfwtools.cli.check:domain", "Show whether a name takes the tunnel, and why."),
    "ip": ("gfwtools.cli.check_ip:ip", "Show the sets, names, mark and route of an address."),
    "host": ("gfwtools.cli.check_host:host", "Check that every piece of the plumbing is there and works."),
}

#: More rules than these are counted, not shown.
SHOWN = 3


@click.group(cls=LazyGroup, lazy=COMMANDS, short_help="Show what happens to a name or an address, or check this host.")
def check() -> None:
    """Answer a question about a name, an address or this host.

    \b
    Examples:
      gfwtools check domain example.com          tunnel or direct? By which rule?
      gfwtools check domain --live example.com   which link is broken?
      gfwtools check ip 198.51.100.7             which set, which way?
      gfwtools check host                        is every piece there?
    """


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--expect", type=click.Choice(["tunnel", "direct"]), help="Exit with 1 unless every verdict is this one.")
@click.option("--live", is_flag=True, help="Check each link of the chain on this host; exit with 1 if one is broken.")
@click.option("--connect", is_flag=True, help="With --live: also open a TCP connection to port 443.")
@click.option(
    "--from", "client", metavar="INTERFACE", help="With --live: also send a packet as a LAN client there does."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per name, one per line.")
@click.pass_obj
def domain(
    context: Context,
    names: tuple[str, ...],
    expect: str | None,
    live: bool,
    connect: bool,
    client: str | None,
    as_json: bool,
) -> None:
    """Show what happens to NAME: tunnel or direct, and the rule, the resolver and the set that decide it.

    NAME can be a URL, or a name in capitals, with a trailing dot or in Chinese. With - the names are read from
    standard input, one per line. Where one of several is not a name, the others are answered and the exit code is 2.

    \b
    Examples:
      gfwtools check domain example.com
      gfwtools check domain https://www.example.com/page --json
      gfwtools check domain --expect tunnel google.com && echo OK
      gfwtools check domain --live --connect google.com
      gfwtools check domain --live --from br-lan google.com
    """
    from gfwtools.errors import InvalidNameError
    from gfwtools.lists.answer import answer, name_in

    for option, given in (("--connect", connect), ("--from", client)):
        if given and not live:
            raise click.UsageError(f"{option} is for --live; give both")
    compiled = None
    failed = wrong = False
    for text in _names(names):
        try:
            name = name_in(text)
        except InvalidNameError as error:
            if len(names) == 1 and names != ("-",):
                raise click.UsageError(str(error)) from None
            # One of many: the others are answered all the same.
            context.warn(str(error))
            wrong = True
            continue
        if compiled is None:  # a mistyped name is reported before a list is read
            # Of one name alone the rules about it are enough.
            compiled = _compiled(context, name if len(names) == 1 and "-" not in names else None)
        found = answer(name, compiled)
        failed = failed or (expect is not None and found.match.verdict != expect)
        if live:
            from gfwtools.cli.check_live import live as walk

            failed = not walk(context, found, connect=connect, client=client, as_json=as_json) or failed
        elif as_json:
            _print_json(context, found)
        else:
            _print(context, found)
    if wrong or failed:
        sys.exit(2 if wrong else 1)


def _print_json(context: Context, found: "Answer") -> None:
    import json

    sets = _sets(context, found.policy)
    # ipset's pair has always been named here by its first one.
    click.echo(json.dumps(found.to_json(sets[:1] if found.policy.set in sets else sets)))


def _print(context: Context, found: "Answer") -> None:
    from gfwtools.cli.text import printable

    click.echo(f"{found.name}: {found.match.verdict}")
    if found.match.reason == "none":
        click.echo("  reason    no list names it")
        return
    click.echo(f"  reason    {_REASONS[found.match.reason]}")
    click.echo(f"  matched   {found.match.matched}")
    for rule in found.rules[:SHOWN]:
        click.echo(f"  rule      {printable(rule.text)}  ({printable(rule.source, 400)} line {rule.line})")
    if len(found.rules) > SHOWN:
        click.echo(f"            and {len(found.rules) - SHOWN:,} more")
    if found.server:
        click.echo(f"  resolver  {found.server}")
        click.echo(f"  set       {', '.join(_sets(context, found.policy))}")
        click.echo(f"  policy    {found.policy.name}, by {found.policy.interface}")


_REASONS = {
    "list": "the list blocks it",
    "deny": "your deny list",
    "allow": "your allow list",
    "exception": "an exception of the list",
    "direct": "a direct list; the list blocks no more than a part of its domain",
}


def _names(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name == "-":
            lines = (line.decode("utf-8", "replace").strip() for line in sys.stdin.buffer)
            yield from (line for line in lines if line)
        else:
            yield name


def _sets(context: Context, policy: "PolicyConfig") -> tuple[str, ...]:
    """The sets of a policy whose packets are marked."""
    from gfwtools.render.backends import TEXTS
    from gfwtools.update.inputs import backend_of_files

    return TEXTS[backend_of_files(context.config)].names(policy).marked


def _compiled(context: Context, about: str | None) -> "list[tuple[PolicyConfig, Compiled]]":
    """Every policy, compiled from what is on disk now; only as far as it is ``about`` a name, where there is one."""
    from gfwtools.update.inputs import compile_policy, is_stale, list_or_starter

    config = context.config
    lists = []
    fresh = False
    for policy in config.policies:
        decoded, warning = list_or_starter(config, policy)
        if warning:
            context.warn(warning)
            fresh = True
        lists.append((policy, decoded))
    if not fresh and is_stale(config, lists):
        context.warn("the lists or the configuration have changed since the last update; run: gfwtools update")
    return [(policy, compile_policy(config, policy, decoded, about=about)) for policy, decoded in lists]
