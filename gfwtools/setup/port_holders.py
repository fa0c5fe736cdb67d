"""Who holds a port that a dnsmasq of ours needs: the program, its process and its unit, and how to end it.

A dnsmasq at every address, or at the loopback addresses, is the host's own one or a second one. The service manager
knows the process of the host's own. Without it the configuration decides: the host's own reads ``dns.conf_dir``.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from gfwtools.config.model import Config, Paths
from gfwtools.dnsmasq.conf import MAIN_CONF, option_values
from gfwtools.dnsmasq.manager import kind_of
from gfwtools.setup.listening import WILDCARDS, command_line, words_of
from gfwtools.setup.problem import Problem
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.system.init import detect_init
from gfwtools.system.questions import Holder, holders

__all__ = ["how_to_end", "second_dnsmasqs", "who_is"]

#: Where ours answers besides the LAN: a program there, or at every address, is in its way.
HERE = (*WILDCARDS, "127.0.0.1", "::1")
_UNITS = {"named": "named", "unbound": "unbound", "pdns_recursor": "pdns-recursor", "coredns": "coredns"}
#: NetworkManager runs it with ``dns=dnsmasq``, and ends it when bootstrap has switched that off.
_OF_NETWORK_MANAGER = "/run/NetworkManager/"


def second_dnsmasqs(config: Config, runner: Runner) -> Iterator[Problem]:
    """The dnsmasqs that are not the host's own, where the host's own has to listen."""
    there = [holder for holder in holders(runner) if holder.program == "dnsmasq" and holder.address in HERE]
    if not there:
        return
    hosts = set(_own_pids(config, runner))
    found: dict[int, list[Holder]] = {}
    for holder in there:
        if not hosts & {holder.pid, *_ancestors(config.paths, holder.pid)}:
            found.setdefault(holder.pid, []).append(holder)
    manages = kind_of(config) == "systemd"
    for some in found.values():
        holder = some[0]
        if _is_network_managers(config.paths, holder.pid) or not (manages or _reads_others(config, holder.pid)):
            continue
        where = ", ".join(dict.fromkeys(each.address for each in some))
        files = [name for name in _files(config.paths, holder.pid) if name not in (MAIN_CONF, "/dev/null")]
        own = f"; or give it an address of its own: listen-address= and bind-interfaces in {files[0]}" if files else ""
        yield Problem(
            f"port 53 is held by {who_is(config.paths, holder)} at {where}, and this host's dnsmasq is to answer there",
            f"{how_to_end(config.paths, holder)}{own}",
        )


def who_is(paths: Paths, holder: Holder) -> str:
    """The program in words: its name, its process, a dnsmasq's configuration, and its unit."""
    words = words_of(paths, holder)
    unit = _unit(paths, holder.pid)
    return f"{words.removesuffix(')')}, {unit})" if unit and words.endswith(")") else words


def how_to_end(paths: Paths, holder: Holder) -> str:
    """The command that ends the program, now and at the next boot where its unit is known."""
    if holder.program == "docker-proxy":
        return "have its container publish another port (docker ps shows it)"
    known = f"{_UNITS[holder.program]}.service" if holder.program in _UNITS else ""
    unit = _unit(paths, holder.pid) or known
    if unit:
        return f"stop and disable it: systemctl disable --now {unit}"
    return f"stop it, and what starts it at boot: kill {holder.pid}" if holder.pid else "stop and disable it"


def _unit(paths: Paths, pid: int) -> str:
    """The service of systemd that a process belongs to (cgroups(7)); empty where it is none."""
    if not pid or detect_init(paths.root) != "systemd":
        return ""
    try:
        text = paths.at(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
    except OSError:
        return ""
    found = re.findall(r"^\d+:(?:name=systemd)?:/system\.slice/(?:.*/)?([^/\n]+\.service)$", text, re.MULTILINE)
    return found[0] if found and found[0].isprintable() else ""


def _own_pids(config: Config, runner: Runner) -> Iterator[int]:
    """The main process of the host's own dnsmasq, as its pid file and systemd have it."""
    texts = [(atomic.read(config.paths.at(config.dns.pid_file)) or b"").decode("ascii", "replace")]
    if kind_of(config) == "systemd":
        texts.append(runner.ask("systemctl", "show", "--property=MainPID", "--value", "dnsmasq.service") or "")
    yield from (int(text) for text in texts if text.strip().isdigit() and int(text) > 0)


def _ancestors(paths: Paths, pid: int) -> Iterator[int]:
    """The process that started it, and the one above: dnsmasq has a child for each question that comes by TCP."""
    for _ in range(2):
        try:
            text = paths.at(f"/proc/{pid}/stat").read_text("utf-8", "replace")
            pid = int(text.rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        yield pid


def _files(paths: Paths, pid: int) -> list[str]:
    return [name for name in option_values(command_line(paths, pid), "-C", "--conf-file") if name]


def _is_network_managers(paths: Paths, pid: int) -> bool:
    named = option_values(command_line(paths, pid), "-x", "--pid-file")
    return any(name.startswith(_OF_NETWORK_MANAGER) for name in named)


def _reads_others(config: Config, pid: int) -> bool:
    """Whether it reads another file than /etc/dnsmasq.conf, and not ``dns.conf_dir``."""
    files = _files(config.paths, pid)
    if not set(files) - {MAIN_CONF}:
        return False
    folder = str(PurePosixPath(config.dns.conf_dir))
    folders = option_values(command_line(config.paths, pid), "-7", "--conf-dir")
    texts = [(atomic.read(config.paths.at(name)) or b"").decode("utf-8", "replace") for name in _regular(config, files)]
    return not any(folder in text for text in (*folders, *texts))


def _regular(config: Config, names: Iterable[str]) -> Iterator[str]:
    yield from (name for name in names if config.paths.at(name).is_file())
