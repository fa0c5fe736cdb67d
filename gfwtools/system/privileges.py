"""What this process may do to the network: in a container root may lack the capability, or own another network."""

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from gfwtools.errors import HostError

__all__ = ["lacks_net_raw", "missing_privilege", "require_net_admin"]

#: Bits of CAP_NET_ADMIN and CAP_NET_RAW (capabilities(7), linux/capability.h).
_NET_ADMIN, _NET_RAW = 12, 13
#: Opens the user namespace that owns a namespace (ioctl_ns(2)).
_NS_GET_USERNS = 0xB701


def missing_privilege() -> HostError | None:
    """What root lacks to see and change sets, rules and routes; None where it lacks nothing, or this is not root."""
    if os.geteuid() != 0:
        return None
    if not _has(_NET_ADMIN):
        return HostError(
            "this is root without the capability CAP_NET_ADMIN, so the kernel shows and changes no set, rule or route",
            "run it on the host itself, or give the container the capability: docker run --cap-add NET_ADMIN",
        )
    if not _owns_network():
        return HostError(
            "CAP_NET_ADMIN does not hold here: this is root of a user namespace that does not own this network",
            "run it as root of the host, without unshare or a rootless container",
        )
    return None


def require_net_admin() -> None:
    """:raises HostError: this is root without the right to change the network."""
    if missing := missing_privilege():
        raise missing


def lacks_net_raw() -> bool:
    """Whether this process may open no raw socket. iptables needs one for rules that name a set."""
    return not _has(_NET_RAW)


def _has(capability: int) -> bool:
    try:
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return True
    return effective is None or bool(int(effective[1], 16) >> capability & 1)


def _owns_network() -> bool:
    """The capability counts in the user namespace that owns the network. One outside of ours cannot be opened."""
    with suppress(FileNotFoundError):  # a kernel without namespaces
        network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.ioctl(network, _NS_GET_USERNS))
        except PermissionError:
            return False
        except OSError:
            return True
        finally:
            os.close(network)
    return True
