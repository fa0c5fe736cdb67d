"""Do the LAN's marked packets take the tunnel? A rule of ip-rule(8) may send the LAN elsewhere, and not this host."""

from typing import NamedTuple

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.diagnose.ip_rules import Packet, preference_of, rule_before
from gfwtools.diagnose.lan import lans
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import Way

__all__ = ["Astray", "astray"]


class Astray(NamedTuple):
    """Marked packets of a LAN that do not leave by the tunnel."""

    packet: Packet
    way: Way
    rule: str
    """The rule that comes before ours, as `ip rule` takes it; empty where it is not found."""

    def __str__(self) -> str:
        rule = f": ip rule {self.rule} comes first" if self.rule else ""
        end = f"leave by {self.way.device}" if self.way.device else "are refused"
        return f"packets from {self.packet.iif} with mark {self.packet.mark:#x} {end}{rule}"

    @property
    def remedy(self) -> str:
        family = "-6 " if self.packet.site.version == 6 else ""
        if self.rule:
            return f"ip {family}rule del {self.rule}"
        mark = f"mark {self.packet.mark:#x}"
        return f"ip route get {self.packet.site} from {self.packet.source} iif {self.packet.iif} {mark}"


def astray(config: Config, policy: PolicyConfig, site: Address, runner: Runner) -> list[Astray]:
    """The LANs whose marked packets leave by another interface than the policy's, or are refused by a rule.

    Where the kernel gives no route for another reason, other checks say why.
    """
    if not config.host.gateway:
        return []
    preference = preference_of(config, policy)
    found = []
    for lan in lans(config, runner):
        client = lan.client(site.version)
        if client is None:
            continue
        way = questions.route(runner, site, policy.mark, client=client, lan=lan.name)
        if way.device == policy.interface:
            continue
        packet = Packet(lan.name, client, site, policy.mark)
        rule = rule_before(questions.rules(runner, site.version), preference, packet, way)
        if way.device or rule:
            found.append(Astray(packet, way, rule))
    return found
