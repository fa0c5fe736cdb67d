"""The rules of nftables, as ``nft -j list ruleset`` lists them (libnftables-json(5)), for one packet. Pure.

Every expression of a rule that compares is read as a field of the packet. A field that the packet does not have ends
the rule, as it does in the kernel; one that is not understood leaves it open whether the rule matches.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from gfwtools.diagnose.firewall.packet import ALL_BITS, Bits, Packet, Peer, Truth, both, either, opposite
from gfwtools.diagnose.firewall.walk import BaseChain, Chain, Jump, Place, Reading, Rule, Verb

__all__ = ["Elements", "parse", "translations"]

#: The elements of a named set or map: family, table, name. None where it cannot be listed.
Elements = Callable[[str, str, str], Sequence[Any] | None]
#: Compares the packet with one value of the right side.
Field = Callable[[Any], Truth]

_FAMILIES = {4: ("ip", "inet", "netdev"), 6: ("ip6", "inet", "netdev")}
_HOOKS = ("ingress", "prerouting", "input", "forward", "output", "postrouting", "egress")
_PROTOCOLS = frozenset(("tcp", "udp", "icmp", "ipv6-icmp", "icmpv6", "sctp", "dccp", "esp", "ah", "udplite", "gre"))
_TCP, _UDP = 6, 17
_NAMES = {_TCP: "tcp", _UDP: "udp"}
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_TCP_FLAGS, _ALL_FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}, 0xFF
#: Headers that the packet does not have.
_OTHER_HEADERS = frozenset(
    ("udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "ah", "esp", "comp", "arp", "vlan", "gre", "vxlan")
)
#: Statements behind which the packet meets the next one.
_PASSES_BY = frozenset(
    ("counter", "log", "flow", "dup", "ct helper", "ct timeout", "ct expectation", "secmark", "comment", "map")
)
_VERBS = {"accept": Verb.ACCEPT, "drop": Verb.DROP, "reject": Verb.REJECT, "return": Verb.RETURN}
_NAT = frozenset({"snat", "dnat", "masquerade", "redirect"})


class _Absent(Exception):
    """The packet has no such field: the rule does not match, with any value."""


def parse(
    items: Iterable[Mapping[str, Any]], family: int, elements: Elements, skip: frozenset[tuple[str, str]] = frozenset()
) -> list[BaseChain]:
    """The base chains that a packet of ``family`` passes, of all hooks.

    :param items: what is below ``nftables`` in the listing.
    :param skip: (family, table) of tables that are read elsewhere.
    """
    # A chain of type nat translates addresses; it stops no packet.
    return [base for kind, base in _bases(items, family, elements, skip, _read) if kind != "nat"]


def translations(
    items: Iterable[Mapping[str, Any]],
    family: int,
    elements: Elements,
    skip: frozenset[tuple[str, str]],
    known: Collection[str],
) -> list[BaseChain]:
    """The base chains that may translate the source of a packet, as long as none before them has.

    :param known: the addresses that the packet may get.
    """
    read = partial(_read_translation, frozenset(known))
    return [
        base
        for kind, base in _bases(items, family, elements, skip, read)
        if (kind, base.hook) == ("nat", "postrouting")
    ]


def _bases(
    items: Iterable[Mapping[str, Any]],
    family: int,
    elements: Elements,
    skip: frozenset[tuple[str, str]],
    read: "Callable[[Sequence[Mapping[str, Any]], _Named, Packet], Reading]",
) -> list[tuple[str, BaseChain]]:
    """Every base chain of the known hooks, with its type."""
    tables: dict[tuple[str, str], tuple[list[Mapping[str, Any]], dict[str, list[Rule]]]] = {}
    for item in items:
        entry = item.get("chain") or item.get("rule")
        if not entry or entry["family"] not in _FAMILIES[family] or (entry["family"], entry["table"]) in skip:
            continue
        key = (str(entry["family"]), str(entry["table"]))
        heads, rules = tables.setdefault(key, ([], {}))
        if "chain" in item:
            heads.append(entry)
            rules.setdefault(entry["name"], [])
        else:
            place = Place("nft", " ".join(key), entry["chain"], f"handle {entry.get('handle', '?')}")
            reader = partial(read, entry.get("expr", ()), partial(_elements, elements, key))
            rules.setdefault(entry["chain"], []).append(Rule(place, reader))
    bases: list[tuple[str, BaseChain]] = []
    for key, (heads, rules) in tables.items():
        chains = {name: Chain(name, listed) for name, listed in rules.items()}
        for head in heads:
            if head.get("hook") not in _HOOKS:
                continue
            name, policy = head["name"], head.get("policy", "accept")
            place = Place("nft", " ".join(key), name, f"policy {policy}")
            device = head.get("dev") or ()
            devices = (device,) if isinstance(device, str) else tuple(device)
            verb = _VERBS.get(policy, Verb.ACCEPT)
            base = BaseChain(head["hook"], int(head.get("prio", 0)), chains[name], verb, place, chains, devices)
            bases.append((str(head.get("type", "")), base))
    return bases


def _elements(elements: Elements, key: tuple[str, str], name: str) -> Sequence[Any] | None:
    return elements(*key, name)


#: The elements of a set of the rule's own table, by its name without the @.
_Named = Callable[[str], Sequence[Any] | None]


def _read(statements: Sequence[Mapping[str, Any]], named: _Named, packet: Packet) -> Reading:
    certain = True
    for statement in statements:
        kind, value = next(iter(statement.items()))
        if kind == "match":
            truth = _match(value, named, packet)
            if truth is False:
                return Reading(packet)
            certain = certain and truth is True
        elif kind in ("limit", "quota", "ct count", "meter"):
            certain = False
        elif kind == "set":  # adds to a set; what stands in it may limit the rule
            certain = certain and not (isinstance(value, Mapping) and value.get("stmt"))
        elif kind in ("mangle", "notrack"):
            changed = _changed(kind, value, packet)
            packet = changed if certain else packet.merge(changed)
        elif kind == "vmap":
            return _verdict_map(value, named, packet, certain)
        elif kind == "continue":
            return Reading(packet)
        elif kind in _VERBS:
            return Reading(packet, (_VERBS[kind],), certain)
        elif kind in ("jump", "goto"):
            return Reading(packet, (Jump(value["target"], kind == "goto"),), certain)
        elif kind in _NAT:
            return Reading(packet, (Verb.ACCEPT,), certain)
        elif kind == "xt" and isinstance(value, Mapping) and value.get("type") == "match":
            certain = False  # a match of iptables, in a table that its own program does not list
        elif kind not in _PASSES_BY:  # other xt, queue, tproxy, synproxy, fwd and what is newer than this
            return Reading(packet, (Verb.ANYTHING,), certain=False)
    return Reading(packet)


def _read_translation(
    known: frozenset[str], statements: Sequence[Mapping[str, Any]], named: _Named, packet: Packet
) -> Reading:
    """A rule of a chain of type nat, which sees only the first packet of a connection."""
    if packet.reply:
        return Reading(packet)
    reading = _read(statements, named, packet)
    value = next((found["snat"] for found in statements if "snat" in found), None)
    if Verb.ACCEPT not in reading.actions or not isinstance(value, Mapping):
        return reading
    address = value.get("addr")
    if not isinstance(address, str):  # a map, or a range
        return Reading(packet, (Verb.ANYTHING,), certain=False)
    return reading if address in known else Reading(packet, (Verb.TRANSLATE,), reading.certain)


def _verdict_map(value: Mapping[str, Any], named: _Named, packet: Packet, certain: bool) -> Reading:
    data = value["data"]
    pairs = named(data[1:]) if isinstance(data, str) else data.get("set")
    if pairs is None:
        return Reading(packet, (Verb.ANYTHING,), certain=False)
    try:
        field = _field(value["key"], named, packet)
    except _Absent:
        return Reading(packet)
    possible: list[Verb | Jump] = []
    for key, verdict in pairs:
        truth = field(_element(key)) if field else None
        if truth is False:
            continue
        action = _action(verdict)
        if truth is True:
            if not possible:
                return Reading(packet, (action,) if action else (), certain)
            possible += [action] if action else []
            break
        possible += [action] if action else []
    return Reading(packet, tuple(dict.fromkeys(possible)), certain=False)


def _action(verdict: Mapping[str, Any]) -> Verb | Jump | None:
    kind, value = next(iter(verdict.items()))
    if kind in ("jump", "goto"):
        return Jump(value["target"], kind == "goto")
    return None if kind == "continue" else _VERBS.get(kind, Verb.ANYTHING)


def _changed(kind: str, value: Any, packet: Packet) -> Packet:
    if kind == "notrack":
        return replace(packet, state="untracked")
    match value:
        case {"key": {"meta": {"key": "mark"}}, "value": int(number)}:
            return replace(packet, mark=Bits(number))
        case {"key": {"meta": {"key": "mark"}}, "value": {"ct": {"key": "mark"}}}:
            return replace(packet, mark=packet.connection_mark)
        case {"key": {"meta": {"key": "mark"}}}:
            return replace(packet, mark=Bits(0, 0))
        case {"key": {"ct": {"key": "mark"}}, "value": int(number)}:
            return replace(packet, connection_mark=Bits(number))
        case {"key": {"ct": {"key": "mark"}}}:
            return replace(packet, connection_mark=Bits(0, 0))
    return packet


# ---------------------------------------------------------------- comparisons


def _match(value: Mapping[str, Any], named: _Named, packet: Packet) -> Truth:
    operator, left, right = value.get("op", "=="), value["left"], value["right"]
    if left == _TCP_FLAGS and operator in ("==", "!="):  # all of them; "in" and "!" ask whether any of some is set
        left = {"&": [left, _ALL_FLAGS]}
    try:
        field = _field(left, named, packet)
    except _Absent:
        return False
    if field is None:
        return None
    if operator in ("<", ">", "<=", ">="):
        return _ordered(field, operator, right)
    if operator not in ("==", "!=", "in", "!"):
        return None
    if right == [] or right == {"set": []}:
        truth: Truth = False
    else:
        # Flags with | between them are a list as well: for "==" they are one value.
        values = [right] if isinstance(right, list) and operator in ("==", "!=") else _values(right, named)
        truth = None if values is None else either(field(_element(each)) for each in values)
    return opposite(truth) if operator in ("!=", "!") else truth


def _ordered(field: Field, operator: str, right: Any) -> Truth:
    if not isinstance(right, int):
        return None
    below = field({"range": [0, right - (operator in ("<", ">="))]})
    return below if operator in ("<", "<=") else opposite(below)


def _values(right: Any, named: _Named) -> Sequence[Any] | None:
    """The values of the right side, any of which is to be there."""
    if isinstance(right, str) and right.startswith("@"):
        return named(right[1:])
    if isinstance(right, Mapping) and "set" in right:
        inner = right["set"]
        return inner if isinstance(inner, list) else [inner]
    return right if isinstance(right, list) else [right]


def _element(value: Any) -> Any:
    """A value without what may stand beside it in a set: a timeout, a comment, a counter."""
    return value["elem"]["val"] if isinstance(value, Mapping) and "elem" in value else value


def _field(left: Any, named: _Named, packet: Packet) -> Field | None:
    """What the left side is in this packet; None where it is not understood.

    :raises _Absent: the packet has no such field.
    """
    match left:
        case {"meta": {"key": str(key)}}:
            return _meta(key, packet)
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            return _payload(protocol, name, packet)
        case {"ct": {"key": str(key)}}:
            return _connection(key, left["ct"], packet)
        case {"fib": {"result": str(result), "flags": flags}}:
            return _fib(result, [flags] if isinstance(flags, str) else flags, packet)
        case {"socket": _}:
            if packet.local:
                return None
            raise _Absent  # a forwarded packet belongs to no program of this host
        case {"concat": list(parts)}:
            fields = [_field(part, named, packet) for part in parts]
            return lambda value: _together(fields, value)
        case {"&": [{"meta": {"key": "mark"}}, int(mask)]}:
            return lambda value: packet.mark.equals(value, mask) if isinstance(value, int) else None
        case {"&": [{"ct": {"key": "mark"}}, int(mask)]}:
            return lambda value: packet.connection_mark.equals(value, mask) if isinstance(value, int) else None
        case {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, mask]}:
            if packet.protocol != _TCP:  # nft does not list the comparison with TCP that it puts before this one
                raise _Absent
            bits = _flag_bits(mask)
            return None if bits is None else partial(_flags_equal, _flags_of(packet) & bits)
    return None


def _together(fields: Sequence[Field | None], value: Any) -> Truth:
    match value:
        case {"concat": list(values)} if len(values) == len(fields):
            truth: Truth = True
            for field, each in zip(fields, values, strict=True):
                truth = both(truth, field(_element(each)) if field else None)
            return truth
    return None


def _meta(key: str, packet: Packet) -> Field | None:
    match key:
        case "iifname" | "iif":
            return partial(_name, packet.iif)
        case "oifname" | "oif":
            return partial(_name, packet.oif)
        case "l4proto":
            return partial(_protocol_number, packet.protocol)
        case "nfproto":
            return partial(_word, {"ipv4"} if packet.family == 4 else {"ipv6"}, {"ipv4", "ipv6"})
        case "protocol":
            return partial(_word, {"ip"} if packet.family == 4 else {"ip6"}, {"ip", "ip6", "arp", "vlan", "8021q"})
        case "mark":
            return lambda value: packet.mark.equals(value) if isinstance(value, int) else None
        case "pkttype":
            return partial(_word, {"host", "unicast"}, {"host", "unicast", "broadcast", "multicast", "other"})
        case "skuid" | "skgid":
            if packet.local:
                return None
            raise _Absent
    return None


def _name(name: str, pattern: Any) -> Truth:
    if not isinstance(pattern, str):
        return None
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _word(own: set[str], known: set[str], value: Any) -> Truth:
    if value in own:
        return True
    return False if value in known else None


def _protocol_number(own: int, value: Any) -> Truth:
    match value:
        case int():
            return value == own
        case str():
            return value == _NAMES[own] if value in _PROTOCOLS else None
        case {"range": [int(first), int(last)]}:
            return first <= own <= last
    return None


def _payload(protocol: str, name: str, packet: Packet) -> Field | None:
    if protocol in _OTHER_HEADERS or protocol == ("ip6" if packet.family == 4 else "ip"):
        raise _Absent
    if protocol in _NAMES.values() and protocol != _NAMES[packet.protocol]:
        raise _Absent
    match protocol, name:
        case (("ip" | "ip6"), ("saddr" | "daddr")):
            return partial(_address, packet, packet.source if name == "saddr" else packet.destination)
        case ("ip", "protocol") | ("ip6", "nexthdr"):
            return partial(_protocol_number, packet.protocol)
        case (("tcp" | "udp" | "th"), ("sport" | "dport")):
            return partial(_port, packet, packet.sports if name == "sport" else packet.dports)
        case "tcp", "flags":
            return partial(_flags_in, _flags_of(packet))
        case "ether", "saddr":  # one client of the LAN; the tunnel has no such addresses
            if packet.reply:
                raise _Absent
            return lambda _: packet.partly
    return None


def _address(packet: Packet, peer: Peer, value: Any) -> Truth:
    with suppress(ValueError, TypeError):
        match value:
            case str():
                return packet.address(peer, ip_network(value))
            case {"prefix": {"addr": str(address), "len": int(length)}}:
                return packet.address(peer, ip_network(f"{address}/{length}", strict=False))
            case {"range": [str(first), str(last)]}:
                return packet.address_between(peer, ip_address(first), ip_address(last))
    return None


def _port(packet: Packet, ports: range, value: Any) -> Truth:
    match value:
        case int():
            return packet.port_between(ports, value, value)
        case {"range": [int(first), int(last)]}:
            return packet.port_between(ports, first, last)
    return None


def _flags_of(packet: Packet) -> int:
    return sum(_FLAGS[flag.lower()] for flag in packet.flags)


def _flag_bits(value: Any) -> int | None:
    """Flags in any of their spellings: a number, a name, a list, names joined by |."""
    match value:
        case int():
            return value
        case str():
            return _FLAGS.get(value)
        case list() | {"|": list()}:
            bits = 0
            for each in value if isinstance(value, list) else value["|"]:
                bit = _flag_bits(each)
                if bit is None:
                    return None
                bits |= bit
            return bits
    return None


def _flags_equal(own: int, value: Any) -> Truth:
    bits = _flag_bits(value)
    return None if bits is None else own == bits


def _flags_in(own: int, value: Any) -> Truth:
    bits = _flag_bits(value)
    return None if bits is None else bool(own & bits)


def _connection(key: str, ct: Mapping[str, Any], packet: Packet) -> Field | None:
    match key:
        case "state":
            return partial(_state, packet)
        case "direction":
            return partial(_word, {"reply"} if packet.reply else {"original"}, {"reply", "original"})
        case "status":
            return partial(_status, packet)
        case "mark":
            return lambda value: packet.connection_mark.equals(value, ALL_BITS) if isinstance(value, int) else None
        case "l3proto":
            return partial(_word, {"ipv4"} if packet.family == 4 else {"ipv6"}, {"ipv4", "ipv6"})
        case "protocol":
            return partial(_protocol_number, packet.protocol)
    return None


def _state(packet: Packet, value: Any) -> Truth:
    if packet.state is None:
        return None
    return packet.state == value if value in ("new", "established", "related", "invalid", "untracked") else None


def _status(packet: Packet, value: Any) -> Truth:
    match value:
        case "dnat" | "expected":  # its destination is the site's
            return False
        case "snat" | "assured" if not packet.reply:
            return False
        case "seen-reply" | "confirmed":
            return packet.reply
    return None


def _fib(result: str, flags: Sequence[str], packet: Packet) -> Field | None:
    match result, sorted(set(flags) - {"mark"}):
        case "type", (["daddr"] | ["daddr", "iif"]):
            return partial(_word, {"local"} if packet.to_host else {"unicast"}, _ADDRESS_TYPES)
        case "type", (["saddr"] | ["iif", "saddr"]) if packet.local and not packet.iif:
            return partial(_word, {"local"}, _ADDRESS_TYPES)
        case "type", (["saddr"] | ["iif", "saddr"]):
            return partial(_word, {"unicast"}, _ADDRESS_TYPES)
        case "oif", ["iif", "saddr"] if packet.back is not None:
            there = packet.back == packet.iif
            found = packet.iif if there else ""
            return lambda value: value == there if isinstance(value, bool) else _name(found, value)
        case "oif", ["saddr"] if packet.back is not None:
            back = packet.back
            return lambda value: value == bool(back) if isinstance(value, bool) else _name(back, value)
    return None


_ADDRESS_TYPES = {
    *("unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit")
}
