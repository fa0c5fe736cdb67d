"""Addresses that no site of the Internet has. The owner of a listed name may give it one of them."""

from collections.abc import Iterator
from ipaddress import ip_network

from gfwtools.config.model import Network, PolicyConfig

__all__ = ["NOT_SITES", "is_no_site", "refused_answers"]

#: This network, private and shared addresses (RFC 1918, 6598, 4193), loopback, link-local, multicast and reserved ones
#: (RFC 6890, 5771, 1112). Networks for documentation are nobody's to attack.
NOT_SITES: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.168.0.0/16", "224.0.0.0/3", "::/96", "fc00::/7", "fe80::/9", "ff00::/8"),
        ),
    )
)
#: IPv4 addresses in the form of IPv6 (RFC 4291, section 2.5.5.2): in an answer they may stand for a private one.
_IPV4_AS_IPV6 = ip_network("::ffff:0:0/96")


def is_no_site(network: Network) -> bool:
    """Whether no address of the network is a site's."""
    return any(_is_within(network, other) for other in NOT_SITES)


def refused_answers(policy: PolicyConfig) -> tuple[Network, ...]:
    """The networks that an answer for a listed name may not have.

    The user allows those that the policy names (``routes``, ``seeds``). A resolver with a private address is one of the
    other end, which knows names of private networks: then every answer is allowed.
    """
    if any(is_no_site(ip_network(upstream.address)) for upstream in policy.upstream):
        return ()
    found = [*NOT_SITES, _IPV4_AS_IPV6]
    for allowed in (*policy.routes, *policy.seeds):
        found = [left for network in found for left in _without(network, allowed)]
    return tuple(found)


def _without(network: Network, allowed: Network) -> Iterator[Network]:
    """The parts of a network that are not in ``allowed``: halves, and halves of those that have it."""
    if _is_within(network, allowed):
        return
    if not _is_within(allowed, network):
        yield network
        return
    for half in network.subnets():
        yield from _without(half, allowed)


def _is_within(network: Network, other: Network) -> bool:
    same = other.version == network.version and other.prefixlen <= network.prefixlen
    return same and network.network_address in other
