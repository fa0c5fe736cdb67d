"""``gfwtools export``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.lists.policy import Cover

__all__ = ["exceptions_left_out", "export"]

FORMATS = ("domains", "direct", "dnsmasq", "ipset", "nftables")


@click.command(short_help="Print the policy in another format.")
@click.argument("format", type=click.Choice(FORMATS))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, whole or not at all. --root does not apply to it.",
)
@click.option("--policy", "name", metavar="POLICY", help="The policy to print.  [default: the first one]")
@click.pass_obj
def export(context: Context, format: str, output: Path | None, name: str | None) -> None:
    """Print the policy, made from the last good list and the current allow and deny lists.

    \b
    Formats:
      domains    the tunnelled domains, one per line
      direct     what is direct again below one of them; *.x: only what is under x
      dnsmasq    server= and ipset= (or nftset=) lines, the paired layout
      ipset      the seed of the sets, for: ipset restore
      nftables   the seed of the sets, for: nft -f

    \b
    Examples:
      gfwtools export domains | wc -l
      gfwtools export direct -o ./direct.txt
      gfwtools export dnsmasq -o ./gfwlist.conf
    """
    from gfwtools.render import dnsmasq, generation, ipset, nftables, plain
    from gfwtools.render.backends import TEXTS
    from gfwtools.render.files import cover_of, unset_of, without_claimed
    from gfwtools.storage import atomic
    from gfwtools.update.inputs import backend_of_files, compile_policy, current_list, list_or_starter

    config = context.config
    policy = context.policy(name)
    decoded, warning = list_or_starter(config, policy)
    if warning:
        context.warn(warning)
    compiled = compile_policy(config, policy, decoded)
    cover = cover_of(config, compiled)
    for other in config.policies[: config.policies.index(policy)]:
        before = current_list(config, other)
        if before:  # what an earlier policy claims is not in the files of this one
            claimed = set(cover_of(config, compile_policy(config, other, before)).patterns)
            cover, _ = without_claimed(cover, claimed)
    date = decoded.last_modified
    if format == "domains":
        text = plain.domains(cover)
        if cover.freed:
            context.warn(exceptions_left_out(cover, "to get them: gfwtools export direct"))
    elif format == "direct":
        text = plain.direct(cover)
    elif format == "dnsmasq":
        sets = TEXTS[backend_of_files(config)].names(policy)
        text = generation.at_start(
            dnsmasq.paired(cover, policy, unset=unset_of(config, compiled), sets=sets, list_date=date), policy.name
        )
    elif format == "ipset":
        text = ipset.seed(policy, compiled.seeds, list_date=date)
    else:
        text = nftables.seed(policy, compiled.seeds, list_date=date)
    if output:
        atomic.write_output(output.absolute(), text.encode())
    else:
        click.echo(text, nl=False)


def exceptions_left_out(cover: "Cover", way: str) -> str:
    """A list of domains cannot say what is direct below one of them: how much that is, and the ``way`` to get it."""
    count = len(cover.freed)
    what = "one domain below these is" if count == 1 else f"{count:,} domains below these are"
    return f"{what} direct again, which a list of domains cannot say; {way}"
