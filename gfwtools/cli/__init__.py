"""The command line: the options that every command has, and the commands, each imported when it is run."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gfwtools._version import __version__
from gfwtools.cli.text import lines
from gfwtools.errors import GfwtoolsError

if TYPE_CHECKING:
    from gfwtools.config.model import Config, PolicyConfig
    from gfwtools.system.commands import System

__all__ = ["Context", "LazyGroup", "main"]

#: Command -> the module that holds it, and its one line of help. The modules import what is heavy.
COMMANDS = {
    "update": ("gfwtools.cli.update:update", "Fetch the list and write the files for dnsmasq and the sets."),
    "check": ("gfwtools.cli.check:check", "Show what happens to a name or an address, or check this host."),
    "deny": ("gfwtools.cli.edit:deny", "Send names through the tunnel: edit your deny list and reload."),
    "allow": ("gfwtools.cli.edit:allow", "Let names go directly: edit your allow list and reload."),
    "bootstrap": ("gfwtools.cli.bootstrap:bootstrap", "Set up this host: list, plumbing, dnsmasq, start at boot."),
    "teardown": ("gfwtools.cli.bootstrap:teardown", "Undo bootstrap."),
    "up": ("gfwtools.cli.plumbing:up", "Set up sets, marks, rules, routes and NAT (runs at boot)."),
    "down": ("gfwtools.cli.plumbing:down", "Remove the sets, marks, rules, routes and NAT of gfwtools."),
    "status": ("gfwtools.cli.status:status", "Show what is happening on this host, on one screen."),
    "warm": ("gfwtools.cli.warm:warm", "Ask dnsmasq for the tunnelled domains, to fill the sets."),
    "trace": ("gfwtools.cli.trace:trace", "Follow packets to and from an address through netfilter."),
    "export": ("gfwtools.cli.export:export", "Print the policy in another format."),
    "completion": ("gfwtools.cli.completion:completion", "Print the completion script for a shell."),
}

#: The same as in gfwtools.storage.interrupts, which most commands have no need to import.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Context:
    """The options before the command. The configuration is read at its first use."""

    def __init__(self, config: Path | None, root: Path, verbosity: int) -> None:
        self.root = root
        self.verbosity = verbosity
        self._config = config

    @property
    def quiet(self) -> bool:
        return self.verbosity < 0

    @property
    def verbose(self) -> int:
        return max(self.verbosity, 0)

    @property
    def config_path(self) -> Path:
        """The path of the configuration, whether it exists or not."""
        from gfwtools.config.model import Paths

        return self._config or Paths(self.root).config

    @cached_property
    def config(self) -> "Config":
        """The configuration. A file given with --config must exist; the default one may be missing."""
        from gfwtools.config.load import load
        from gfwtools.config.trust import require_trusted

        config = load(self.config_path, self.root, required=self._config is not None)
        require_trusted(config)
        return config

    def require_host(self, what: str) -> None:
        """Check that there is no ``--root``: it is for files, and the kernel and dnsmasq are this host's all the same.

        :raises click.UsageError: there is one.
        """
        if self.root != Path("/"):
            raise click.UsageError(
                f"{what} changes the kernel and dnsmasq of this host, and not of --root {self.root}; "
                "leave out one of the two"
            )

    def policy(self, name: str | None) -> "PolicyConfig":
        """The policy of that name; the first one without a name.

        :raises click.UsageError: there is no such policy.
        """
        policies = {policy.name: policy for policy in self.config.policies}
        if name is not None and name not in policies:
            raise click.UsageError(f"no policy {name!r}; the configuration has {', '.join(policies)}")
        return policies[name] if name else self.config.policies[0]

    def runner(self) -> "System":
        """The host; with -v each changing command is shown before it runs."""
        from gfwtools.system.commands import System

        return System(echo=(lambda command: click.echo(f"+ {command}", err=True)) if self.verbose else lambda _: None)

    def say(self, text: str = "") -> None:
        """Print a line for people, except with --quiet."""
        if not self.quiet:
            click.echo(lines(text))

    def warn(self, text: str) -> None:
        """Print a warning on standard error. Nothing failed, but the user should know."""
        click.echo(lines(f"gfwtools: {text}"), err=True)


class LazyGroup(click.Group):
    """A group that knows its commands by name. It imports a command to run it or to show its help."""

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_typo = args[0] not in self.lazy and not args[0].startswith("-")
        if is_typo and not ctx.resilient_parsing:  # which completion sets
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.lazy)
            ctx.fail(
                f"no command {args[0]!r}; " + (f"did you mean {near[0]}?" if near else f"use {', '.join(self.lazy)}")
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The commands' own help would import them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="GFWTOOLS_CONFIG",
    help="The configuration file.  [default: /etc/gfwtools/config.toml below --root]",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GFWTOOLS_ROOT",
    default=Path("/"),
    help="Prefix of every path that is read or written, like DESTDIR; for files alone, without --reload.  [default: /]",
)
@click.option("-v", "--verbose", count=True, help="Print more detail.")
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
@click.version_option(__version__, prog_name="gfwtools")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, root: Path, verbose: int, quiet: bool) -> None:
    """Send blocked domains (gfwlist) through a WireGuard tunnel and everything else directly.

    \b
    Examples:
      gfwtools update                    fetch the list, write the files
      gfwtools update --reload           the same, and dnsmasq loads them (cron)
      gfwtools check domain example.com  show what happens to a name, and why
      gfwtools --root ./demo update      try it without touching this host

    Exit codes: 0 done, or nothing to do; 1 failed, or a check found a fault; 2 wrong usage; 130
    interrupted.
    """
    if root.is_dir() and root.samefile("/"):
        root = Path("/")  # another spelling, or a link
    ctx.obj = Context(config, root, -1 if quiet else verbose)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if args is None else args)
    end = words.index("--") if "--" in words else len(words)
    # Users often put these two after the command; click wants them before it.
    first = [word for word in words[:end] if word in ("-v", "-q", "--verbose", "--quiet")]
    rest = [word for word in words[:end] if word not in first]
    run(cli, "gfwtools", [*first, *rest, *words[end:]])


def run(command: click.Command, name: str, args: Sequence[str] | None = None) -> None:
    """Run ``command``, print an error as one line on standard error, and exit."""
    try:
        # A shutdown or a lost ssh session undoes what is half done, as Ctrl-C does.
        for number in END_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
                signal.signal(number, signal.default_int_handler)
        code = command.main(args, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.option_name in ("--root", "--config"):
            # These two apply to every command, so click takes them before the command only.
            place = f"{error.option_name} goes before the command: {name} {error.option_name} PATH COMMAND"
            error = click.UsageError(place, error.ctx)
        shown = StringIO()
        error.show(shown)  # the words of the command line are in it
        click.echo(lines(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except GfwtoolsError as error:
        click.echo(lines(f"{name}: {error}"), err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENOMEM:  # the kernel's words for what Python calls a MemoryError
            raise MemoryError from None
        # What the tool reads and writes has errors of its own; this is a standard stream, or an unforeseen fault.
        # Only getcwd(2) fails with ENOENT and without a name: the current folder was removed.
        gone = isinstance(error, FileNotFoundError) and not error.filename
        message = lines(f"{error.filename or 'output'}: {error.strerror}")
        click.echo(
            f"{name}: {'the current folder does not exist any more; change to another one' if gone else message}",
            err=True,
        )
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        for number in END_SIGNALS:  # a second signal must not interrupt the end
            signal.signal(number, signal.SIG_IGN)
        click.echo(f"{name}: interrupted", err=True)  # click has ended the line that holds the ^C
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
