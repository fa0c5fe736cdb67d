"""Input of ``nft -f`` (nft(8)): the sets of a policy in table ``inet gfwtools`` and their seed.

The networks of the seed have a set of their own with ``flags interval``; the one that dnsmasq fills must not be an
interval set, where an address inside a network that is there already is an error.
"""

from collections.abc import Iterable

from gfwtools.config.model import Network, PolicyConfig
from gfwtools.render.header import header
from gfwtools.render.ipset import seed_networks
from gfwtools.render.sets import SetNames

__all__ = ["DIRECTIVE", "TABLE", "declarations", "seed", "set_names"]

#: dnsmasq's keyword for these sets.
DIRECTIVE = "nftset"

TABLE = "inet gfwtools"
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}


def set_names(policy: PolicyConfig) -> SetNames:
    """The sets of a policy, each of them once a family."""
    learned, seeds, direct = (
        tuple(f"{name}{family}" for family in _TYPES) for name in (policy.set, f"{policy.set}_seed", policy.direct_set)
    )
    return SetNames(DIRECTIVE, learned, seeds, direct, _both(learned), _both(direct))


def _both(names: Iterable[str]) -> str:
    table = TABLE.replace(" ", "#")
    return ",".join(f"{family}#{table}#{name}" for family, name in zip(_TYPES, names, strict=True))


def declarations(policy: PolicyConfig) -> list[str]:
    """The table and the sets of a policy; ``add`` of what is there already is no error."""
    lines = [f"add table {TABLE}"]
    names = set_names(policy)
    for kind, learned, seed, direct in zip(_TYPES.values(), names.learned, names.seeds, names.direct, strict=True):
        lines.append(f"add set {TABLE} {learned} {{ type {kind}; }}")
        lines.append(f"add set {TABLE} {seed} {{ type {kind}; flags interval; auto-merge; }}")
        lines.append(f"add set {TABLE} {direct} {{ type {kind}; }}")
    return lines


def seed(policy: PolicyConfig, networks: Iterable[Network], *, list_date: str = "") -> str:
    """The seed file: one transaction replaces the seed sets, and what dnsmasq has learned stays.

    :param networks: the addresses of the lists' IP rules; the rest comes from ``policy``.
    """
    lines = declarations(policy)
    wanted = seed_networks(policy, networks)
    for family, name in zip(_TYPES, set_names(policy).seeds, strict=True):
        lines.append(f"flush set {TABLE} {name}")
        elements = ", ".join(str(network) for network in wanted if network.version == family)
        if elements:
            lines.append(f"add element {TABLE} {name} {{ {elements} }}")
    body = "".join(f"{line}\n" for line in lines)
    return header(f"policy {policy.name}, seed for: nft -f", list_date, body) + body
