"""``gfwlist2dnsmasq``: the flags and the output of the shell script of that name, for the cron lines that call it.

The faults of the script are fixed: exceptions are honoured, an empty exclude file excludes nothing, an excluded domain
excludes no other one that ends in the same letters, and nothing is written that dnsmasq refuses.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gfwtools.cli import run

if TYPE_CHECKING:
    from gfwtools.config.model import Upstream
    from gfwtools.lists.compiler import Compiled
    from gfwtools.lists.decode import Decoded

__all__ = ["main"]

_SETS = re.compile(r"\w[\w-]{0,30}(,\w[\w-]{0,30})*", re.ASCII)


class _Failure(click.ClickException):
    """A flag has a value that cannot be used. The exit code is 1, as with the script; it is 2 for an unknown flag."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        click.echo(f"gfwlist2dnsmasq: {self.message}", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-d", "--dns", default="127.0.0.1", show_default=True, help="The resolver for the blocked domains.")
@click.option("-p", "--port", default="5353", show_default=True, help="The port of the resolver.")
@click.option(
    "-s", "--ipset", "sets", default="", help="The sets for their addresses: a,b. Without it there are no ipset= lines."
)
@click.option("-o", "--output", default="", help="The file to write.")
@click.option("-i", "--insecure", is_flag=True, help="Dangerous: accept any certificate of a mirror.")
@click.option("-l", "--domain-list", is_flag=True, help="Write a plain list of domains; -d, -p and -s are ignored.")
@click.option("--exclude-domain-file", default="", metavar="FILE", help="Domains that stay direct, one per line.")
@click.option("--extra-domain-file", default="", metavar="FILE", help="Domains to add, one per line.")
def command(
    dns: str,
    port: str,
    sets: str,
    output: str,
    insecure: bool,
    domain_list: bool,
    exclude_domain_file: str,
    extra_domain_file: str,
) -> None:
    """Convert gfwlist into dnsmasq rules, with the flags of the shell script gfwlist2dnsmasq.

    The mirrors of the list come from /etc/gfwtools/config.toml if it exists (GFWTOOLS_CONFIG names another file).

    \b
    Examples:
      gfwlist2dnsmasq -d 8.8.8.8 -p 53 -s gfwlist -o /etc/dnsmasq.d/gfwlist.conf
      gfwlist2dnsmasq -l -o ./gfwlist.txt
    """
    if not output:
        raise _Failure("no output file; give one with -o")
    from gfwtools.storage import atomic

    target = Path(output)
    atomic.require_output(target)
    upstream = _upstream(dns, port)
    if sets and not _SETS.fullmatch(sets):
        raise _Failure(
            f"{sets!r} is not a list of set names; use letters, digits, _ and -, and commas between the names"
        )
    allow, deny = _file(exclude_domain_file), _file(extra_domain_file)
    text = _convert(upstream, sets, allow, deny, insecure=insecure, domain_list=domain_list)

    atomic.write_output(target.absolute(), text.encode())
    click.echo(f"Converting GfwList to {target}... Done")


def _upstream(dns: str, port: str) -> "Upstream":
    from gfwtools.config.checks import parse_upstream

    try:
        return parse_upstream(f"{dns}#{port}")
    except ValueError as error:
        raise _Failure(str(error)) from None


def _file(name: str) -> list[str]:
    if not name:
        return []
    try:
        return [str(Path(name).resolve(strict=True))] if not Path(name).is_dir() else _refuse(name, "a folder")
    except RuntimeError:  # what Python 3.11 makes of ELOOP
        return _refuse(name, "a symbolic link to itself")
    except OSError:
        return _refuse(name, "not there")


def _refuse(name: str, what: str) -> list[str]:
    raise _Failure(f"{name} is {what}; give a file with one domain per line")


def _convert(
    upstream: "Upstream", sets: str, allow: list[str], deny: list[str], *, insecure: bool, domain_list: bool
) -> str:
    """The text of the output file.

    :raises GfwtoolsError: no mirror gave a list.
    """
    from gfwtools.config.load import load
    from gfwtools.config.model import Paths
    from gfwtools.fetch.race import fetch
    from gfwtools.lists.compiler import compile_lists
    from gfwtools.lists.decode import decode
    from gfwtools.lists.formats import Listing
    from gfwtools.render import dnsmasq, plain
    from gfwtools.render.header import header
    from gfwtools.update.inputs import read_listings
    from gfwtools.update.obtain import require_list

    named = os.environ.get("GFWTOOLS_CONFIG")
    root = Path(os.environ.get("GFWTOOLS_ROOT") or "/")
    config = load(Path(named) if named else Paths(root).config, root, required=bool(named))
    policy = config.policies[0]
    if insecure:
        warning = "-i: no certificate is checked; anyone between this host and the mirror can forge the list"
        click.echo(f"gfwlist2dnsmasq: {warning}", err=True)
    allowed, denied = read_listings(allow), read_listings(deny)

    def accept(data: bytes) -> "tuple[Decoded, Compiled]":
        decoded = decode(data, base64=policy.format == "autoproxy", max_bytes=config.fetch.max_bytes)
        listing = Listing("the list", decoded.text, policy.format)
        compiled = compile_lists(listing, allow=allowed, deny=denied, granularity="host")
        require_list(compiled, policy.name)
        return decoded, compiled

    fetched = fetch(policy.sources, config.fetch, accept=accept, verify=not insecure)
    assert fetched.data is not None  # without a validator no source answers that nothing is new
    decoded, compiled = fetched.data
    for problem in compiled.problems:
        click.echo(f"gfwlist2dnsmasq: {problem}", err=True)
    if domain_list:
        if compiled.cover.freed:
            from gfwtools.cli.export import exceptions_left_out

            click.echo(
                f"gfwlist2dnsmasq: {exceptions_left_out(compiled.cover, 'without -l the file has them')}", err=True
            )
        return plain.domains(compiled.cover)
    # A set's name has 31 characters at most (ipset(8)).
    direct = f"{sets.split(',')[0][:24]}_direct" if sets else ""
    body = dnsmasq.pairs(compiled.cover, (upstream,), "ipset", sets, direct, compiled.unset)
    return header("dnsmasq rules generated by gfwlist", decoded.last_modified, body) + body


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    run(command, "gfwlist2dnsmasq", args)
