"""One packet as a firewall sees it, and the comparisons of netfilter's matches with it. Pure.

A comparison has three results: True, False, and None where the packet does not decide it. An address or a port that
is only known to lie in a range is compared as a whole. Where a rule takes only a part of the range, the result is
:attr:`Packet.partly`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gfwtools.config.model import Address, Network
from gfwtools.plumbing.facts import Family

__all__ = ["ALL_BITS", "Bits", "Packet", "Peer", "Truth", "both", "either", "opposite"]

#: None: the packet does not decide it.
Truth = bool | None
ALL_BITS = 0xFFFFFFFF
State = Literal["new", "established", "untracked"]


def opposite(truth: Truth) -> Truth:
    return None if truth is None else not truth


def both(one: Truth, other: Truth) -> Truth:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def either(truths: Iterable[Truth]) -> Truth:
    """Whether one of them is true, at least."""
    found = set(truths)
    return True if True in found else None if None in found else False


@dataclass(frozen=True, slots=True)
class Bits:
    """A mark of which some bits are known."""

    value: int = 0
    known: int = ALL_BITS

    def equals(self, value: int, mask: int = ALL_BITS) -> Truth:
        """Whether the mark and ``mask`` is ``value``."""
        if (self.value ^ value) & self.known & mask or value & ~mask:
            return False
        return True if mask & ~self.known == 0 else None

    def put(self, value: int, mask: int = ALL_BITS) -> "Bits":
        """The mark with the bits of ``mask`` zeroed, and ``value`` XORed into it (iptables-extensions(8), MARK)."""
        return Bits(((self.value & ~mask) ^ value) & ALL_BITS, self.known | mask)

    def copy(self, other: "Bits", own: int, others: int) -> "Bits":
        """The mark with the bits of ``own`` zeroed, and the bits ``others`` of another mark XORed into it."""
        value = (self.value & ~own) ^ (other.value & others)
        return Bits(value & ALL_BITS, (self.known | own) & (other.known | (ALL_BITS & ~others)))

    def merge(self, other: "Bits") -> "Bits":
        """What is known of a mark that is one of the two."""
        known = self.known & other.known & ~(self.value ^ other.value)
        return Bits(self.value & known, known)


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a connection: some address of ``network``, such as ``example``."""

    network: Network
    example: Address


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet at one hook of netfilter: of TCP, or a question to a resolver or its answer by UDP."""

    family: Family
    iif: str
    oif: str
    source: Peer
    destination: Peer
    sports: range
    dports: range
    flags: frozenset[str]
    """The TCP flags that are set: ``SYN``, ``ACK``."""
    state: State | None
    """Of its connection; None where a rule may have changed it."""
    mark: Bits = Bits()
    connection_mark: Bits = Bits(0, 0)
    protocol: int = 6
    """As in RFC 790: 6 is TCP, 17 is UDP."""
    reply: bool = False
    local: bool = False
    """This host itself sends it, or shall get it: sockets and their owners count then."""
    to_host: bool = False
    """Its destination is an address of this host; so is a reply before its translation back."""
    back: str | None = None
    """The interface by which packets to its source leave, as the reverse-path filter asks; None where not known."""
    partly: Truth = False
    """The result of a comparison that only a part of the possible addresses and ports pass."""

    def address(self, peer: Peer, network: Network) -> Truth:
        """Whether an end of the connection is in ``network``."""
        if peer.network.version != network.version:
            return False
        first, last = int(network.network_address), int(network.broadcast_address)
        return self._within(range(int(peer.network[0]), int(peer.network[-1]) + 1), first, last)

    def address_between(self, peer: Peer, first: Address, last: Address) -> Truth:
        """Whether an end of the connection is in the range, its ends included."""
        if peer.network.version != first.version:
            return False
        return self._within(range(int(peer.network[0]), int(peer.network[-1]) + 1), int(first), int(last))

    def port_between(self, ports: range, first: int, last: int) -> Truth:
        """Whether a port is in the range, its ends included."""
        return self._within(ports, first, last)

    def _within(self, possible: range, first: int, last: int) -> Truth:
        if first <= possible[0] and possible[-1] <= last:
            return True
        return self.partly if first <= possible[-1] and possible[0] <= last else False

    def merge(self, other: "Packet") -> "Packet":
        """What is known of a packet that is one of the two."""
        return replace(
            self,
            mark=self.mark.merge(other.mark),
            connection_mark=self.connection_mark.merge(other.connection_mark),
            state=self.state if self.state == other.state else None,
        )
