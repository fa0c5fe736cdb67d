"""Which of this host's interfaces lead to the Internet, and which to virtual machines and containers."""

import json
import re
from ipaddress import IPv4Address

from gfwtools.system import questions
from gfwtools.system.commands import Runner

__all__ = ["WITHOUT_RESOLVER", "WITH_RESOLVER", "is_virtual", "wans"]

#: Bridges whose manager runs a resolver on them, perhaps later: libvirt, LXC, LXD, Incus, Podman.
WITH_RESOLVER = re.compile(r"(?:virbr|lxcbr|lxdbr|incusbr|podman|cni-podman)\d+")
#: Those without one: Docker's.
WITHOUT_RESOLVER = re.compile(r"docker\d+|docker_gwbridge|br-[0-9a-f]{12}")
#: Those of Kubernetes.
_PODS = re.compile(r"cni\d+|flannel.*")
#: A root server (RFC 7720). Two routes of half the Internet each are no default route, and are one for it.
_SOMEWHERE = IPv4Address("198.41.0.4")


def is_virtual(name: str) -> bool:
    """Whether an interface has the name of a network of virtual machines or containers."""
    return any(pattern.fullmatch(name) for pattern in (WITH_RESOLVER, WITHOUT_RESOLVER, _PODS))


def wans(runner: Runner) -> set[str]:
    """The interfaces to the Internet: those of default routes, and the one that is taken without a mark."""
    found = set(filter(None, [questions.route(runner, _SOMEWHERE).device]))
    for family in ("-4", "-6"):
        for route in json.loads(runner.ask("ip", family, "-j", "route", "show", "default") or "[]"):
            found |= {str(hop["dev"]) for hop in (route, *route.get("nexthops", ())) if "dev" in hop}
    return found
