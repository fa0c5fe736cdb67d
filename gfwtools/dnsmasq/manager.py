"""The service manager that restarts the daemons of this host: systemd, OpenRC or the user's command."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.errors import NoManagerError
from gfwtools.system.commands import Command, Runner

__all__ = ["Manager", "kind_of", "manager_of", "restart_command"]


class Manager(Protocol):
    """A program that starts and stops the daemons of this host."""

    @property
    def name(self) -> str:
        """Its name in ``dns.manager``."""

    def restart_main(self) -> None:
        """:raises CommandError: it failed."""

    def restart_second(self, policy: PolicyConfig) -> None:
        """Restart (or start) the second dnsmasq of a policy.

        :raises CommandError: it failed.
        """

    def stop_second(self, policy: str) -> None:
        """Stop it, where it runs."""


@dataclass(frozen=True, slots=True)
class Systemd:
    runner: Runner
    name: str = "systemd"

    def restart_main(self) -> None:
        self._do("restart", "dnsmasq.service")

    def restart_second(self, policy: PolicyConfig) -> None:
        self._do("restart", f"gfwtools-dns@{policy.name}.service")

    def stop_second(self, policy: str) -> None:
        self._do("stop", f"gfwtools-dns@{policy}.service")

    def _do(self, verb: str, unit: str) -> None:
        self.runner.change(Command(("systemctl", verb, unit)))


@dataclass(frozen=True, slots=True)
class OpenRC:
    runner: Runner
    name: str = "openrc"

    def restart_main(self) -> None:
        self._do("dnsmasq", "restart")

    def restart_second(self, policy: PolicyConfig) -> None:
        self._do(f"gfwtools-dns.{policy.name}", "restart")

    def stop_second(self, policy: str) -> None:
        self._do(f"gfwtools-dns.{policy}", "--ifstarted", "stop")

    def _do(self, service: str, *verb: str) -> None:
        self.runner.change(Command(("rc-service", *verb[:-1], service, verb[-1])))


@dataclass(frozen=True, slots=True)
class OwnCommand:
    """The command of ``dns.restart``; it restarts every dnsmasq of the host."""

    runner: Runner
    argv: Sequence[str]
    name: str = "command"

    def restart_main(self) -> None:
        self.runner.change(Command(tuple(self.argv)))

    def restart_second(self, policy: PolicyConfig) -> None:
        self.restart_main()

    def stop_second(self, policy: str) -> None:
        pass  # the command starts what the configuration names


def manager_of(config: Config, runner: Runner) -> Manager | None:
    """The manager that restarts dnsmasq; None for ``dns.manager = "none"``.

    :raises ResolverError: no manager is found.
    """
    kind = config.dns.manager
    if kind == "auto":
        if Path("/run/systemd/system").is_dir() and runner.has("systemctl"):
            kind = "systemd"
        elif Path("/run/openrc").is_dir() and runner.has("rc-service"):
            kind = "openrc"
        elif config.dns.restart:
            kind = "command"
        else:
            raise NoManagerError(
                "neither systemd nor OpenRC runs here, so dnsmasq cannot be reloaded",
                'in config.toml set dns.manager = "command" with dns.restart, or "none"',
            )
    if kind == "systemd":
        return Systemd(runner)
    if kind == "openrc":
        return OpenRC(runner)
    return OwnCommand(runner, config.dns.restart) if kind == "command" else None


def kind_of(config: Config) -> str:
    """The manager of dnsmasq: the value of ``dns.manager``, or for ``auto`` the running init system, or empty."""
    kind = config.dns.manager
    if kind != "auto":
        return kind
    if config.paths.at("/run/systemd/system").is_dir():
        return "systemd"
    if config.paths.at("/run/openrc").is_dir():
        return "openrc"
    return "command" if config.dns.restart else ""


def restart_command(config: Config, second: str = "") -> str:
    """The command that restarts the main dnsmasq, or the second one of the policy ``second``."""
    kind = kind_of(config) or "systemd"
    if kind == "systemd":
        return f"systemctl restart gfwtools-dns@{second}" if second else "systemctl restart dnsmasq"
    if kind == "openrc":
        return f"rc-service gfwtools-dns.{second} restart" if second else "rc-service dnsmasq restart"
    return shlex.join(config.dns.restart) if kind == "command" else "restart dnsmasq"
