"""What a version of dnsmasq can do."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gfwtools.config.model import Config

if TYPE_CHECKING:
    from gfwtools.system.commands import Runner

__all__ = ["FILTERS", "filters", "filters_here", "shortcomings", "version_of"]

#: The first one with ``filter-rr``. ``bogus-nxdomain`` takes networks of both families for some versions longer.
FILTERS = (2, 90)


def version_of(runner: "Runner") -> tuple[int, int] | None:
    """The version of the dnsmasq that is installed; None without one."""
    found = re.search(r"\bversion (\d+)\.(\d+)", runner.ask("dnsmasq", "--version") or "", re.IGNORECASE)
    return (int(found[1]), int(found[2])) if found else None


def filters(version: tuple[int, int] | None) -> bool:
    """Whether that dnsmasq can leave out records of a type, and refuse an answer by its network."""
    return version is not None and version >= FILTERS


def shortcomings(config: Config, version: tuple[int, int] | None) -> list[str]:
    """What that dnsmasq is too old for, in words."""
    if version is None or filters(version) or config.dns.https_records:
        return []
    found, needed = (".".join(map(str, number)) for number in (version, FILTERS))
    lost = " and lets private addresses of blocked domains through" if config.dns.layout == "split" else ""
    what = f"it lets HTTPS records through, whose addresses are in no set{lost}"
    return [f"dnsmasq {found}: {what}; install dnsmasq {needed} or later"]


def filters_here(config: Config) -> bool:
    """:func:`filters` of this host, where the files need it. Its dnsmasq says nothing about another root."""
    if config.dns.layout != "split" or config.root != Path("/"):
        return False
    from gfwtools.system.commands import System

    return filters(version_of(System()))
