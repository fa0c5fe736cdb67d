"""What an update writes for a backend: the text of each, by its name. The kernel's half is plumbing.backend."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gfwtools.config.model import BackendName, Paths, PolicyConfig
from gfwtools.render import ipset, nftables
from gfwtools.render.sets import SetNames

__all__ = ["TEXTS", "Text"]


class Text(NamedTuple):
    """The text of a backend."""

    names: Callable[[PolicyConfig], SetNames]
    """The sets of a policy."""
    directive: str
    """dnsmasq's keyword, which ``dnsmasq --version`` names as an option."""
    seed: Callable[..., str]
    """The seed of a policy, from its networks and the date of the list."""
    seed_file: Callable[[Paths, str], Path]
    """Where the seed of a policy lies."""


#: In the order in which ``auto`` tries them: with iptables, others' rules and ours are seen in one listing.
TEXTS: Mapping[BackendName, Text] = {
    "iptables": Text(ipset.set_names, ipset.DIRECTIVE, ipset.seed, Paths.ipset),
    "nftables": Text(nftables.set_names, nftables.DIRECTIVE, nftables.seed, Paths.nft),
}
