"""What brings the plumbing back after a reboot: units and scripts as files, and the steps that enable them.

At boot, with systemd::

    gfwtools.service          sets, marks, rules, the kill switch         before the network and dnsmasq
    gfwtools-sets.service     the sets alone                              before rules of iptables that were saved
    gfwtools-dns@POLICY       the second dnsmasq of the split layout      after the sets, before dnsmasq
    gfwtools-link@INTERFACE   the routes          each time the interface appears, comes up or gets an address
    gfwtools-again            the same            each time a firewall, networkd or wg-quick has started
    gfwtools-resolvers.path   the copy of the ISP's resolvers      each time networkd and others have new ones
    gfwtools-update.timer     the list, and repairs
    gfwtools-room.timer       repairs, and room in the sets

OpenRC has ``local.d`` for the first and third, a script in ``init.d`` for the second and cron for the last.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath

from gfwtools.config.model import Config
from gfwtools.errors import HostError
from gfwtools.render.files import on_host
from gfwtools.setup import nftables_service
from gfwtools.setup.files import FileEdit
from gfwtools.system.commands import Command, Runner
from gfwtools.system.init import INIT_D, RUNLEVEL, UNITS, Init, is_live, runlevel, systemctl
from gfwtools.system.step import Step

__all__ = [
    "BootState",
    "Service",
    "boot_files",
    "boot_steps",
    "forget_steps",
    "has_networkd",
    "init_of",
    "leave_steps",
    "observe",
    "places",
    "services",
]

LOCAL_D = "/etc/local.d"
CRON_D = "/etc/cron.d"
NETWORKD_D = "/etc/systemd/networkd.conf.d"
#: OpenRC's own service that runs ``local.d``; whether it was in the runlevel before is what the journal remembers.
LOCAL = "local"
LOCAL_ENABLED = "local-enabled"
# These characters mean themselves in a unit, to cron and to sh alike.
_PROGRAM = re.compile(r"(?:/[A-Za-z0-9_./+-]+ -I )?/[A-Za-z0-9_./+-]+")
# What a unit's name may hold (systemd.unit(5)); wg-quick@ takes the interface unescaped.
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.@-]+")


@dataclass(frozen=True, slots=True)
class Service:
    """A service that is enabled. With ``starts`` it also runs from now on, not only from the next boot."""

    name: str
    why: str
    starts: bool = True


@dataclass(frozen=True, slots=True)
class BootState:
    """The names of the services that are enabled and that run."""

    enabled: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    live: bool = False
    """The init system runs this host now: it can start services, not only read links at boot."""
    outdated: bool = False
    """The units on the disk are newer than those that systemd has read."""
    linked: frozenset[str] = frozenset()
    """OpenRC: the instances of ``gfwtools-dns`` in ``init.d``."""


def init_of(paths: Iterable[str]) -> Init | None:
    """The init system that our files were written for; None where none of the ``paths`` belongs to one.

    It can be the init system that runs, or one that the user named.
    """
    for init, folders in (("systemd", (UNITS,)), ("openrc", (LOCAL_D, INIT_D))):
        if any(path.startswith(f"{folder}/") for path in paths for folder in folders):
            return "systemd" if init == "systemd" else "openrc"
    return None


def boot_files(
    config: Config, init: Init, program: str, *, cron: bool = True, networkd: bool = False, nftables: bool = False
) -> list[FileEdit]:
    """The files for this init system, with ``program`` (the absolute path of gfwtools) in them.

    :param program: perhaps after the path of its Python and ``-I``.
    :param cron: the host has /etc/cron.d; it is used where there is no timer.
    :param networkd: systemd-networkd manages interfaces here. It reads the file when it starts, which is when it would
        remove ours: it need not be restarted now.
    :param nftables: the backend is nftables, and a restart of nftables.service would flush our table.
    :raises HostError: the path holds a character that a unit, cron or a shell would read as something else.
    """
    if not _PROGRAM.fullmatch(program):
        raise HostError(
            f"{program!r}: this path cannot stand in a unit or a crontab",
            "use an absolute path of letters, digits and _ . + -, for example a symbolic link in /usr/local/bin",
        )
    words = {"GFWTOOLS": program, "CONF_DIR": _conf_dir(config), "WG_QUICK": _wg_quick(config)}
    words["STATE_DIR"] = on_host(config, config.paths.state_dir)
    seeds = (on_host(config, config.paths.ipset(policy.name)) for policy in config.policies)
    words["LOAD_SEEDS"] = "\n".join(f"ExecStart=-ipset restore -exist -file {path}" for path in seeds)
    split = config.dns.layout == "split"
    if init == "systemd":
        files = [
            _edit(UNITS, "gfwtools.service", "the plumbing at boot", words),
            _edit(UNITS, "gfwtools-sets.service", "the sets for rules that were saved", words),
            _edit(UNITS, "gfwtools-link@.service", "the routes whenever the interface appears", words),
            _edit(UNITS, "gfwtools-again.service", "the plumbing after a firewall's restart", words),
            _edit(UNITS, "gfwtools-resolvers.path", "the ISP's resolvers of each lease", words),
            _edit(UNITS, "gfwtools-resolvers.service", "the ISP's resolvers of each lease", words),
            _edit(UNITS, "gfwtools-update.service", "repairs, and fetches the list", words),
            _edit(UNITS, "gfwtools-update.timer", "four times a day", words),
            _edit(UNITS, "gfwtools-room.service", "repairs, and looks for room in the sets", words),
            _edit(UNITS, "gfwtools-room.timer", "every five minutes", words),
        ]
        if networkd:
            why = "networkd leaves our rules and routes alone"
            files.append(_edit(NETWORKD_D, "50-gfwtools.conf", why, words, template="networkd.conf"))
        if nftables:
            folder, _, name = nftables_service.DROP_IN.rpartition("/")
            why = "a restart of nftables leaves our table in place"
            files.append(_edit(folder, name, why, nftables_service.words(), template="nftables.service.conf"))
        return [*files, _edit(UNITS, "gfwtools-dns@.service", "the second dnsmasq", words)] if split else files
    files = []
    if init == "openrc":
        files += [
            _edit(LOCAL_D, "01-gfwtools.start", "the plumbing at boot", words, mode=0o755),
            _edit(LOCAL_D, "01-gfwtools.stop", "keeps the learned addresses", words, mode=0o755),
        ]
        if split:
            why = "the second dnsmasq"
            files.append(_edit(INIT_D, "gfwtools-dns", why, words, template="gfwtools-dns.openrc", mode=0o755))
    if cron:
        files.append(_edit(CRON_D, "gfwtools", "fetches the list", words, template="gfwtools.cron"))
    return files


def places() -> tuple[str, ...]:
    """Every path that :func:`boot_files` may give, for any configuration."""
    units = (
        *("gfwtools", "gfwtools-sets", "gfwtools-link@", "gfwtools-again", "gfwtools-resolvers", "gfwtools-update"),
        *("gfwtools-room", "gfwtools-dns@"),
    )
    return (
        *(f"{UNITS}/{name}.service" for name in units),
        f"{UNITS}/gfwtools-resolvers.path",
        f"{UNITS}/gfwtools-update.timer",
        f"{UNITS}/gfwtools-room.timer",
        f"{LOCAL_D}/01-gfwtools.start",
        f"{LOCAL_D}/01-gfwtools.stop",
        f"{INIT_D}/gfwtools-dns",
        f"{CRON_D}/gfwtools",
        f"{NETWORKD_D}/50-gfwtools.conf",
        nftables_service.DROP_IN,
    )


def has_networkd(config: Config, runner: Runner) -> bool:
    """Whether systemd-networkd manages interfaces of this host, or will from the next boot."""
    unit = "systemd-networkd.service"
    if runner.ask(*systemctl(config, "is-enabled", unit)) is not None:
        return True
    return is_live(config, "systemd", runner) and runner.ask("systemctl", "is-active", unit) is not None


def _edit(
    folder: str, name: str, why: str, words: Mapping[str, str], *, template: str = "", mode: int = 0o644
) -> FileEdit:
    text = resources.files("gfwtools").joinpath("data", template or name).read_text(encoding="utf-8")
    for key, value in words.items():
        text = text.replace(f"@{key}@", value)
    return FileEdit(f"{folder}/{name}", text.encode(), why, mode)


def _conf_dir(config: Config) -> str:
    """One more path that ``update`` may write, where it is not below one of those in the unit."""
    folder = PurePosixPath(config.dns.conf_dir)
    if folder.is_relative_to("/etc") or folder.is_relative_to("/run"):
        return ""
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f' "-{quoted}"'


def _interfaces(config: Config) -> tuple[str, ...]:
    return tuple(dict.fromkeys(policy.interface for policy in config.policies))


def _wg_quick(config: Config) -> str:
    return " ".join(f"wg-quick@{name}.service" for name in _interfaces(config) if _UNIT_NAME.fullmatch(name))


def services(config: Config, init: Init) -> tuple[Service, ...]:
    """What must be enabled, in the order in which it is done."""
    split = config.dns.layout == "split"
    names = [policy.name for policy in config.policies] if split else []
    second = "the dnsmasq that asks the clean resolver"
    if init == "systemd":
        return (
            *(Service(f"gfwtools-dns@{name}.service", second) for name in names),
            *(
                Service(f"gfwtools-link@{_escape(name)}.service", f"routes whenever {name} comes up")
                for name in _interfaces(config)
            ),
            Service("gfwtools-sets.service", "rules of iptables that were saved can be loaded at boot", starts=False),
            Service("gfwtools-again.service", "what another service removes comes back", starts=False),
            Service("gfwtools-resolvers.path", "dnsmasq asks the ISP's resolvers of today"),
            Service("gfwtools-update.timer", "the list changes several times a week"),
            Service("gfwtools-room.timer", "the sets are looked at before one can be full"),
            # The last one: stopping it takes the plumbing down. It is started, though `up` has been run already, so
            # that it is stopped, and the learned addresses are kept, when the host goes down.
            Service("gfwtools.service", "the plumbing comes back at boot"),
        )
    if init == "openrc":
        return (
            *(Service(f"gfwtools-dns.{name}", second) for name in names),
            # It runs other people's scripts as well: not now.
            Service(LOCAL, "runs 01-gfwtools.start at boot", starts=False),
        )
    return ()


def _escape(name: str) -> str:
    """As systemd-escape(1)."""
    return "".join(
        char if re.fullmatch(r"[A-Za-z0-9:_]", char) or (char == "." and index) else f"\\x{ord(char):02x}"
        for index, char in enumerate(name)
    )


def observe(config: Config, init: Init, runner: Runner) -> BootState:
    """Read which services are enabled and running: the wanted ones, and those of an earlier configuration."""
    if init == "systemd":
        return _observe_systemd(config, runner)
    return _observe_openrc(config, runner) if init == "openrc" else BootState()


def _observe_systemd(config: Config, runner: Runner) -> BootState:
    live = is_live(config, "systemd", runner)
    links = {link.name for link in config.paths.at(UNITS).glob("*.wants/gfwtools*")}
    names = dict.fromkeys([*(service.name for service in services(config, "systemd")), *sorted(links)])
    reload = ("systemctl", "show", "--property=NeedDaemonReload", "--value")
    return BootState(
        enabled=frozenset(name for name in names if runner.ask(*systemctl(config, "is-enabled", name)) is not None),
        running=frozenset(name for name in names if live and runner.ask("systemctl", "is-active", name) is not None),
        live=live,
        outdated=live and "yes" in (runner.ask(*reload, *names, nftables_service.UNIT) or "").split(),
    )


def _observe_openrc(config: Config, runner: Runner) -> BootState:
    paths = config.paths
    live = is_live(config, "openrc", runner)
    ours = {service.name for service in services(config, "openrc")}
    enabled = {link.name for link in paths.at(RUNLEVEL).glob("*")}
    linked = {link.name for link in paths.at(INIT_D).glob("gfwtools-dns.*")}
    names = sorted(linked | (enabled & ours) | {name for name in enabled if name.startswith("gfwtools-dns.")})
    return BootState(
        enabled=frozenset(names) & enabled,
        running=frozenset(name for name in names if live and runner.ask("rc-service", name, "status") is not None),
        live=live,
        linked=frozenset(linked),
    )


def boot_steps(config: Config, init: Init, there: BootState) -> list[Step]:
    """The steps that enable the wanted services and disable the others; none where nothing differs.

    Before they run, the files are in place, and the configuration of the second dnsmasq too. The lock is free, because
    the services run ``gfwtools up``.
    """
    wanted = services(config, init)
    stale = _ours(there) - {service.name for service in wanted} - {LOCAL}
    steps = [_disable(config, init, there, name) for name in sorted(stale)]
    for service in wanted:
        runs = service.name in there.running or not (service.starts and there.live)
        if service.name not in there.enabled or not runs or _unlinked(service.name, init, there):
            steps.append(_enable(config, init, there, service))
    if init == "systemd" and there.live and (steps or there.outdated):
        steps.insert(0, _daemon_reload())
    return steps


def leave_steps(config: Config, init: Init, there: BootState) -> list[Step]:
    """The steps for ``teardown``: they disable and stop all our services, the last one first.

    Stopping gfwtools.service removes the plumbing. The files are removed after this, then :func:`forget_steps` follows.
    """
    names = [service.name for service in services(config, init)]
    ours = _ours(there) - {LOCAL}  # that one is undone from the journal
    order = [*reversed(names), *sorted(ours - set(names))]
    return [_disable(config, init, there, name) for name in order if name in ours]


def forget_steps(init: Init, there: BootState) -> list[Step]:
    """The step after the files have been removed: systemd forgets the units."""
    return [_daemon_reload()] if init == "systemd" and there.live else []


def _ours(there: BootState) -> set[str]:
    return {*there.enabled, *there.running, *there.linked}


def _unlinked(name: str, init: Init, there: BootState) -> bool:
    return init == "openrc" and name != LOCAL and name not in there.linked


def _daemon_reload() -> Step:
    command = Command(("systemctl", "daemon-reload"))
    return Step("units", "systemd reads the units that have changed", (command,), (command,))


def _enable(config: Config, init: Init, there: BootState, service: Service) -> Step:
    now = service.starts and there.live
    on, off = _both(config, init, service.name, now=now)
    keep = LOCAL_ENABLED if init == "openrc" and service.name == LOCAL else ""
    return Step(f"enable {service.name}", service.why, on, off, divisible=True, keep=keep)


def _disable(config: Config, init: Init, there: BootState, name: str) -> Step:
    on, off = _both(config, init, name, now=there.live and name in there.running)
    return Step(f"disable {name}", "not wanted any more", off, on)


def _both(config: Config, init: Init, name: str, *, now: bool) -> tuple[tuple[Command, ...], tuple[Command, ...]]:
    """The commands that enable, and those that disable."""
    if init == "systemd":
        words = ("--now",) if now else ()
        return (
            (Command(systemctl(config, "enable", *words, name)),),
            (Command(systemctl(config, "disable", *words, name)),),
        )
    on, off = runlevel(config, name)
    if name == LOCAL:
        return (on,), (off,)
    script = str(config.paths.at(INIT_D) / name)
    start = [Command(("rc-service", "--ifnotstarted", name, "start"))] if now else []
    stop = [Command(("rc-service", "--ifstarted", name, "stop"))] if now else []
    return (
        (Command(("ln", "-sf", "gfwtools-dns", script)), on, *start),
        (*stop, off, Command(("rm", "-f", script))),
    )
