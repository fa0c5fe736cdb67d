"""``gfwtools warm``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.config.model import Config
    from gfwtools.update.warm import Progress, Warming

__all__ = ["warm", "warm_after"]

#: The exit codes that shells give to a program ended by a signal: 128 plus its number.
SIGNALS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


@click.command(short_help="Ask dnsmasq for the tunnelled domains, to fill the sets.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Ask for at most N names; the next run continues."
)
@click.option(
    "--qps",
    type=click.IntRange(1, 100_000),
    default=2500,
    show_default=True,
    metavar="N",
    help="Ask at most N questions per second.",
)
@click.option("--again", is_flag=True, help="Also ask for the names of the last hour.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per policy.")
@click.pass_obj
def warm(context: Context, limit: int | None, qps: int, again: bool, as_json: bool) -> None:
    """Ask the local dnsmasq for every tunnelled domain and its www. name. Their addresses are then in the sets before
    a client connects to an address that it has from elsewhere (DoH, an old cache).

    Skips the names that were asked for within the last hour, so the next run continues one that was interrupted
    (Ctrl-C). Exits with 1 if nothing was answered. With `warm = true` in [dns] (`gfwtools bootstrap --warm`), each
    `update --reload` that finds something new does the same.

    \b
    Examples:
      gfwtools warm
      gfwtools warm --limit 500      the first 500; the next run continues
      gfwtools warm --qps 100        slowly, beside other work
      gfwtools warm --again          after the sets were flushed
    """
    done = _warm_all(context, context.config, limit=limit, qps=qps, again=again, summary=not as_json)
    if as_json:
        import json

        click.echo(json.dumps([found.to_json() for found in done], indent=1))
    if not _was_answered(context, done):
        sys.exit(1)


def warm_after(context: Context, config: "Config", *, summary: bool = True) -> None:
    """What `update --reload` and `bootstrap` do with ``dns.warm``. A failure here is a warning and undoes nothing."""
    from gfwtools.errors import GfwtoolsError

    try:
        _was_answered(context, _warm_all(context, config, summary=summary))
    except GfwtoolsError as error:
        context.warn(f"the sets were not filled: {error}")


def _warm_all(
    context: Context,
    config: "Config",
    *,
    limit: int | None = None,
    qps: int | None = None,
    again: bool = False,
    summary: bool,
) -> "list[Warming]":
    """Warm every policy, one after the other, until one is ended early."""
    from gfwtools.plumbing import record
    from gfwtools.plumbing.this_boot import boot_id
    from gfwtools.system.commands import System
    from gfwtools.update.warm import QPS
    from gfwtools.update.warm import warm as warm_policy

    sets_made = record.load(config.paths, boot_id(config.paths, System())).sets_made
    done: list[Warming] = []
    for policy in config.policies:
        with _progress(context, policy.name) as progress:
            found = warm_policy(
                config, policy, limit=limit, qps=qps or QPS, again=again, sets_made=sets_made, progress=progress
            )
        done.append(found)
        if summary:
            for line in _summary(found):
                context.say(line)
        if found.stopped:
            break
    return done


def _was_answered(context: Context, done: "list[Warming]") -> bool:
    """Whether there was any answer. Exits if a signal ended the work."""
    for found in done:
        if found.unsaved:
            context.warn(f"{found.policy}: the next run does not continue where this one ended: {found.unsaved}")
    if done[-1].stopped in SIGNALS:
        sys.exit(SIGNALS[done[-1].stopped])
    if any(found.failed and not found.answered + found.empty for found in done):
        context.warn("nothing was answered; check the tunnel: gfwtools check host")
        return False
    return True


def _summary(found: "Warming") -> list[str]:
    if not found.total:
        return [f"{found.policy}: all {found.skipped:,} names were asked for within the last hour (--again asks again)"]
    counts = f"{found.answered:,} answered, {found.empty:,} without an address, {found.failed:,} failed"
    lines = [f"{found.policy}: {counts}, {found.seconds:.1f} s"]
    for reason, count in sorted(found.failures.items(), key=lambda item: -item[1])[:5]:
        lines.append(f"  {count:,} failed: {reason}")
    lines.append(f"  {found.addresses:,} addresses are known")
    if found.skipped:
        lines.append(f"  {found.skipped:,} names were asked for within the last hour and skipped")
    if found.stopped:
        lines.append(f"  stopped ({found.stopped}), {found.left:,} names are left; the next run continues")
    return lines


@contextmanager
def _progress(context: Context, name: str) -> Iterator["Progress"]:
    """Show a bar on standard error if that is a terminal."""
    from gfwtools.cli.terminal import progress

    with progress(lambda done, total: f"{done:,} of {total:,}", quiet=context.quiet) as advance:
        yield (lambda done, total: advance(name, done, total)) if advance else (lambda done, total: None)
