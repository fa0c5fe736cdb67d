"""Which rule of ip-rule(8) takes a marked packet before ours does? Pure."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.plumbing.wanted import MAIN
from gfwtools.system.questions import Way

__all__ = ["OWN", "Packet", "preference_of", "rule_before"]

#: Where the kernel has what this host itself sends come from.
OWN = "lo"
#: The actions of a rule that refuse a packet, as `ip -N` numbers them (linux/fib_rules.h).
_REFUSING = {"6": "blackhole", "7": "unreachable", "8": "prohibit"}


class Packet(NamedTuple):
    """What a rule of ip-rule(8) can ask of a marked packet."""

    iif: str
    """The interface that it comes in by, or :data:`OWN`."""
    source: Address | None
    """None where the route decides it."""
    site: Address
    mark: int


def preference_of(config: Config, policy: PolicyConfig) -> int:
    """The preference of the policy's rule that looks up its table."""
    return config.host.preference + 2 * [other.name for other in config.policies].index(policy.name) + 1


def rule_before(rules: Iterable[Mapping[str, Any]], preference: int, packet: Packet, way: Way) -> str:
    """The first rule before ours that sends the packet that way, in the words of ip-rule(8); empty without one."""
    table = (way.table or str(MAIN)) if way.device else None
    for rule in rules:
        place = int(rule.get("priority", 0))
        # suppress_prefixlength lets a default route go on to the next rule.
        if not 0 < place < preference or "suppress_prefixlen" in rule:
            continue
        ends_here = rule.get("action") in _REFUSING if table is None else str(rule.get("table", "")) == table
        if ends_here and _concerns(rule, packet) != ("not" in rule):
            return " ".join(_words(rule))
    return ""


def _concerns(rule: Mapping[str, Any], packet: Packet) -> bool:
    if rule.get("iif", packet.iif) != packet.iif or "oif" in rule:
        return False
    if "fwmark" in rule:
        mask = int(str(rule.get("fwmask", "0xffffffff")), 0)
        if (int(str(rule["fwmark"]), 0) ^ packet.mark) & mask:
            return False
    return _within(rule, "src", packet.source) and _within(rule, "dst", packet.site)


def _within(rule: Mapping[str, Any], key: str, address: Address | None) -> bool:
    text = str(rule.get(key, "all"))
    if text == "all":
        return True
    if address is None:
        return False
    with suppress(ValueError):
        length = rule.get(f"{key}len", ip_address(text).max_prefixlen)
        return address in ip_network(f"{text}/{length}", strict=False)
    return False


def _words(rule: Mapping[str, Any]) -> list[str]:
    words = ["pref", str(rule["priority"])]
    words += ["not"] if "not" in rule else []
    for key, word in (("src", "from"), ("dst", "to")):
        if key in rule and rule[key] != "all":
            words += [word, f"{rule[key]}/{rule[f'{key}len']}" if f"{key}len" in rule else str(rule[key])]
    words += ["iif", str(rule["iif"])] if "iif" in rule else []
    if "fwmark" in rule:
        words += ["fwmark", str(rule["fwmark"]) + (f"/{rule['fwmask']}" if "fwmask" in rule else "")]
    return [*words, *(["lookup", str(rule["table"])] if "table" in rule else [_REFUSING[rule["action"]]])]
