"""The host's dnsmasq as a service: it must be there at boot, as /etc/resolv.conf names nobody else.

Debian enables it with its package; Alpine and Arch do not. What we enabled or started is remembered in a file each, so
that ``teardown`` disables and stops that, and nothing that was the host's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gfwtools.config.model import Config
from gfwtools.system.commands import Command, Runner
from gfwtools.system.init import INIT_D, Init, is_live, runlevel, systemctl
from gfwtools.system.step import Step

__all__ = ["ENABLED", "STARTED", "DaemonState", "enabling", "leave_steps", "observe", "steps"]

#: Below the state's folder.
ENABLED, STARTED = "dnsmasq-enabled", "dnsmasq-started"
_SERVICES = {"systemd": "dnsmasq.service", "openrc": "dnsmasq"}


@dataclass(frozen=True, slots=True)
class DaemonState:
    """How the service is, and whose doing that is."""

    service: str = ""
    """Empty where none of this init system's is the one that restarts dnsmasq (``dns.manager``)."""
    is_there: bool = False
    """The package that has the service is installed: Debian's dnsmasq-base has the program alone."""
    masked: bool = False
    """systemd: its owner has it never started (systemctl(1), mask)."""
    live: bool = False
    """It can be started and stopped now, and not only at boot."""
    enabled: bool = False
    running: bool = False
    by_us: frozenset[str] = frozenset()
    """Those of :data:`ENABLED` and :data:`STARTED` that are our doing."""


def observe(config: Config, init: Init, runner: Runner) -> DaemonState:
    """Look at the service."""
    if init == "none" or config.dns.manager not in ("auto", init):
        return DaemonState()
    service = _SERVICES[init]
    live = is_live(config, init, runner)
    by_us = frozenset(name for name in (ENABLED, STARTED) if (config.paths.state_dir / name).exists())
    if init == "systemd":
        listed = runner.ask(*systemctl(config, "list-unit-files", "--no-legend", service))
        return DaemonState(
            service,
            is_there=service in (listed or ""),
            masked="masked" in (listed or "").split(),
            live=live,
            enabled=runner.ask(*systemctl(config, "is-enabled", service)) is not None,
            running=live and runner.ask("systemctl", "is-active", service) is not None,
            by_us=by_us,
        )
    return DaemonState(
        service,
        is_there=config.paths.at(f"{INIT_D}/{service}").exists(),
        live=live,
        enabled=any(link.name == service for link in config.paths.at("/etc/runlevels").glob("*/*")),
        running=live and runner.ask("rc-service", service, "status") is not None,
        by_us=by_us,
    )


def steps(config: Config, init: Init, there: DaemonState, *, is_first: bool = True) -> list[Step]:
    """The steps that have it run, now and at each boot; none where it does, or is not there.

    :param is_first: how it is now is how it was before gfwtools, and is remembered.
    """
    if not there.is_there:
        return []
    why = "it answers this host's questions"
    found = []
    if not there.enabled:
        on, off = enabling(config, init, there.service)
        found.append(_step(config, f"enable {there.service}", why, on, off, ENABLED if is_first else ""))
    if there.live and not there.running:
        start, stop = _start(init, there.service)
        found.append(_step(config, f"start {there.service}", why, start, stop, STARTED if is_first else ""))
    return found


def leave_steps(config: Config, init: Init, there: DaemonState) -> list[Step]:
    """The steps for ``teardown``, once the host has its own resolver again: what was our doing is undone."""
    return list(_leave(config, init, there))


def _leave(config: Config, init: Init, there: DaemonState) -> Iterator[Step]:
    why = "as it was before gfwtools"
    if STARTED in there.by_us:
        start, stop = _start(init, there.service)
        yield _step(config, f"stop {there.service}", why, start, stop, STARTED, leave=True)
    if ENABLED in there.by_us:
        on, off = enabling(config, init, there.service)
        yield _step(config, f"disable {there.service}", why, on, off, ENABLED, leave=True)


def _step(config: Config, what: str, why: str, do: Command, undo: Command, marker: str, *, leave: bool = False) -> Step:
    """A command and the file that remembers it: it is there before the one, and goes after the other."""
    if not marker:
        return Step(what, why, (do,), (undo,), divisible=True)
    place = str(config.paths.state_dir / marker)
    forward, back = (Command(("touch", place)), do), (undo, Command(("rm", "-f", place)))
    return Step(what, why, *((back, forward) if leave else (forward, back)), divisible=True)


def enabling(config: Config, init: Init, service: str) -> tuple[Command, Command]:
    """The command that has ``service`` started at each boot, and its inverse."""
    if init == "openrc":
        return runlevel(config, service)
    return Command(systemctl(config, "enable", service)), Command(systemctl(config, "disable", service))


def _start(init: Init, service: str) -> tuple[Command, Command]:
    if init == "openrc":
        start = Command(("rc-service", "--ifnotstarted", service, "start"))
        return start, Command(("rc-service", "--ifstarted", service, "stop"))
    return Command(("systemctl", "start", service)), Command(("systemctl", "stop", service))
