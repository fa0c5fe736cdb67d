"""``gfwtools export``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfwtools.cli import Context

if TYPE_CHECKING:
    from gfwtools.config.model import Config, PolicyConfig
    from gfwtools.lists.compiler import Compiled
    from gfwtools.lists.policy import Cover
    from gfwtools.render.exports import Export, Said

__all__ = ["exceptions_left_out", "export"]

#: The formats of this project itself and of the kernel; those of other programs are in gfwtools.render.exports.
OWN = {
    "domains": "the tunnelled domains, one per line",
    "direct": "what is direct again below them; *.x: only what is under x",
    "dnsmasq": "server= and ipset= (or nftset=) lines, the paired layout",
    "ipset": "the seed of the sets, for: ipset restore",
    "nftables": "the seed of the sets, for: nft -f",
}
#: What a format cannot say is named up to here, and counted.
SHOWN = 3


class _Format(click.ParamType[str]):
    """Any of the formats; those of other programs are imported only when one is asked for, or for a mistake."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in OWN:
            from gfwtools.render.exports import EXPORTS

            if value not in EXPORTS:
                self.fail(f"{value!r} is not a format; to see all of them: gfwtools export --list", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        from click.shell_completion import CompletionItem

        from gfwtools.render.exports import EXPORTS

        what = {**OWN, **{name: export.what for name, export in EXPORTS.items()}}
        return [CompletionItem(name, help=text) for name, text in what.items() if name.startswith(incomplete)]


def _list_formats(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from gfwtools.render.exports import EXPORTS

    rows = {**OWN, **{name: export.what for name, export in EXPORTS.items()}}
    width = max(map(len, rows))
    for name, what in rows.items():
        click.echo(f"{name:{width}}  {what}")
    ctx.exit()


@click.command(short_help="Print the policy in another format.")
@click.argument("format", type=_Format())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, whole or not at all. --root does not apply to it.",
)
@click.option("--policy", "name", metavar="POLICY", help="The policy to print.  [default: the first one]")
@click.option(
    "--proxy",
    default="SOCKS5 127.0.0.1:1080",
    show_default=True,
    metavar="TEXT",
    help="For pac: what its function returns for a tunnelled name.",
)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_formats, help="List the formats."
)
@click.pass_obj
def export(context: Context, format: str, output: Path | None, name: str | None, proxy: str) -> None:
    """Print the policy, made from the last good list and the current allow, deny and direct lists.

    What a format cannot say, such as an exception in a list of domains, is counted in a warning.

    \b
    Formats, of which there are more (--list):
      domains    the tunnelled domains, one per line
      direct     what is direct again below one of them; *.x: only what is under x
      dnsmasq    server= and ipset= (or nftset=) lines, the paired layout
      ipset      the seed of the sets, for: ipset restore
      nftables   the seed of the sets, for: nft -f
      singbox    mihomo, pac, unbound, smartdns, adguardhome, v2fly, ...

    \b
    Examples:
      gfwtools export domains | wc -l
      gfwtools export direct -o ./direct.txt
      gfwtools export singbox -o ./gfw.json
      gfwtools export pac --proxy "SOCKS5 192.168.1.1:1080" -o ./gfw.pac
    """
    config = context.config
    policy = context.policy(name)
    from gfwtools.update.inputs import compile_policy, list_or_starter

    decoded, warning = list_or_starter(config, policy)
    if warning:
        context.warn(warning)
    compiled = compile_policy(config, policy, decoded)
    cover = _cover(config, policy, compiled)
    if format in OWN:
        text = _own(format, config, policy, compiled, cover, decoded.last_modified)
        if format == "domains" and cover.freed:
            context.warn(exceptions_left_out(cover, "to get them: gfwtools export direct"))
    else:
        from gfwtools.render.exports import EXPORTS, Meaning

        said = EXPORTS[format].render(
            Meaning(
                cover,
                compiled.seeds,
                policy,
                f"{policy.set},{policy.set6}",
                config.dns.resolvers,
                decoded.last_modified,
                proxy,
            )
        )
        text = said.text
        if said.lost:
            context.warn(_lost(format, EXPORTS[format], said))
    if output:
        from gfwtools.storage import atomic

        atomic.write_output(output.absolute(), text.encode())
    else:
        click.echo(text, nl=False)


def _cover(config: "Config", policy: "PolicyConfig", compiled: "Compiled") -> "Cover":
    """The domains of the policy, without those that an earlier policy claims."""
    from gfwtools.render.files import cover_of, without_claimed
    from gfwtools.update.inputs import compile_policy, current_list

    cover = cover_of(config, compiled)
    for other in config.policies[: config.policies.index(policy)]:
        before = current_list(config, other)
        if before:
            claimed = set(cover_of(config, compile_policy(config, other, before)).patterns)
            cover, _ = without_claimed(cover, claimed)
    return cover


def _own(format: str, config: "Config", policy: "PolicyConfig", compiled: "Compiled", cover: "Cover", date: str) -> str:
    from gfwtools.render import dnsmasq, generation, ipset, nftables, plain
    from gfwtools.render.backends import TEXTS
    from gfwtools.render.files import unset_of
    from gfwtools.update.inputs import backend_of_files

    def of_dnsmasq() -> str:
        sets = TEXTS[backend_of_files(config)].names(policy)
        unset = unset_of(config, compiled)
        return generation.at_start(dnsmasq.paired(cover, policy, unset=unset, sets=sets, list_date=date), policy.name)

    texts: dict[str, Callable[[], str]] = {
        "domains": lambda: plain.domains(cover),
        "direct": lambda: plain.direct(cover),
        "dnsmasq": of_dnsmasq,
        "ipset": lambda: ipset.seed(policy, compiled.seeds, list_date=date),
        "nftables": lambda: nftables.seed(policy, compiled.seeds, list_date=date),
    }
    return texts[format]()


def exceptions_left_out(cover: "Cover", way: str) -> str:
    """A list of domains cannot say what is direct below one of them: how much that is, and the ``way`` to get it."""
    count = len(cover.freed)
    what = "one domain below these is" if count == 1 else f"{count:,} domains below these are"
    return f"{what} direct again, which a list of domains cannot say; {way}"


def _lost(format: str, export: "Export", said: "Said") -> str:
    """What a format of another program cannot say."""
    count = len(said.lost)
    named = ", ".join(said.lost[:SHOWN]) + (f" and {count - SHOWN:,} more" if count > SHOWN else "")
    what = "one entry is" if count == 1 else f"{count:,} entries are"
    way = f"; to get the exceptions: {export.way}" if export.way else ""
    return f"{what} left out, which {format} cannot say: {named}{way}"
