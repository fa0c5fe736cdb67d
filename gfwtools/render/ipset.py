"""Input of ``ipset restore`` (ipset(8)): the sets of a policy and the addresses that are in them from the start."""

from collections.abc import Iterable

from gfwtools.config.model import Network, PolicyConfig
from gfwtools.render.header import header
from gfwtools.render.sets import SetNames

__all__ = ["DIRECTIVE", "creates", "in_set_order", "seed", "seed_networks", "set_names"]

#: dnsmasq's keyword for these sets.
DIRECTIVE = "ipset"

# hash:net takes single addresses from dnsmasq and networks from the seed alike. With -exist a set must have been made
# with these very options, or ipset refuses: one place says them. 65,536 elements, the default, is less than a year of a
# busy gateway's answers.
OPTIONS = "hashsize 4096 maxelem 1048576"


def set_names(policy: PolicyConfig) -> SetNames:
    """The sets of a policy: IPv4, IPv6, and one for exceptions. What is learned and the seed are in the same ones."""
    both = (policy.set, policy.set6)
    return SetNames(DIRECTIVE, both, both, (policy.direct_set,), ",".join(both), policy.direct_set)


def creates(policy: PolicyConfig) -> list[str]:
    """One ``create`` line a set: IPv4, IPv6, and the one for exceptions."""
    return [
        f"create {policy.set} hash:net family inet {OPTIONS} -exist",
        f"create {policy.set6} hash:net family inet6 {OPTIONS} -exist",
        f"create {policy.direct_set} hash:net family inet {OPTIONS} -exist",
    ]


def seed_networks(policy: PolicyConfig, networks: Iterable[Network]) -> list[Network]:
    """What is in the set before any answer: the clean resolvers, the lists' own addresses, the user's seeds."""
    from ipaddress import ip_network

    resolvers = [ip_network(upstream.address) for upstream in policy.upstream]
    return in_set_order({*resolvers, *networks, *policy.seeds})


def in_set_order(networks: Iterable[Network]) -> list[Network]:
    """IPv4 before IPv6, each by number."""
    return sorted(networks, key=lambda network: (network.version, int(network.network_address), network.prefixlen))


def seed(policy: PolicyConfig, networks: Iterable[Network], *, list_date: str = "") -> str:
    """The seed file: loading it twice, or over a set that dnsmasq has filled, is no error and loses nothing.

    :param networks: the addresses of the lists' IP rules; the rest comes from ``policy``.
    """
    lines = creates(policy)
    for network in seed_networks(policy, networks):
        name = policy.set if network.version == 4 else policy.set6
        address = network.network_address if network.prefixlen == network.max_prefixlen else network
        lines.append(f"add {name} {address} -exist")
    body = "".join(f"{line}\n" for line in lines)
    return header(f"policy {policy.name}, seed for: ipset restore", list_date, body) + body
