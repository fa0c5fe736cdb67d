"""Input of ``nft -f`` (nft(8)): the sets of a policy in table ``inet gfwtools`` and their seed.

The networks of the seed have a set of their own with ``flags interval``; the one that dnsmasq fills must not be an
interval set, where an address inside a network that is there already is an error.
"""

from collections.abc import Iterable

from gfwtools.config.model import Network, PolicyConfig
from gfwtools.render.header import header
from gfwtools.render.ipset import seed_networks

__all__ = ["TABLE", "declarations", "dnsmasq_direct_sets", "dnsmasq_sets", "seed"]

TABLE = "inet gfwtools"
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}


def dnsmasq_sets(policy: PolicyConfig) -> str:
    """Behind the domain in an ``nftset=`` line."""
    return _both(policy.set)


def dnsmasq_direct_sets(policy: PolicyConfig) -> str:
    """The same for exceptions."""
    return _both(policy.direct_set)


def _both(name: str) -> str:
    table = TABLE.replace(" ", "#")
    return f"4#{table}#{name}4,6#{table}#{name}6"


def declarations(policy: PolicyConfig) -> list[str]:
    """The table and the sets of a policy; ``add`` of what is there already is no error."""
    lines = [f"add table {TABLE}"]
    for family, kind in _TYPES.items():
        lines.append(f"add set {TABLE} {policy.set}{family} {{ type {kind}; }}")
        lines.append(f"add set {TABLE} {policy.set}_seed{family} {{ type {kind}; flags interval; auto-merge; }}")
        lines.append(f"add set {TABLE} {policy.direct_set}{family} {{ type {kind}; }}")
    return lines


def seed(policy: PolicyConfig, networks: Iterable[Network], *, list_date: str = "") -> str:
    """The seed file: one transaction replaces the seed sets, and what dnsmasq has learned stays.

    :param networks: the addresses of the lists' IP rules; the rest comes from ``policy``.
    """
    lines = declarations(policy)
    wanted = seed_networks(policy, networks)
    for family in _TYPES:
        name = f"{policy.set}_seed{family}"
        lines.append(f"flush set {TABLE} {name}")
        elements = ", ".join(str(network) for network in wanted if network.version == family)
        if elements:
            lines.append(f"add element {TABLE} {name} {{ {elements} }}")
    body = "".join(f"{line}\n" for line in lines)
    return header(f"policy {policy.name}, seed for: nft -f", list_date, body) + body
