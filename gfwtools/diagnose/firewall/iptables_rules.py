"""The rules of iptables, as ``iptables-save`` lists them, for one packet. Pure.

A rule is read as far as it is understood. A match that is not understood may be true or false; a target that is not
understood may let the packet pass or not.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import NamedTuple

from gfwtools.diagnose.firewall.packet import ALL_BITS, Bits, Packet, Truth, both, either, opposite
from gfwtools.diagnose.firewall.walk import BaseChain, Chain, Jump, Place, Reading, Rule, Verb
from gfwtools.system import ownership

__all__ = ["Sets", "parse", "variant"]

#: Whether an ipset holds what a packet has there: the set, and src or dst for each of its dimensions.
Sets = Callable[[str, tuple[str, ...], Packet], Truth]

#: Table -> its place at a hook (linux/netfilter_ipv4.h). The table nat lets every packet pass.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_VERBS = {"ACCEPT": Verb.ACCEPT, "DROP": Verb.DROP, "REJECT": Verb.REJECT, "RETURN": Verb.RETURN}
#: Targets behind which the packet meets the next rule.
_PASSES_BY = frozenset(
    (
        *(
            "AUDIT",
            "CHECKSUM",
            "CLASSIFY",
            "CONNMARK",
            "CONNSECMARK",
            "CT",
            "DSCP",
            "FLOWOFFLOAD",
            "HL",
            "HMARK",
            "LED",
        ),
        *("IDLETIMER", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE"),
        *("TOS", "TRACE", "TTL", "ULOG"),
    )
)
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "icmpv6": 58, "all": 0}
_TCP_FLAGS = frozenset({"SYN", "ACK", "FIN", "RST", "URG", "PSH"})


class Option(NamedTuple):
    """One option of a match: ``--dport 443`` is ("--dport", False, ["443"])."""

    name: str
    negated: bool
    words: list[str]


@dataclass(frozen=True, slots=True)
class _Line:
    """A rule in its parts."""

    basic: list[Option]
    """-i, -o, -p, -s, -d, -f"""
    modules: list[tuple[str, list[Option]]]
    target: str
    final: bool
    options: list[str]
    """Those of the target."""


def variant(text: str) -> str:
    """Which iptables a listing is of: ``nf_tables`` or ``legacy``; empty where it lists no table."""
    if not any(line.startswith("*") for line in text.splitlines()):
        return ""
    return "nf_tables" if "(nf_tables)" in text.partition("\n")[0] else "legacy"


def parse(text: str, program: str, holds: Sets) -> list[BaseChain]:
    """The base chains of all hooks.

    :param program: what changes these rules, such as ``ip6tables``.
    """
    tables: dict[str, tuple[dict[str, str], dict[str, list[str]]]] = {}
    policies: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            policies, rules = tables.setdefault(line[1:].strip(), ({}, {}))
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            policies[name] = policy
            rules.setdefault(name, [])
        elif line.startswith("-A ") and not _is_own_stop(line):
            rules.setdefault(line.split(None, 2)[1], []).append(line)
    bases = []
    for table, (policies, rules) in tables.items():
        if table not in _PRIORITIES:
            continue
        chains = {
            name: Chain(name, [_rule(line, Place(program, table, name, line), rules, holds) for line in lines])
            for name, lines in rules.items()
        }
        for name, hook in _HOOKS.items():
            if name in chains:
                policy = policies.get(name, "ACCEPT")
                place = Place(program, table, name, f"-P {name} {policy}")
                verb = _VERBS.get(policy, Verb.ACCEPT)
                bases.append(BaseChain(hook, _PRIORITIES[table], chains[name], verb, place, chains))
    return bases


def _is_own_stop(line: str) -> bool:
    """Whether a rule is ours and stops what it matches: by another way than the tunnel, too often or from outside.

    None of them keeps a network from the Internet, and none is to be opened. Of nft our table is left out.
    """
    with suppress(ValueError):  # a quotation without an end
        return line.endswith(" -j DROP") and ownership.TAG in line and ownership.is_rule(line)
    return False


def _rule(line: str, place: Place, chains: Mapping[str, object], holds: Sets) -> Rule:
    try:
        parts = _split(shlex.split(line)[2:])
    except (ValueError, IndexError):  # a quotation without an end
        return Rule(place, _not_understood)
    return Rule(place, partial(_read, parts, frozenset(chains), holds))


def _not_understood(packet: Packet) -> Reading:
    return Reading(packet, (Verb.ANYTHING,), certain=False)


def _split(words: Sequence[str]) -> _Line:
    basic: list[Option] = []
    modules: list[tuple[str, list[Option]]] = []
    negated = False
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word in ("-j", "-g"):
            return _Line(basic, modules, words[place], word == "-g", list(words[place + 1 :]))
        if word == "!":
            negated = True
            continue
        if word == "-m":
            modules.append((words[place], []))
            place += 1
            continue
        values: list[str] = []
        while place < len(words) and (
            # A comment may look like an option.
            (word == "--comment" and not values)
            or not (words[place] == "!" or (words[place].startswith("-") and len(words[place]) > 1))
        ):
            values.append(words[place])
            place += 1
        option = Option(word, negated, values)
        negated = False
        if word.startswith("--") and modules:
            modules[-1][1].append(option)
        else:
            basic.append(option)
    return _Line(basic, modules, "", False, [])


def _read(line: _Line, chains: frozenset[str], holds: Sets, packet: Packet) -> Reading:
    truth: Truth = True
    for option in line.basic:
        truth = both(truth, _negated(option, _basic(option, packet)))
        if truth is False:
            return Reading(packet)
    for module, options in line.modules:
        truth = both(truth, _module(module, options, packet, holds))
        if truth is False:
            return Reading(packet)
    certain = truth is True
    if line.target in chains:
        return Reading(packet, (Jump(line.target, line.final),), certain)
    if line.target in _VERBS:
        return Reading(packet, (_VERBS[line.target],), certain)
    if not line.target or line.target in _PASSES_BY:
        changed = _changed(line.target, line.options, packet)
        return Reading(changed if certain else packet.merge(changed))
    return Reading(packet, (Verb.ANYTHING,), certain)


def _negated(option: Option, truth: Truth) -> Truth:
    return opposite(truth) if option.negated else truth


# ---------------------------------------------------------------- what a rule compares


def _basic(option: Option, packet: Packet) -> Truth:
    if not option.words:
        return False if option.name == "-f" else None  # -f: the second fragment of a packet, and later ones
    value = option.words[0]
    match option.name:
        case "-i":
            return _interface(value, packet.iif)
        case "-o":
            return _interface(value, packet.oif)
        case "-p":
            number = _PROTOCOLS.get(value, int(value) if value.isdecimal() else -1)
            return number in (0, packet.protocol)  # another name is another protocol's
        case "-s" | "-d":
            try:
                network = ip_network(value, strict=False)
            except ValueError:  # a mask with holes
                return None
            return packet.address(packet.source if option.name == "-s" else packet.destination, network)
    return None


def _interface(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _module(name: str, options: Sequence[Option], packet: Packet, holds: Sets) -> Truth:
    """Whether a match is true for the packet: each of its options must be."""
    match name:
        case "rpfilter":
            return _rpfilter(options, packet)
        case "set":
            return _sets(options, packet, holds)
        case "socket":  # a forwarded packet belongs to no program of this host
            return None if packet.local else False
        case "tcp" | "udp" if packet.protocol != _PROTOCOLS[name]:
            return False
        case "icmp" | "icmp6" | "sctp" | "dccp" | "ah" | "esp" | "udplite" | "rt" | "frag" | "hbh" | "dst" | "mh":
            return False
    compare = _MODULES.get(name)
    if compare is None:
        return None
    truth: Truth = True
    for option in options:
        found: Truth = None
        with suppress(ValueError, IndexError):
            found = compare(option, packet)
        truth = both(truth, _negated(option, found))
    return truth


def _comment(option: Option, packet: Packet) -> Truth:
    return True


def _tcp(option: Option, packet: Packet) -> Truth:
    match option.name:
        case "--dport" | "--sport":
            return _ports(option.words[0], packet.dports if option.name == "--dport" else packet.sports, packet)
        case "--tcp-flags":
            mask, wanted = (_flags(word) for word in option.words)
            return packet.flags & mask == wanted
        case "--syn":
            return packet.flags & {"SYN", "RST", "ACK", "FIN"} == {"SYN"}
    return None


def _flags(word: str) -> frozenset[str]:
    return _TCP_FLAGS if word == "ALL" else frozenset(word.split(",")) - {"NONE"}


def _ports(text: str, ports: range, packet: Packet) -> Truth:
    first, _, last = text.partition(":")
    return packet.port_between(ports, int(first or 0), int(last or 65535) if ":" in text else int(first))


def _multiport(option: Option, packet: Packet) -> Truth:
    sides = {"--dports": [packet.dports], "--sports": [packet.sports], "--ports": [packet.sports, packet.dports]}
    if option.name not in sides:
        return None
    return either(_ports(port, side, packet) for side in sides[option.name] for port in option.words[0].split(","))


def _conntrack(option: Option, packet: Packet) -> Truth:
    match option.name:
        case "--ctstate" | "--state":
            return either(_state(state, packet) for state in option.words[0].split(","))
        case "--ctdir":
            return option.words[0] == ("REPLY" if packet.reply else "ORIGINAL")
        case "--ctproto":
            return _PROTOCOLS.get(option.words[0], option.words[0]) in (packet.protocol, str(packet.protocol))
        case "--ctstatus" if option.words[0] == "CONFIRMED":  # a connection is when its first packet leaves the host
            return packet.reply
        case "--ctorigdstport":
            return _ports(option.words[0], packet.sports if packet.reply else packet.dports, packet)
    return None


def _state(state: str, packet: Packet) -> Truth:
    match state:
        case "NEW" | "ESTABLISHED" | "UNTRACKED":
            return None if packet.state is None else packet.state == state.lower()
        case "INVALID" | "RELATED" | "DNAT":  # its destination is the site's
            return None if packet.state is None else False
        case "SNAT" if not packet.reply:  # that comes behind the last hook but one
            return False
    return None


def _mark(bits: Callable[[Packet], Bits], option: Option, packet: Packet) -> Truth:
    if option.name != "--mark":
        return None
    value, mask = _value_and_mask(option.words[0])
    return bits(packet).equals(value, mask)


def _value_and_mask(text: str) -> tuple[int, int]:
    value, _, mask = text.partition("/")
    return int(value, 0), int(mask, 0) if mask else ALL_BITS


def _addrtype(option: Option, packet: Packet) -> Truth:
    if option.name not in ("--dst-type", "--src-type"):
        return True if option.name in ("--limit-iface-in", "--limit-iface-out") else None
    if option.name == "--src-type" and packet.local and not packet.iif:
        return either(kind == "LOCAL" for kind in option.words[0].split(","))
    local = packet.to_host and option.name == "--dst-type"
    return either(kind == ("LOCAL" if local else "UNICAST") for kind in option.words[0].split(","))


def _iprange(option: Option, packet: Packet) -> Truth:
    first, last = map(ip_address, option.words[0].split("-"))
    if option.name not in ("--src-range", "--dst-range"):
        return None
    return packet.address_between(packet.source if option.name == "--src-range" else packet.destination, first, last)


def _mac(option: Option, packet: Packet) -> Truth:
    # One client of the LAN; the tunnel has no such addresses.
    return False if packet.reply else packet.partly


def _pkttype(option: Option, packet: Packet) -> Truth:
    return option.words[0] in ("unicast", "host")


def _physdev(option: Option, packet: Packet) -> Truth:
    return False if option.name == "--physdev-is-bridged" else None  # it is routed


def _policy(option: Option, packet: Packet) -> Truth:
    match option.name:
        case "--dir":
            return True
        case "--pol":  # neither the LAN nor the tunnel is IPsec's
            return option.words[0] == "none"
    return None


_MODULES: Mapping[str, Callable[[Option, Packet], Truth]] = {
    "addrtype": _addrtype,
    "comment": _comment,
    "connmark": partial(_mark, lambda packet: packet.connection_mark),
    "conntrack": _conntrack,
    "iprange": _iprange,
    "mac": _mac,
    "mark": partial(_mark, lambda packet: packet.mark),
    "multiport": _multiport,
    "physdev": _physdev,
    "pkttype": _pkttype,
    "policy": _policy,
    "state": _conntrack,
    "tcp": _tcp,
    "udp": _tcp,
}


def _rpfilter(options: Sequence[Option], packet: Packet) -> Truth:
    names = {option.name for option in options}
    if packet.back is None or names - {"--invert", "--loose", "--validmark", "--accept-local"}:
        return None
    passes = bool(packet.back) if "--loose" in names else packet.back == packet.iif
    return passes != ("--invert" in names)


def _sets(options: Sequence[Option], packet: Packet, holds: Sets) -> Truth:
    truth: Truth = True
    for option in options:
        if option.name != "--match-set" or len(option.words) != 2:
            return None
        sides = tuple(option.words[1].split(","))
        ends = {"src": packet.source, "dst": packet.destination}
        vague = any(side in ends and ends[side].network.num_addresses > 1 for side in sides)
        found = None if vague and packet.partly is None else holds(option.words[0], sides, packet)
        truth = both(truth, _negated(option, found))
    return truth


# ---------------------------------------------------------------- what a rule changes


def _changed(target: str, options: Sequence[str], packet: Packet) -> Packet:
    """The packet behind a target that lets it go on."""
    values = dict(pairwise(options))
    if target == "NOTRACK" or (target == "CT" and "--notrack" in options):
        return replace(packet, state="untracked")
    if target not in ("MARK", "CONNMARK"):
        return packet
    try:
        nfmask, ctmask = (int(values.get(name, "0xffffffff"), 0) for name in ("--nfmask", "--ctmask"))
        if "--set-xmark" in values:
            value, mask = _value_and_mask(values["--set-xmark"])
            if target == "MARK":
                return replace(packet, mark=packet.mark.put(value, mask))
            return replace(packet, connection_mark=packet.connection_mark.put(value, mask))
        if "--restore-mark" in options:
            return replace(packet, mark=packet.mark.copy(packet.connection_mark, nfmask, ctmask))
        if "--save-mark" in options:
            return replace(packet, connection_mark=packet.connection_mark.copy(packet.mark, ctmask, nfmask))
    except ValueError:
        pass
    return replace(packet, mark=Bits(0, 0), connection_mark=Bits(0, 0))
