"""Addresses that no site of the Internet has, as data: neither a list nor a redirect of a mirror leads there."""

from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from gfwtools.config.model import Network

__all__ = ["has_no_site", "is_inside", "share_of_internet"]

# RFC 6890, in the words of IANA's registries. Documentation and benchmarking networks are left out: nothing is there to
# be protected, and laboratories use them.
_NO_SITES_4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private (RFC 1918)",
    "100.64.0.0/10": "a provider's own (RFC 6598)",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private (RFC 1918)",
    "192.168.0.0/16": "private (RFC 1918)",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, and broadcast",
}
_NO_SITES_6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "64:ff9b:1::/48": "a network's own translator (RFC 8215)",
    "fc00::/7": "unique local (RFC 4193)",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local (RFC 3879)",
    "ff00::/8": "multicast",
}
#: An IPv4 address in IPv6's clothes is no more a site than it is without: RFC 4291 section 2.5.5, SIIT (RFC 7915),
#: NAT64 (RFC 6052), 6to4 (RFC 3056).
_DRESSED = ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "2002::/16")


@cache
def _spans(version: int) -> tuple[tuple[int, int], ...]:
    """The first and the last address of what can be no site's."""
    networks: list[Network] = [IPv4Network(text) for text in _NO_SITES_4]
    if version == 6:
        dressed = [
            IPv6Network(
                (
                    int(prefix.network_address) | int(network.network_address) << (96 - prefix.prefixlen),
                    prefix.prefixlen + network.prefixlen,
                )
            )
            for network in networks
            for prefix in map(IPv6Network, _DRESSED)
        ]
        networks = [*map(IPv6Network, _NO_SITES_6), *dressed]
    return tuple((int(network.network_address), int(network.broadcast_address)) for network in networks)


def has_no_site(network: Network) -> bool:
    """Whether ``network`` has an address that can be no site's of the Internet."""
    low, high = int(network.network_address), int(network.broadcast_address)
    return any(first <= high and low <= last for first, last in _spans(network.version))


def is_inside(address: str) -> bool:
    """Whether ``address`` is one of this host, its LAN or its provider; False for a text that is no address."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    number = int(found)
    return any(first <= number <= last for first, last in _spans(found.version))


def share_of_internet(networks: "list[Network]") -> dict[int, float]:
    """The share of the addresses that sites can have which ``networks`` cover, by version.

    IPv6's are those of 2000::/3, from which all are given out so far (RFC 4291 section 2.4).
    """
    shares = {}
    for version, all_of_them in ((4, 2**32), (6, 2**125)):
        covered, end = 0, -1
        for low, high in sorted(
            (int(network.network_address), int(network.broadcast_address))
            for network in networks
            if network.version == version
        ):
            covered += max(0, high - max(low, end + 1) + 1)
            end = max(end, high)
        shares[version] = covered / all_of_them
    return shares
