"""Has dnsmasq check a configuration before it is in place."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.dnsmasq.trial import DnsmasqCopy
from gfwtools.errors import ResolverError
from gfwtools.system.commands import CommandError, Runner

__all__ = ["check_configuration"]


def check_configuration(config: Config, files: Mapping[Path, bytes], runner: Runner) -> None:
    """Have dnsmasq check the host's whole configuration with ``files`` in place of what is there (dnsmasq(8), --test).

    :raises ResolverError: it would not start. The message is dnsmasq's, and names the cause: the old files or the new.
    """
    if not runner.has("dnsmasq"):
        raise ResolverError("dnsmasq: no such program", "install dnsmasq-base")
    problem = _test_with(config, files, runner)
    if problem is None:
        return
    before = _test_with(config, {}, runner)
    if before is not None:
        raise ResolverError(f"dnsmasq's configuration was broken before: {before}", "fix that, then run this again")
    raise ResolverError(f"dnsmasq would not start with the new files: {problem}")


def _test_with(config: Config, files: Mapping[Path, bytes], runner: Runner) -> str | None:
    """dnsmasq's error message for the configuration with ``files`` in it; None where it would start."""
    with tempfile.TemporaryDirectory(prefix="gfwtools-") as folder:
        copy = DnsmasqCopy(config, files, Path(folder))
        # --test does not look into a servers-file: it is checked as a configuration of its own, as are those of the
        # second dnsmasqs.
        others = [copy.other(path, data) for path, data in files.items() if path.parent == config.paths.dns]
        for arguments in (copy.arguments(), *others):
            try:
                runner.read("dnsmasq", "--test", *arguments)
            except CommandError as error:
                return copy.named(error.said)
    return None
