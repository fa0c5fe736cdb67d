"""``gfwtools update``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfwtools.cli import Context
from gfwtools.cli.plumbing import keep_resolv_conf, renew_resolvers
from gfwtools.cli.text import printable
from gfwtools.config.userinfo import masked

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress
    from gfwtools.update.values import PolicyUpdate, Update

__all__ = ["update"]

#: How many added and removed domains are named.
SHOWN = 10
#: How many changed lines of a file a dry run shows.
SHOWN_LINES = 40
#: How much of a rule's line is in the JSON (characters).
LONGEST_TEXT = 1000


@click.command(short_help="Fetch the list and write the files for dnsmasq and the sets.")
@click.option(
    "--source",
    "sources",
    metavar="URL|FILE",
    multiple=True,
    help="Fetch the list from here. Repeat it to give mirrors.",
)
@click.option("--offline", is_flag=True, help="Use no network: the last good list, or the built-in starter list.")
@click.option("--dry-run", is_flag=True, help="Show what would change, as a diff; write nothing.")
@click.option("--force", is_flag=True, help="Accept a list that is smaller, older or another.")
@click.option(
    "--reload", is_flag=True, help="Load the files into dnsmasq and the kernel; if that fails, restore everything."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every rule and what it became.")
@click.pass_obj
def update(
    context: Context,
    sources: tuple[str, ...],
    offline: bool,
    dry_run: bool,
    force: bool,
    reload: bool,
    as_json: bool,
) -> None:
    """Fetch the list, merge allow.txt and deny.txt, and write the files for dnsmasq and the kernel's sets.

    Mirrors are tried in order until one gives a complete and valid list. If none does, the last good list stays in use
    and the exit code is 1. A host that never had a list uses the built-in starter list. A run that finds nothing new
    writes no file.

    With --reload it first repairs what `gfwtools bootstrap` has set up: plumbing that is missing, a dnsmasq that is
    dead or has not read our files, a tunnel whose endpoint has a new address, an /etc/resolv.conf that was overwritten.
    It says so in one line. What it cannot repair is named, and the exit code is 1. Plumbing that `gfwtools down` has
    taken down stays down.

    \b
    Examples:
      gfwtools update
      gfwtools update --reload                   and load it into dnsmasq (cron)
      gfwtools update --dry-run                  what would change?
      gfwtools update --source ./gfwlist.txt     a list that you have
      gfwtools update --offline                  after a change of allow.txt
    """
    from gfwtools.update.prepare import prepare
    from gfwtools.update.update import update as run_update
    from gfwtools.update.values import NotRepairedError

    if offline and sources:
        raise click.UsageError("--offline uses no source; leave out one of --offline and --source")
    if dry_run and reload:
        raise click.UsageError("--dry-run changes nothing, so there is nothing to reload; leave out one of the two")
    if reload:
        from gfwtools.system.privileges import require_net_admin

        context.require_host("--reload")
        require_net_admin()
    resolved = tuple(_source(source) for source in sources)
    config = context.config
    if reload:
        # Before the mirrors are asked: their names have no address where dnsmasq asks resolvers of an old lease.
        renew_resolvers(context, restarts=True)
        keep_resolv_conf(context)
    notes: list[str] = []
    not_repaired = None
    with _progress(context) as progress:
        if dry_run:
            done = prepare(config, sources=resolved, offline=offline, force=force, progress=progress)
        else:
            run = partial(run_update, sources=resolved, offline=offline, force=force, progress=progress)
            try:
                done, notes = run(config, reload=reload, report=context.warn if reload else None)
            except NotRepairedError as error:
                done, notes, not_repaired = error.done, error.notes, error
    if reload:
        keep_resolv_conf(context)  # a dnsmasq that was dead before answers now
    _print(context, done, notes, dry_run=dry_run, as_json=as_json)
    if notes and config.dns.warm:
        from gfwtools.cli.warm import warm_after

        warm_after(context, config, summary=not as_json)
    if not_repaired:
        raise not_repaired


def _print(context: Context, done: "Update", notes: list[str], *, dry_run: bool, as_json: bool) -> None:
    for warning in done.all_warnings:
        context.warn(warning)
    if as_json:
        _print_json(done, dry_run=dry_run)
        return
    if dry_run:
        for line in _diff(done.files(context.config), limit=None if context.verbose else SHOWN_LINES):
            click.echo(line)
    for policy in done.policies:
        for line in _summary(policy, verbose=bool(context.verbose)):
            context.say(line)
    if dry_run:
        context.say("dry run: nothing was written")
        return
    for policy in done.policies:
        for path in policy.files:
            context.say(f"wrote {path}")
    for note in notes:
        context.say(note)


def _source(source: str) -> str:
    """A source given on the command line. A relative path starts at the current folder."""
    if not source:
        raise click.BadParameter("it is empty; use an http(s) URL, a file: URL or a path", param_hint="--source")
    if source.startswith(("http://", "https://", "file:")):
        return source
    if "://" in source:
        raise click.BadParameter(
            f"{masked(source)!r} is not a source; use an http(s) URL, a file: URL or a path", param_hint="--source"
        )
    return str(Path(source).absolute())


@contextmanager
def _progress(context: Context) -> Iterator["Progress | None"]:
    """Show a progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():  # cron needs nothing of what draws one
        yield None
        return
    from gfwtools.cli.terminal import progress

    with progress(_octets, quiet=context.quiet) as advance:
        if advance is None:
            yield None
            return
        ahead, most = "", 0

        def report(source: str, received: int, total: int | None) -> None:
            """Show the mirror that is ahead. After a complete one, another goes on only if the first gave no list."""
            nonlocal ahead, most
            if source == ahead or received > most:
                ahead, most = source, 0 if received == total else received
                advance(_short(source), received, total)

        yield report


