"""Tunnels that take all traffic of this host, as wg-quick(8) sets them up by default."""

import re
from collections.abc import Iterator

from gfwtools.config.model import Config
from gfwtools.errors import GfwtoolsError
from gfwtools.plumbing.facts import families_of
from gfwtools.plumbing.wanted import MAIN
from gfwtools.setup.iproute import catches_all, numbers, rule_words
from gfwtools.setup.problem import Problem
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.system.init import systemctl

__all__ = ["all_traffic"]

_ALL = frozenset({"0.0.0.0/0", "::/0"})
_HALVES = (frozenset({"0.0.0.0/1", "128.0.0.0/1"}), frozenset({"::/1", "8000::/1"}))
#: The keys that wg-quick(8) alone knows: `wg setconf` refuses a file that has one of them.
_KEYS_OF_WG_QUICK = re.compile(
    r"^[ \t]*(?:Address|DNS|MTU|Table|PreUp|PostUp|PreDown|PostDown|SaveConfig)[ \t]*=", re.IGNORECASE | re.MULTILINE
)


def all_traffic(config: Config, runner: Runner) -> Iterator[tuple[str, Problem]]:
    """Interfaces that take all traffic, by the rules that are there or by the file that makes them at the next start.

    :returns: name of the interface and problem, one an interface.
    """
    found: dict[str, Problem] = {}
    tunnels = tuple(dict.fromkeys(policy.interface for policy in config.policies))
    for family in families_of(runner):
        for rule in numbers(runner, family, "rule"):
            if catches_all(rule) and "table" in rule:
                routes = numbers(runner, family, "route", "show", "table", str(rule["table"]))
                devices = [str(route["dev"]) for route in routes if route.get("dst") == "default" and "dev" in route]
                name = devices[0] if devices else tunnels[0]
                words = f"{rule['priority']}: {rule_words(rule)}"
                found.setdefault(name, _takes_all(name, f"its rule {words} sends all traffic into it"))
    for name, reason in _main_takes_all(runner, tunnels):
        found.setdefault(name, _takes_all(name, reason))
    for name in tunnels:
        reason = _file_takes_all(config, name, runner)
        if reason and name not in found:
            found[name] = _takes_all(name, reason)
    yield from found.items()


def _main_takes_all(runner: Runner, tunnels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Interfaces that the main table sends everything to: by the best default route, or by two halves."""
    defaults = numbers(runner, 4, "route", "show", "default")
    best = min(defaults, key=lambda route: int(route.get("metric", 0)), default={})
    for name in tunnels:
        halves = {route.get("dst") for route in numbers(runner, 4, "route", "show", "table", str(MAIN), "dev", name)}
        if best.get("dev") == name or _HALVES[0] <= halves:
            yield name, "the main table sends all traffic into it"


def _takes_all(name: str, reason: str) -> Problem:
    return Problem(
        f"{name}: {reason}",
        f"put `Table = off` below [Interface] in /etc/wireguard/{name}.conf and run: "
        f"wg-quick down {name} && wg-quick up {name}",
    )


def _file_takes_all(config: Config, name: str, runner: Runner) -> str:
    """Why wg-quick would send all traffic into the interface, by its file; empty where it would not (wg-quick(8)), or
    where wg-quick is not what brings the interface up."""
    path = f"/etc/wireguard/{name}.conf"
    try:
        text = (atomic.read(config.paths.at(path)) or b"").decode("utf-8", "replace")
    except GfwtoolsError:
        return ""
    # Without an address, which only wg-quick's own keys give, wg-quick makes no link that is of use.
    if not _KEYS_OF_WG_QUICK.search(text) and not _is_wg_quicks(config, name, runner):
        return ""
    pairs = re.findall(r"^[ \t]*(table|allowedips)[ \t]*=[ \t]*([^#\n]*)", text, re.IGNORECASE | re.MULTILINE)
    tables = [value.strip().lower() for key, value in pairs if key.lower() == "table"]
    # Only a rule that the user makes leads to a table with a number.
    if tables and tables[-1] not in ("auto", "main", str(MAIN)):
        return ""
    allowed = {part.strip() for key, value in pairs if key.lower() == "allowedips" for part in value.split(",")}
    everything = sorted(allowed & _ALL) or next((sorted(half) for half in _HALVES if half <= allowed), [])
    if not everything:
        return ""
    return f"AllowedIPs = {', '.join(everything)} in {path} without `Table = off` has wg-quick send all traffic into it"


def _is_wg_quicks(config: Config, name: str, runner: Runner) -> bool:
    """Whether a service brings the interface up with wg-quick, now or at boot: systemd's or OpenRC's."""
    if any(link.name == f"wg-quick.{name}" for link in config.paths.at("/etc/runlevels").glob("*/*")):
        return True
    asked = (systemctl(config, verb, f"wg-quick@{name}.service") for verb in ("is-enabled", "is-active"))
    return any(runner.ask(*words) is not None for words in asked)
