"""A policy in the formats of other programs: one table of them, and a module for each family.

Each format is made from the :class:`~gfwtools.render.exports.values.Meaning` of a policy, and says what it cannot say.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gfwtools.render.exports import plain, programs, resolvers, routers, rulesets
from gfwtools.render.exports.values import Meaning, Said

__all__ = ["EXPORTS", "Export", "Meaning", "Said"]


class Export(NamedTuple):
    """A format of other programs."""

    what: str
    """One line for ``export --list``."""
    render: Callable[[Meaning], Said]
    way: str = ""
    """How the user gets what this format cannot say."""


EXPORTS: Mapping[str, Export] = {
    "adblock": Export("AdGuard's and uBlock's filter syntax", plain.adblock),
    "adguardhome": Export("AdGuard Home and dnsproxy: an upstream file", resolvers.adguardhome),
    "adguardhome-ipset": Export("AdGuard Home: the file of ipset_file", resolvers.adguardhome_ipset),
    "mihomo": Export(
        "mihomo, Clash: a rule provider of behavior domain", plain.mihomo, "gfwtools export mihomo-direct"
    ),
    "mihomo-classical": Export(
        "mihomo, Clash: behavior classical, with networks",
        plain.mihomo_classical,
        "gfwtools export mihomo-direct",
    ),
    "mihomo-direct": Export("mihomo, Clash: the exceptions; for a DIRECT rule before it", plain.mihomo_direct),
    "pac": Export("a proxy auto-configuration file for browsers", programs.pac),
    "routeros": Export("RouterOS 7: forwarded names and an address list", routers.routeros),
    "singbox": Export("sing-box: a rule set in its source format", rulesets.singbox),
    "smartdns": Export("smartdns: a configuration to include", resolvers.smartdns),
    "surge": Export("Surge: a DOMAIN-SET", plain.surge, "gfwtools export surge-direct"),
    "surge-direct": Export("Surge: the exceptions; for a DIRECT rule before it", plain.surge_direct),
    "unbound": Export("unbound: forward zones to include", resolvers.unbound),
    "v2fly": Export("v2fly, Xray: a file of domain-list-community", plain.v2fly, "gfwtools export v2fly-direct"),
    "v2fly-direct": Export("v2fly, Xray: the exceptions; for a direct rule before it", plain.v2fly_direct),
}
