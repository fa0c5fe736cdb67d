"""The host's dnsmasq as a service: it must run at boot, because /etc/resolv.conf names no other resolver.

Debian enables it with its package; Alpine and Arch do not. The journal records what we enabled or started. So
``teardown`` disables and stops only that, and nothing that was the host's own.
"""

from dataclasses import dataclass

from gfwtools.config.model import Config
from gfwtools.system.commands import Command, Runner
from gfwtools.system.init import INIT_D, Init, is_live, runlevel, systemctl
from gfwtools.system.step import Step

__all__ = ["ENABLED", "STARTED", "DaemonState", "enabling", "observe", "steps"]

#: The names under which the journal keeps the inverses.
ENABLED, STARTED = "dnsmasq-enabled", "dnsmasq-started"
_SERVICES = {"systemd": "dnsmasq.service", "openrc": "dnsmasq"}


@dataclass(frozen=True, slots=True)
class DaemonState:
    """The state of the service."""

    service: str = ""
    """The service's name; empty where this init system does not manage dnsmasq (``dns.manager``)."""
    is_there: bool = False
    """Whether the service is installed: Debian's dnsmasq-base has only the program."""
    masked: bool = False
    """systemd: the owner has forbidden its start (systemctl(1), mask)."""
    live: bool = False
    """Whether it can be started and stopped now, and not only at boot."""
    enabled: bool = False
    running: bool = False


def observe(config: Config, init: Init, runner: Runner) -> DaemonState:
    """Read the state of the service."""
    if init == "none" or config.dns.manager not in ("auto", init):
        return DaemonState()
    service = _SERVICES[init]
    live = is_live(config, init, runner)
    if init == "systemd":
        listed = runner.ask(*systemctl(config, "list-unit-files", "--no-legend", service))
        return DaemonState(
            service,
            is_there=service in (listed or ""),
            masked="masked" in (listed or "").split(),
            live=live,
            enabled=runner.ask(*systemctl(config, "is-enabled", service)) is not None,
            running=live and runner.ask("systemctl", "is-active", service) is not None,
        )
    return DaemonState(
        service,
        is_there=config.paths.at(f"{INIT_D}/{service}").exists(),
        live=live,
        enabled=any(link.name == service for link in config.paths.at("/etc/runlevels").glob("*/*")),
        running=live and runner.ask("rc-service", service, "status") is not None,
    )


def steps(config: Config, init: Init, there: DaemonState, *, is_first: bool = True) -> list[Step]:
    """The steps that start the service now and at each boot; none where it runs already, or is not installed.

    :param is_first: the current state is the one from before gfwtools, and is recorded.
    """
    if not there.is_there:
        return []
    why = "it answers this host's questions"
    found = []
    if not there.enabled:
        on, off = enabling(config, init, there.service)
        keep = ENABLED if is_first else ""
        found.append(Step(f"enable {there.service}", why, (on,), (off,), divisible=True, keep=keep))
    if there.live and not there.running:
        start, stop = _start(init, there.service)
        keep = STARTED if is_first else ""
        found.append(Step(f"start {there.service}", why, (start,), (stop,), divisible=True, keep=keep))
    return found


def enabling(config: Config, init: Init, service: str) -> tuple[Command, Command]:
    """The command that enables ``service`` at boot, and its inverse."""
    if init == "openrc":
        return runlevel(config, service)
    return Command(systemctl(config, "enable", service)), Command(systemctl(config, "disable", service))


def _start(init: Init, service: str) -> tuple[Command, Command]:
    if init == "openrc":
        start = Command(("rc-service", "--ifnotstarted", service, "start"))
        return start, Command(("rc-service", "--ifstarted", service, "stop"))
    return Command(("systemctl", "start", service)), Command(("systemctl", "stop", service))
