"""What a version of dnsmasq can do."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from gfwtools.config.model import Config

if TYPE_CHECKING:
    from gfwtools.system.commands import Runner

__all__ = ["FILTERS", "filters", "filters_here", "version_of"]

#: The first one with ``filter-rr``. ``bogus-nxdomain`` takes networks of both families for some versions longer.
FILTERS = (2, 90)


def version_of(runner: "Runner") -> tuple[int, int] | None:
    """The version of the dnsmasq that is installed; None without one."""
    found = re.search(r"\bversion (\d+)\.(\d+)", runner.ask("dnsmasq", "--version") or "", re.IGNORECASE)
    return (int(found[1]), int(found[2])) if found else None


def filters(version: tuple[int, int] | None) -> bool:
    """Whether that dnsmasq can leave out records of a type, and refuse an answer by its network."""
    return version is not None and version >= FILTERS


def filters_here(config: Config) -> bool:
    """:func:`filters` of this host, where the files need it. Its dnsmasq says nothing about another root."""
    if config.dns.layout != "split" or config.root != Path("/"):
        return False
    from gfwtools.system.commands import System

    return filters(version_of(System()))
