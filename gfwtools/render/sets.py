"""The sets of a policy in a backend as values: their names, and how dnsmasq's configuration names them."""

from typing import NamedTuple

__all__ = ["SetNames"]


class SetNames(NamedTuple):
    """The names of a policy's sets. Where there is one for each family, IPv4 comes first."""

    directive: str
    """dnsmasq's keyword: ``ipset`` or ``nftset``."""
    learned: tuple[str, ...]
    """Those that dnsmasq fills. Packets to their addresses are marked."""
    seeds: tuple[str, ...]
    """Those with what is there before any answer; marked too. With ipset they are the same sets."""
    direct: tuple[str, ...]
    """Those for the addresses of exceptions, which nothing marks. ipset has one, for IPv4."""
    value: str
    """What stands behind the domain in a line of the directive. Both families: dnsmasq uses one line a domain."""
    direct_value: str
    """The same for an exception: dnsmasq demands a set there as well."""

    @property
    def marked(self) -> tuple[str, ...]:
        """Every set whose packets are marked."""
        return tuple(dict.fromkeys((*self.learned, *self.seeds)))

    def marked_in(self, family: int) -> tuple[str, ...]:
        """Of :attr:`marked`, those that hold addresses of the family."""
        index = 0 if family == 4 else 1
        return tuple(dict.fromkeys((self.learned[index], self.seeds[index])))

    def direct_in(self, family: int) -> tuple[str, ...]:
        """Of :attr:`direct`, those that hold addresses of the family."""
        return self.direct[:1] if family == 4 else self.direct[1:]
