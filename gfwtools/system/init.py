"""The init system that starts the services of this host, and the commands for it."""

from pathlib import Path
from typing import Literal

from gfwtools.config.model import Config
from gfwtools.system.commands import Command, Runner

__all__ = [
    "INIT_D",
    "RUNLEVEL",
    "UNITS",
    "Init",
    "detect_init",
    "is_live",
    "is_stopping",
    "runlevel",
    "systemctl",
]

Init = Literal["systemd", "openrc", "none"]
UNITS = "/etc/systemd/system"
INIT_D = "/etc/init.d"
RUNLEVEL = "/etc/runlevels/default"


def detect_init(root: Path) -> Init:
    """The init system that has booted the host. Its programs prove nothing: Debian can have both installed."""
    if (root / "run/systemd/system").is_dir():  # sd_booted(3)
        return "systemd"
    return "openrc" if (root / "run/openrc").is_dir() else "none"


def is_live(config: Config, init: Init, runner: Runner) -> bool:
    """Whether the init system runs this host now, so that it can start services and not only read links at boot."""
    if init == "systemd":
        return is_host(config) and runner.ask("systemctl", "show", "--property=Version") is not None
    return init == "openrc" and is_host(config) and config.paths.at("/run/openrc/softlevel").exists()


def is_stopping(config: Config, runner: Runner) -> bool:
    """Whether the host goes down: systemd has begun to stop everything."""
    state = runner.ask("systemctl", "show", "--property=SystemState", "--value") if is_host(config) else None
    return (state or "").strip() == "stopping"


def is_host(config: Config) -> bool:
    return config.root == Path("/")


def systemctl(config: Config, *words: str) -> tuple[str, ...]:
    """The command, for the host or below its root."""
    return ("systemctl", *words) if is_host(config) else ("systemctl", f"--root={config.root}", *words)


def runlevel(config: Config, name: str) -> tuple[Command, Command]:
    """OpenRC: the command that adds a service to the runlevel, and its inverse.

    rc-update knows only its own root; the commands for another root make and remove the same link.
    """
    if is_host(config):
        return Command(("rc-update", "add", name, "default")), Command(("rc-update", "del", name, "default"))
    link = str(config.paths.at(RUNLEVEL) / name)
    return Command(("ln", "-sf", f"{INIT_D}/{name}", link)), Command(("rm", "-f", link))
