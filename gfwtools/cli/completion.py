"""``gfwtools completion``."""

import click

__all__ = ["completion"]


@click.command(short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      gfwtools completion bash > /etc/bash_completion.d/gfwtools
      gfwtools completion zsh > /usr/local/share/zsh/site-functions/_gfwtools
      gfwtools completion fish > ~/.config/fish/completions/gfwtools.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "gfwtools", "_GFWTOOLS_COMPLETE").source())
