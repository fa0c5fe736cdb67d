"""Single questions to the kernel: which way does a packet take, how is the tunnel."""

import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gfwtools.config.model import Address
from gfwtools.system.commands import Runner

__all__ = ["Way", "handshake_age", "own_mark", "received", "reverse_path_filter", "route", "rules"]


@dataclass(frozen=True, slots=True)
class Way:
    """What ``ip route get`` says; without a device there is none, and ``error`` says why."""

    device: str | None
    source: str | None = None
    gateway: str | None = None
    table: str | None = None
    error: str = ""

    def __str__(self) -> str:
        if self.device is None:
            return self.error or "no way"
        words = [f"dev {self.device}"]
        words += [f"via {self.gateway}"] if self.gateway else []
        words += [f"src {self.source}"] if self.source else []
        return " ".join(words)


def route(runner: Runner, address: Address, mark: int = 0) -> Way:
    """The way of a packet from this host to ``address``."""
    words = ["ip", "-j", "route", "get", str(address), *(["mark", f"{mark:#x}"] if mark else [])]
    text = runner.ask(*words)
    try:
        found = json.loads(text or "[]")[0]
        if found.get("type", "unicast") in ("unreachable", "prohibit", "blackhole"):
            return Way(None, error="refused by an unreachable route")
        table = found.get("table")
        return Way(str(found["dev"]), found.get("prefsrc"), found.get("gateway"), None if table is None else str(table))
    except (ValueError, LookupError):
        return Way(None, error="refused: unreachable")


def rules(runner: Runner, family: int) -> list[dict[str, Any]]:
    found = json.loads(runner.ask("ip", f"-{family}", "-N", "-j", "rule") or "[]")
    return found if isinstance(found, list) else []


def own_mark(runner: Runner, interface: str) -> int:
    """The mark that WireGuard sets on what it sends (wg(8), fwmark); 0 for none."""
    text = (runner.ask("wg", "show", interface, "fwmark") or "off").strip()
    return 0 if text == "off" else int(text, 0)


def handshake_age(runner: Runner, interface: str) -> int | None:
    """Seconds since the newest handshake with a peer; None where there was none."""
    text = runner.ask("wg", "show", interface, "latest-handshakes") or ""
    newest = max(map(int, re.findall(r"\t(\d+)$", text, re.MULTILINE)), default=0)
    return max(0, int(time.time()) - newest) if newest else None


def received(runner: Runner, interface: str) -> int:
    """Bytes that the tunnel's peers have sent us (wg(8), transfer)."""
    text = runner.ask("wg", "show", interface, "transfer") or ""
    return sum(map(int, re.findall(r"\t(\d+)\t\d+$", text, re.MULTILINE)))


def reverse_path_filter(runner: Runner, interface: str) -> int:
    """The filter in force: the larger of the interface's and that of all (ip-sysctl.rst)."""
    values = [0]
    for name in (interface, "all"):
        with suppress(ValueError):
            values.append(int(runner.ask("sysctl", "-n", f"net/ipv4/conf/{name}/rp_filter") or 0))
    return max(values)
