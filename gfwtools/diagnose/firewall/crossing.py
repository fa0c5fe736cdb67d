"""Does a connection of the LAN cross the firewall into the tunnel, and do its replies come back? Pure.

Two packets are judged: the first of a connection, and the answer to it. Each passes every base chain of its hooks, in
the order of their priorities.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from ipaddress import ip_address, ip_network

from gfwtools.config.model import Address
from gfwtools.diagnose.firewall.packet import Bits, Packet, Peer
from gfwtools.diagnose.firewall.walk import BaseChain, Judgement, judge
from gfwtools.diagnose.lan import Lan
from gfwtools.plumbing.facts import Family

__all__ = ["CLIENT_PORTS", "Crossing", "Passage", "Verdict", "crossings", "one_address", "passage"]

PORT = 443
#: What clients take (RFC 6335, section 6, and Linux, which begins at 32768).
CLIENT_PORTS = range(32768, 65536)
_HOOKS = ("ingress", "prerouting", "forward", "postrouting", "egress")
#: Where conntrack gives a reply its client's address again (linux/netfilter_ipv4.h, NF_IP_PRI_NAT_DST).
_TRANSLATION = -100


_UNKNOWN = Bits(0, 0)


class Verdict(Enum):
    """What becomes of a packet."""

    PASSES = "passes"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Passage:
    """One packet, its verdict, and the chains that stop it; or, where that is not known, the rules that may."""

    packet: Packet
    verdict: Verdict
    judged: tuple[Judgement, ...] = ()

    @property
    def title(self) -> str:
        packet = self.packet
        if packet.local:
            kind = "answers" if packet.reply else "questions"
            ends = f"from {packet.iif} to this host" if packet.iif else f"from this host to {packet.oif}"
            return f"{kind} {ends} (UDP port 53, IPv{packet.family})"
        kind = "replies" if packet.reply else "new connections"
        return f"{kind} from {packet.iif} to {packet.oif} (IPv{packet.family})"


@dataclass(frozen=True, slots=True)
class Crossing:
    """A way from the LAN into the tunnel."""

    family: Family
    lan: str
    tunnel: str
    client: Peer
    site: Peer
    mark: int
    translated: Address | None
    """The address that the tunnel's peer sees; None where that is the client's."""
    back: str | None
    """The interface of the route to the site without the mark: the reverse-path filter looks there."""
    connection_mark: Bits = _UNKNOWN
    """The bits that we save in the connection's mark."""

    def packets(self) -> Iterator[Packet]:
        yield Packet(
            family=self.family,
            iif=self.lan,
            oif=self.tunnel,
            source=self.client,
            destination=self.site,
            sports=CLIENT_PORTS,
            dports=range(PORT, PORT + 1),
            flags=frozenset({"SYN"}),
            state="new",
            back=self.lan,
        )
        yield Packet(
            family=self.family,
            iif=self.tunnel,
            oif=self.lan,
            source=self.site,
            destination=self.client,
            sports=range(PORT, PORT + 1),
            dports=CLIENT_PORTS,
            flags=frozenset({"SYN", "ACK"}),
            state="established",
            reply=True,
            back=self.back,
        )

    def passages(self, bases: Sequence[BaseChain]) -> list[Passage]:
        """Both packets through all base chains of the family."""
        return [passage(packet, partial(self._walk, bases)) for packet in self.packets()]

    def _walk(self, bases: Iterable[BaseChain], packet: Packet) -> list[Judgement]:
        """The verdict of each chain. A chain that stops the packet does not end this: there may be another one."""
        judged = []
        now = replace(packet, oif="")
        passed = (base for base in bases if base.hook in _HOOKS)
        for base in sorted(passed, key=lambda each: (_HOOKS.index(each.hook), each.priority)):
            inbound = base.hook in ("ingress", "prerouting")
            if base.hook in ("ingress", "egress") and (packet.iif if inbound else packet.oif) not in base.device:
                continue
            if not inbound and not now.oif:
                saved = now.connection_mark.put(self.connection_mark.value, self.connection_mark.known)
                now = replace(
                    now, oif=packet.oif, mark=now.mark if packet.reply else Bits(self.mark), connection_mark=saved
                )
            seen = now
            if packet.reply and self.translated and inbound and base.priority < _TRANSLATION:
                seen = replace(now, destination=one_address(self.translated), to_host=True)
            found = judge(base, seen)
            judged.append(found)
            after = found.packet
            now = replace(now, mark=after.mark, connection_mark=after.connection_mark, state=after.state)
        return judged


def passage(packet: Packet, walk: Callable[[Packet], list[Judgement]]) -> Passage:
    """What becomes of a packet.

    :param walk: has the verdict of each chain over a packet.
    """
    judged = walk(packet)
    stopped = tuple(found for found in judged if found.passes is False)
    if not stopped:
        open_ones = tuple(found for found in judged if found.passes is None)
        return Passage(packet, Verdict.UNKNOWN if open_ones else Verdict.PASSES, open_ones)
    # A client that no rule names is stopped. Rules that name some clients may let those pass.
    some = walk(replace(packet, partly=None))
    if any(found.passes is False for found in some):
        return Passage(packet, Verdict.BLOCKED, stopped)
    return Passage(packet, Verdict.UNKNOWN, tuple(found for found in some if found.passes is None))


def crossings(
    lan: Lan,
    tunnel: str,
    families: Iterable[Family],
    sites: Sequence[Address],
    mark: int,
    translated: Sequence[Address],
) -> list[Crossing]:
    """The ways of each family that the LAN has. ``back`` is not known yet.

    :param sites: addresses that go through the tunnel; of a family without one any address of the Internet is taken.
    :param translated: the addresses by which clients are known behind the tunnel.
    """
    found = []
    for family in families:
        own, example = lan.address(family), lan.client(family)
        if own is None or example is None:
            continue
        site = next((one_address(site) for site in sites if site.version == family), _SOMEWHERE[family])
        outer = next((address for address in translated if address.version == family), None)
        client = Peer(own.network, example)
        found.append(Crossing(family, lan.name, tunnel, client, site, mark, outer, None))
    return found


_SOMEWHERE = {
    4: Peer(ip_network("0.0.0.0/0"), ip_address("8.8.8.8")),
    6: Peer(ip_network("2000::/3"), ip_address("2001:4860:4860::8888")),
}


def one_address(address: Address) -> Peer:
    return Peer(ip_network(address), address)
