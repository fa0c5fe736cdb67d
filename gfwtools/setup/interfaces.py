"""The interfaces of the policies: whether each is there, is a tunnel, and carries the addresses that it has to."""

from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Any

from gfwtools.config.model import Config
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import Facts, Interface, families_of
from gfwtools.plumbing.wanted import wanted
from gfwtools.setup.iproute import numbers, objects
from gfwtools.setup.problem import Problem
from gfwtools.system.commands import Runner

__all__ = ["families", "missing", "not_tunnels"]

#: ip-link(8), TYPE: devices that carry packets to one other end, or over another network.
_TUNNELS = frozenset(
    ("wireguard", "amneziawg", "tun", "ovpn", "ppp", "xfrm", "vti", "vti6", "ipip", "sit", "ip6tnl", "gre", "ip6gre")
) | frozenset(("gretap", "ip6gretap", "vxlan", "geneve", "l2tp"))
#: The kernel makes them with their modules.
_FALLBACKS = frozenset(("tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0"))
#: A default route into one of these is the ISP's.
_UPLINKS = frozenset(("ppp", ""))


def missing(config: Config, runner: Runner) -> Iterator[Problem]:
    """Interfaces that are not there."""
    names = [str(link["ifname"]) for link in objects(runner, "link")]
    others = ", ".join(name for name in names if name != "lo") or "none"
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        if names and name not in names:
            yield Problem(
                f"there is no interface {name}; there are: {others}", "bring the tunnel up, or give --interface NAME"
            )


def not_tunnels(config: Config, runner: Runner) -> dict[str, Problem]:
    """Interfaces that are there and are no tunnel: name -> problem."""
    links = {str(link["ifname"]): link for link in objects(runner, "-d", "link")}
    default = _with_default_route(runner)
    usable = [name for name, link in links.items() if _is_tunnel(link) and name not in default]
    remedy = f"give --interface NAME with a tunnel; there {'is' if len(usable) == 1 else 'are'}: {', '.join(usable)}"
    if not usable:
        remedy = "bring the tunnel up, and give its name with --interface; there is no tunnel now"
    found = {}
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        reason = _why_no_tunnel(links[name], runner, has_default=name in default) if name in links else ""
        if reason:
            found[name] = Problem(f"{name} is not a tunnel: {reason}", remedy)
    return found


def _with_default_route(runner: Runner) -> set[str]:
    routes = [route for family in families_of(runner) for route in numbers(runner, family, "route", "show", "default")]
    return {str(hop["dev"]) for route in routes for hop in (route, *route.get("nexthops", ())) if "dev" in hop}


def _why_no_tunnel(link: dict[str, Any], runner: Runner, *, has_default: bool) -> str:
    """The reason; empty where it may be a tunnel."""
    if "LOOPBACK" in link.get("flags", ()):
        return "it is the loopback interface"
    is_ethernet = _is_ethernet(link)
    if has_default and (is_ethernet or (_kind(link) in _UPLINKS and "link_type" in link)):
        return "it has the default route, to the ISP"
    if not is_ethernet:
        return ""
    addresses = [
        f"{entry['local']}/{entry['prefixlen']}"
        for shown in objects(runner, "address", "show", "dev", link["ifname"])
        for entry in shown.get("addr_info", ())
        if entry.get("scope") == "global"
    ]
    where = f", of the network of {', '.join(addresses)}" if addresses else ""
    return f"it is an Ethernet interface{where}"


def _is_ethernet(link: dict[str, Any]) -> bool:
    """Whether packets need the address of a next hop there, which a route through a tunnel has not."""
    if link.get("link_type") != "ether" or "NOARP" in link.get("flags", ()) or _kind(link) in _TUNNELS:
        return False
    # Of a pair with both ends in this network namespace another program of this host holds the other end.
    return not (_kind(link) == "veth" and "link_netnsid" not in link)


def _is_tunnel(link: dict[str, Any]) -> bool:
    return _kind(link) in _TUNNELS and link["ifname"] not in _FALLBACKS


def _kind(link: dict[str, Any]) -> str:
    return str(link.get("linkinfo", {}).get("info_kind", ""))


def families(config: Config, runner: Runner) -> Iterator[Problem]:
    """Addresses of a family that the tunnel does not carry. Each policy is checked alone: none hides another."""
    facts = Facts(
        interfaces={
            link["ifname"]: Interface(
                name=link["ifname"],
                up="UP" in link.get("flags", ()),
                mtu=int(link.get("mtu", 0)),
                addresses=tuple(
                    ip_interface(f"{entry['local']}/{entry['prefixlen']}")
                    for entry in link.get("addr_info", ())
                    if entry.get("scope") == "global"
                ),
            )
            for link in objects(runner, "address")
        },
    )
    for policy in config.policies:
        try:
            wanted(config._replace(policies=(policy,)), facts)
        except HostError as error:
            yield Problem(error.what, error.remedy)
