"""Do the LAN's marked packets take the tunnel? A rule of ip-rule(8) may send the LAN elsewhere, and not this host."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.diagnose.lan import lans
from gfwtools.plumbing.wanted import MAIN
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import Way

__all__ = ["Astray", "Packet", "astray", "rule_before"]

#: The actions of a rule that refuse a packet, as `ip -N` numbers them (linux/fib_rules.h).
_REFUSING = {"6": "blackhole", "7": "unreachable", "8": "prohibit"}


class Packet(NamedTuple):
    """What a rule of ip-rule(8) can ask of a marked packet of the LAN."""

    lan: str
    client: Address
    site: Address
    mark: int


class Astray(NamedTuple):
    """Marked packets of a LAN that do not leave by the tunnel."""

    packet: Packet
    way: Way
    rule: str
    """The rule that comes before ours, as `ip rule` takes it; empty where it is not found."""

    def __str__(self) -> str:
        rule = f": ip rule {self.rule} comes first" if self.rule else ""
        end = f"leave by {self.way.device}" if self.way.device else "are refused"
        return f"packets from {self.packet.lan} with mark {self.packet.mark:#x} {end}{rule}"

    @property
    def remedy(self) -> str:
        family = "-6 " if self.packet.site.version == 6 else ""
        if self.rule:
            return f"ip {family}rule del {self.rule}"
        mark = f"mark {self.packet.mark:#x}"
        return f"ip route get {self.packet.site} from {self.packet.client} iif {self.packet.lan} {mark}"


def astray(config: Config, policy: PolicyConfig, site: Address, runner: Runner) -> list[Astray]:
    """The LANs whose marked packets leave by another interface than the policy's, or are refused by a rule.

    Where the kernel gives no route for another reason, other checks say why.
    """
    if not config.host.gateway:
        return []
    preference = config.host.preference + 2 * [other.name for other in config.policies].index(policy.name) + 1
    found = []
    for lan in lans(config, runner):
        client = lan.client(site.version)
        if client is None:
            continue
        way = questions.route(runner, site, policy.mark, client=client, lan=lan.name)
        if way.device == policy.interface:
            continue
        packet = Packet(lan.name, client, site, policy.mark)
        table = (way.table or str(MAIN)) if way.device else None
        rule = rule_before(questions.rules(runner, site.version), preference, packet, table)
        if way.device or rule:
            found.append(Astray(packet, way, rule))
    return found


def rule_before(rules: Iterable[Mapping[str, Any]], preference: int, packet: Packet, table: str | None) -> str:
    """The first rule before ours that sends the packet to ``table``, in the words of ip-rule(8); empty without one.

    :param table: None for a rule that refuses the packet.
    """
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
    if rule.get("iif", packet.lan) != packet.lan or "oif" in rule:
        return False
    if "fwmark" in rule:
        mask = int(str(rule.get("fwmask", "0xffffffff")), 0)
        if int(str(rule["fwmark"]), 0) != packet.mark & mask:
            return False
    return _within(rule, "src", packet.client) and _within(rule, "dst", packet.site)


def _within(rule: Mapping[str, Any], key: str, address: Address) -> bool:
    text = str(rule.get(key, "all"))
    if text == "all":
        return True
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
