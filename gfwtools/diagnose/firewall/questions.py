"""Do questions to resolvers pass the firewall: the LAN's to this host, and this host's into a tunnel? Pure.

They pass other hooks than what is forwarded: INPUT and OUTPUT.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_network

from gfwtools.config.model import Address
from gfwtools.diagnose.firewall.crossing import CLIENT_PORTS, Passage, one_address, passage
from gfwtools.diagnose.firewall.packet import Bits, Packet, Peer
from gfwtools.diagnose.firewall.walk import BaseChain, Judgement, judge
from gfwtools.diagnose.lan import Lan
from gfwtools.plumbing.facts import Family

__all__ = ["from_lan", "into_tunnel"]

_UDP, PORT = 17, 53
_IN, _OUT = ("ingress", "prerouting", "input"), ("output", "postrouting", "egress")
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def from_lan(bases: Sequence[BaseChain], lan: Lan, family: Family) -> Passage | None:
    """A question of a LAN client to this host's dnsmasq; None where the LAN has no address of the family."""
    own, client = lan.address(family), lan.client(family)
    if own is None or client is None:
        return None
    packet = _question(family, Peer(own.network, client), one_address(own.ip), PORT)
    packet = replace(packet, iif=lan.name, to_host=True, back=lan.name)
    return passage(packet, partial(_walk, bases, _IN))


def into_tunnel(
    bases: Sequence[BaseChain], resolver: Address, port: int, tunnel: str, outer: str, mark: int
) -> list[Passage]:
    """This host's question to a clean resolver, and its answer.

    :param outer: the interface of the route without the mark: OUTPUT sees it also where the mark changes the route,
        and what comes behind OUTPUT sees the tunnel.
    """
    family: Family = 6 if resolver.version == 6 else 4
    own = Peer(_EVERYWHERE[family], _EVERYWHERE[family][1])
    asked = replace(_question(family, own, one_address(resolver), port), oif=outer, mark=Bits(mark))
    answer = replace(
        asked,
        iif=tunnel,
        oif="",
        source=asked.destination,
        destination=asked.source,
        sports=asked.dports,
        dports=asked.sports,
        state="established",
        mark=Bits(),
        reply=True,
        to_host=True,
    )
    there = passage(asked, partial(_walk, bases, _OUT, routed=tunnel))
    there = replace(there, packet=replace(asked, oif=tunnel))
    return [there, passage(answer, partial(_walk, bases, _IN))]


def _question(family: Family, source: Peer, destination: Peer, port: int) -> Packet:
    return Packet(
        family=family,
        iif="",
        oif="",
        source=source,
        destination=destination,
        sports=range(1024, CLIENT_PORTS[-1] + 1),
        dports=range(port, port + 1),
        flags=frozenset(),
        state="new",
        protocol=_UDP,
        local=True,
    )


def _walk(bases: Sequence[BaseChain], hooks: Sequence[str], packet: Packet, routed: str = "") -> list[Judgement]:
    """The verdict of each chain.

    :param routed: the interface by which a packet of this host leaves once it is routed again, behind OUTPUT.
    """
    passed = [base for base in bases if base.hook in hooks]
    judged = []
    for base in sorted(passed, key=lambda each: (hooks.index(each.hook), each.priority)):
        if routed and base.hook != "output":
            packet = replace(packet, oif=routed)
        if base.device and (packet.iif or packet.oif) not in base.device:
            continue
        found = judge(base, packet)
        judged.append(found)
        after = found.packet
        packet = replace(packet, mark=after.mark, connection_mark=after.connection_mark, state=after.state)
    return judged
