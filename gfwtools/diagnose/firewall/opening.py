"""The command that lets a packet pass where a chain stops it. Pure.

A firewall that is managed by a program gets that program's own command: a rule beside it would go with its next reload.
"""

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from gfwtools.diagnose.firewall.packet import Packet
from gfwtools.diagnose.firewall.walk import Judgement

__all__ = ["Zone", "opening"]

_NAMES = {"prerouting": "PREROUTING", "forward": "FORWARD", "postrouting": "POSTROUTING"}


class Zone(NamedTuple):
    """firewalld's zone of an interface; the default zone has those that are in none."""

    name: str
    assigned: bool


def opening(found: Judgement, packet: Packet, zone: Callable[[str], Zone]) -> str:
    """What lets ``packet`` pass the chain of ``found``.

    :param zone: the zone of firewalld that an interface is in.
    """
    base, place = found.base, found.base.policy_place
    if packet.local:
        return _opening_for_questions(found, packet)
    lan, tunnel = (packet.oif, packet.iif) if packet.reply else (packet.iif, packet.oif)
    if any(name.startswith(("ufw-", "ufw6-")) for name in base.chains) and base.hook == "forward":
        return shlex.join(["ufw", "route", "allow", "in", "on", packet.iif, "out", "on", packet.oif])
    if place.table == "inet firewalld" or "FORWARD_direct" in base.chains or "FWDI_public" in base.chains:
        if base.hook == "forward":
            return _firewalld({name: zone(name) for name in (lan, tunnel)})
        # Its reverse-path filter: what comes by the tunnel has its route without the mark by the WAN.
        change = ["sed", "-i", "s/^IPv6_rpfilter=.*/IPv6_rpfilter=no/", "/etc/firewalld/firewalld.conf"]
        return f"{shlex.join(change)} && firewall-cmd --reload && gfwtools up"
    if place.program == "nft":
        words = ["nft", "insert", "rule", *place.table.split(), place.chain]
        words += ["iifname", _quoted(packet.iif)] if base.hook != "egress" else []
        words += ["oifname", _quoted(packet.oif)] if base.hook in ("forward", "postrouting", "egress") else []
        states = ["ct", "state", "established,related"] if packet.reply and base.hook == "forward" else []
        return shlex.join([*words, *states, "accept"])
    words = [place.program, *(["-t", place.table] if place.table != "filter" else [])]
    # Docker puts its own rules before others at each start, but for those of this chain.
    own = "DOCKER-USER" in base.chains and base.hook == "forward" and place.table == "filter"
    words += ["-I", "DOCKER-USER" if own else _NAMES[base.hook]]
    words += ["-i", packet.iif] if base.hook != "postrouting" else []
    words += ["-o", packet.oif] if base.hook != "prerouting" else []
    states = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"] if packet.reply and base.hook == "forward" else []
    return shlex.join([*words, *states, "-j", "ACCEPT"])


def _opening_for_questions(found: Judgement, packet: Packet) -> str:
    """The same for a question to a resolver or its answer, which this host sends or gets."""
    base, place = found.base, found.base.policy_place
    by, interface = ("iif", packet.iif) if packet.iif else ("oif", packet.oif)
    port, number = ("sport", packet.sports[0]) if packet.reply else ("dport", packet.dports[0])
    if any(name.startswith(("ufw-", "ufw6-")) for name in base.chains) and not packet.reply and packet.iif:
        return shlex.join(["ufw", "allow", "in", "on", interface, "to", "any", "port", str(number)])
    if place.table == "inet firewalld" and packet.iif and not packet.reply:
        zone = f"$(firewall-cmd --get-zone-of-interface={shlex.quote(interface)})"
        return f"firewall-cmd --permanent --zone={zone} --add-service=dns && firewall-cmd --reload && gfwtools up"
    if place.program == "nft":
        words = ["nft", "insert", "rule", *place.table.split(), place.chain]
        words += [f"{by}name", _quoted(interface)] if base.hook != "output" else []
        return shlex.join([*words, "udp", port, str(number), "accept"])
    words = [place.program, *(["-t", place.table] if place.table != "filter" else []), "-I", base.hook.upper()]
    words += [f"-{by[0]}", interface] if base.hook != "output" else []
    return shlex.join([*words, "-p", "udp", f"--{port}", str(number), "-j", "ACCEPT"])


def _quoted(interface: str) -> str:
    """An interface as nft reads it: a name that could be anything else is a string."""
    return interface if re.fullmatch(r"[A-Za-z][\w.-]*", interface) else f'"{interface}"'


def _firewalld(zones: dict[str, Zone]) -> str:
    """A policy of firewalld from the LAN's zone to the tunnel's (firewalld.policies(5)); replies need none.

    firewalld leaves out a policy for a zone without an interface: each gets its own. Its reload removes all rules of
    iptables, also ours.
    """
    lan, tunnel = zones.values()
    options = [
        *([f"--zone={zone.name}", f"--change-interface={name}"] for name, zone in zones.items() if not zone.assigned),
        ["--new-policy=gfwtools"],
        ["--policy=gfwtools", f"--add-ingress-zone={lan.name}"],
        ["--policy=gfwtools", f"--add-egress-zone={tunnel.name}"],
        ["--policy=gfwtools", "--set-target=ACCEPT"],
    ]
    commands = [["firewall-cmd", "--permanent", *each] for each in options]
    return " && ".join(map(shlex.join, [*commands, ["firewall-cmd", "--reload"], ["gfwtools", "up"]]))