def _octets(received: int, total: int | None) -> str:
    return f"{received / 1000:,.0f}{'' if total is None else f' of {total / 1000:,.0f}'} kB"


def _short(source: str) -> str:
    host = masked(source, "").split("://")[-1].split("/")[0]
    return printable(host[:30] or source[-30:])


def _summary(policy: "PolicyUpdate", *, verbose: bool) -> list[str]:
    """What the update did, in a few lines for people."""
    state = policy.state
    date = f", list of {policy.list_date}" if policy.list_date else ""
    name = policy.policy.name
    if policy.unchanged:
        return [f"{name}: nothing new; {_counted(state.domains, 'domain')}{date}"]
    counts = policy.counts
    lines = [
        f"{name}: {_counted(counts.read, 'rule')} from {policy.source}{date}",
        f"  applied {counts.applied:,}, widened {counts.widened:,}, redundant {counts.redundant:,}, "
        f"dropped {sum(counts.dropped.values()):,}",
    ]
    if counts.dropped:
        from gfwtools.lists.locator import Reason

        sentences = {reason.slug: reason.sentence for reason in Reason}
        width = len(f"{max(counts.dropped.values()):,}")
        lines += [f"    {count:>{width},}  {sentences[slug]}" for slug, count in counts.dropped.items()]
    lines.append(f"  {_counted(state.domains, 'domain')} through {policy.policy.interface}")
    for sign, names in (("+", policy.added), ("-", policy.removed)):
        if names:
            more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            lines.append(f"  {sign}{len(names):,}: {', '.join(names[:SHOWN])}{more}")
    if verbose:
        for rule, status, _, detail in policy.compiled.outcomes():
            if detail:
                lines.append(f"  line {rule.line}: {printable(rule.text)}: {status.value}: {printable(detail)}")
    return lines


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _diff(files: dict[Path, bytes], *, limit: int | None) -> Iterator[str]:
    """What would change, file by file. The files are sorted, so that a difference of sets is a diff; difflib takes
    quadratic time on a list of a million lines."""
    from gfwtools.storage.atomic import read_ours

    for path, data in files.items():
        if path.name == "state.json":
            continue
        before = (read_ours(path) or b"").decode("utf-8", "replace").split("\n")
        after = data.decode("utf-8", "replace").split("\n")
        gone, new = dict.fromkeys(before), dict.fromkeys(after)
        changes = [f"-{printable(line)}" for line in gone if line not in new]
        changes += [f"+{printable(line)}" for line in new if line not in gone]
        if changes:
            yield f"--- {path}"
            yield f"+++ {path}"
            yield from changes[:limit]
            if limit is not None and len(changes) > limit:
                yield f"    and {len(changes) - limit:,} more lines; gfwtools -v update --dry-run shows them all"


def _print_json(done: "Update", *, dry_run: bool) -> None:
    import json

    document = {
        "changed": any(not policy.unchanged for policy in done.policies),
        "dry_run": dry_run,
        "policies": [_policy_json(policy) for policy in done.policies],
    }
    click.echo(json.dumps(document, indent=1))


def _cut(text: str) -> str:
    """A line of hosts(5) or of dnsmasq is repeated for each of its names: 70 kB of them would make 633 MB."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _policy_json(policy: "PolicyUpdate") -> dict[str, Any]:
    counts = policy.counts
    return {
        "policy": policy.policy.name,
        "source": policy.source,
        "starter": policy.obtained.starter,
        "list_date": policy.list_date,
        "unchanged": policy.unchanged,
        "updated": policy.state.updated,
        "counts": counts._asdict(),
        "domains": policy.state.domains,
        "added": list(policy.added),
        "removed": list(policy.removed),
        "files": [str(path) for path in policy.files],
        "warnings": list(policy.warnings),
        "rules": [
            {
                "line": outcome.rule.line,
                "text": _cut(outcome.rule.text),
                "exception": outcome.rule.exception,
                "status": outcome.status.value,
                "reason": outcome.target.reason.slug if outcome.target.reason else None,
                "detail": outcome.detail,
                "domains": [f"*.{name}" if outcome.target.under else name for name in outcome.target.domains]
                or ([str(outcome.target.network)] if outcome.target.network else []),
            }
            for outcome in policy.compiled.outcomes()
        ],
    }
