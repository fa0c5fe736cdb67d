"""``gfwtools deny`` and ``gfwtools allow``: edit the user's own lists."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfwtools.cli import Context
from gfwtools.cli.text import printable

if TYPE_CHECKING:
    from gfwtools.lists.entries import Entry
    from gfwtools.update.edit import Edited, Effect, Side

__all__ = ["allow", "deny"]

_BY = {
    "list": "the list blocks {}",
    "deny": "your deny list has {}",
    "allow": "your allow list has {}",
    "exception": "an exception of the list frees {}",
    "direct": "a direct list has {}",
    "none": "no list names it",
    "": "your list or the fetched one has {}",
}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that both commands have."""
    for add in reversed(
        (
            click.argument("names", metavar="NAME...", nargs=-1, required=True),
            click.option("--remove", is_flag=True, help="Take the names off the list."),
            click.option(
                "--policy", "policy", metavar="POLICY", help="The policy whose list it is.  [default: the first one]"
            ),
            click.option("--dry-run", is_flag=True, help="Show what would change; write nothing."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
            click.pass_obj,
        )
    ):
        command = add(command)
    return command


@click.command(short_help="Send names through the tunnel: edit your deny list and reload.")
@_options
def deny(
    context: Context, names: tuple[str, ...], remove: bool, policy: str | None, dry_run: bool, as_json: bool
) -> None:
    """Send each NAME, and every name under it, through the tunnel: put it on your deny list, merge the lists
    offline and reload dnsmasq. With --remove the names are taken off that list.

    NAME can be a domain in any spelling, a URL, an address or a network. A name on your allow list is moved. Your lists
    keep their comments, order and mode. If the reload fails, the list is put back.

    \b
    Examples:
      gfwtools deny example.com
      gfwtools deny https://www.example.org/page 203.0.113.7
      gfwtools deny --remove example.com
      gfwtools deny --dry-run example.com    what would change?
    """
    _edit(context, "deny", names, remove=remove, policy=policy, dry_run=dry_run, as_json=as_json)


@click.command(short_help="Let names go directly: edit your allow list and reload.")
@_options
def allow(
    context: Context, names: tuple[str, ...], remove: bool, policy: str | None, dry_run: bool, as_json: bool
) -> None:
    """Let each NAME, and every name under it, go directly: put it on your allow list, merge the lists offline and
    reload dnsmasq. With --remove the names are taken off that list.

    Between your two lists the longer domain decides; a name on your deny list is moved. See: gfwtools deny --help

    Addresses of the name leave the set, unless a listed name has them as well, and connections to them begin anew.

    \b
    Examples:
      gfwtools allow www.example.com
      gfwtools allow --remove www.example.com
      gfwtools allow --json www.example.com
    """
    _edit(context, "allow", names, remove=remove, policy=policy, dry_run=dry_run, as_json=as_json)


def _edit(
    context: Context,
    side: "Side",
    names: tuple[str, ...],
    *,
    remove: bool,
    policy: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from gfwtools.dnsmasq.conf import never_bootstrapped
    from gfwtools.update.edit import edit_lists, preview, reloads

    entries = _entries(names)
    config = context.config
    chosen = context.policy(policy)
    notes: list[str] = []
    warnings: list[str] = []
    if dry_run:
        edited = preview(config, chosen, side, entries, remove=remove)
        if not as_json:
            context.say("dry run, nothing was written; a real run gives:")
    else:
        edited, notes, warnings = edit_lists(config, chosen, side, entries, remove=remove)
        if edited.files and context.root != Path("/"):
            notes.append(f"dnsmasq was not reloaded: only files below {context.root} are changed")
        elif edited.files and not reloads(config):
            notes.append(f"dnsmasq was not reloaded: this host was {never_bootstrapped(chosen)}")
    for warning in [*(text for outcome in edited.outcomes.values() for text in outcome.warnings), *warnings]:
        context.warn(warning)
    if as_json:
        import json

        document = {"command": side, "remove": remove, "policy": chosen.name, "dry_run": dry_run}
        click.echo(json.dumps({**document, **_to_json(edited), "notes": notes}, indent=1))
        return
    for outcome in edited.outcomes.values():
        for text in outcome.done:
            context.say(text)
    for note in notes:
        context.say(note)
    several = len(config.policies) > 1
    for entry in edited.outcomes:
        click.echo(_change(entry, edited, several=several))


def _entries(names: tuple[str, ...]) -> "list[Entry]":
    """What the user names. One that is nothing is a usage error, and nothing is changed for the others either."""
    from gfwtools.errors import InvalidNameError
    from gfwtools.lists.entries import parse_entry

    entries, wrong = [], []
    for name in names:
        try:
            entries.append(parse_entry(name))
        except InvalidNameError as error:
            wrong.append(printable(str(error), 300))
    if wrong:
        raise click.UsageError(f"{'; '.join(wrong)}; nothing was changed")
    return entries


def _change(entry: "Entry", edited: "Edited", *, several: bool) -> str:
    """The verdict before and after, in one line."""
    before, after = edited.before[entry], edited.after[entry]
    if before == after:
        return f"{entry.text}: {_effect(after, several=several)}, as before"
    return f"{entry.text}: {_effect(before, several=several)} -> {_effect(after, several=several)}"


def _effect(effect: "Effect", *, several: bool) -> str:
    by = _BY[effect.reason].format(effect.matched) if effect.reason or effect.matched else "in no list"
    policy = f", policy {effect.policy}" if several and effect.verdict == "tunnel" else ""
    return f"{effect.verdict} ({by}{policy})"


def _to_json(edited: "Edited") -> dict[str, Any]:
    return {
        "files": [str(path) for path in edited.files],
        "names": [
            {
                "name": entry.text,
                "changed": outcome.changed,
                "done": list(outcome.done),
                "warnings": list(outcome.warnings),
                "before": edited.before[entry].to_json(),
                "after": edited.after[entry].to_json(),
            }
            for entry, outcome in edited.outcomes.items()
        ],
    }
