"""The programs that write /etc/resolv.conf, and the setting that stops each of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from gfwtools.config.model import Config
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.setup import lease_hooks
from gfwtools.setup.lease_hooks import HEADER
from gfwtools.system import ownership

__all__ = [
    "WRITERS",
    "Needs",
    "Writer",
    "append",
    "decode",
    "encode",
    "snippet",
    "stops_openresolv",
    "without_ours",
]


@dataclass(frozen=True, slots=True)
class Needs:
    """What dnsmasq needs of the programs that know the ISP's resolvers."""

    copy: str = ""
    """The copy that a hook of a DHCP client writes; empty where dnsmasq reads none."""
    collected: bool = False
    """resolvconf collects them, so the others go on giving it what they have."""
    left_out: tuple[str, ...] = ()
    """The tunnels that bring resolvers of their own along, which resolvconf is to leave out."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A program that writes /etc/resolv.conf, and the setting that stops it."""

    name: str
    path: str
    change: Callable[[str, Needs], str]
    """The file's content without our lines -> the wanted content; the same where nothing is to be set."""
    reload: tuple[str, ...] = ()
    why: str = "leaves /etc/resolv.conf alone"


def without_ours(text: str) -> str:
    return decode(ownership.without_ours(encode(text)))


def append(*lines: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{ownership.lines(lines)}"

    return change


def _whole(text: str) -> Callable[[str, Needs], str]:
    return lambda _, __: HEADER + text


def _network_manager(_: str, needs: Needs) -> str:
    # It writes its no-stub-resolv.conf with dns=none as well.
    return f"{HEADER}[main]\n{'rc-manager=resolvconf' if needs.collected else 'dns=none'}\n"


def _dhcpcd(text: str, needs: Needs) -> str:
    # With resolvconf its hook gives that the resolvers, and leaves /etc/resolv.conf alone.
    lines = lease_hooks.dhcpcd(stops=not needs.collected, copies=needs.copy == lease_hooks.DHCPCD_COPY)
    return append(*lines)(text) if lines else text


def _dhclient(text: str, needs: Needs) -> str:
    script = lease_hooks.dhclient(stops=not needs.collected, copies=needs.copy == lease_hooks.COPY)
    return HEADER + script if script else text


def _interface_order(text: str, needs: Needs) -> str:
    """Debian's script for dnsmasq takes what comes after the record of dnsmasq itself (interface-order(5))."""
    if not text or not needs.left_out:
        return text
    patterns = [pattern for name in needs.left_out for pattern in (name, f"{name}.*", f"*.{name}")]
    return ownership.lines(patterns) + text


def _openresolv(text: str, needs: Needs) -> str:
    """It leaves /etc/resolv.conf alone, and goes on writing the file that dnsmasq reads."""
    if stops_openresolv(text, "resolvconf"):
        return text
    lines = [] if stops_openresolv(text, "libc") else ["libc=NO"]
    if not re.search(r"^[ \t]*dnsmasq_resolv=", text, re.MULTILINE):
        lines.append("dnsmasq_resolv=/run/dnsmasq/resolv.conf")
    if needs.left_out:
        # wg-quick gives its record as the only one that counts (-x); the first line takes that back.
        names = " ".join(needs.left_out)
        lines += [f'{key}="${key} {names}"' for key in ("inclusive_interfaces", "deny_interfaces")]
    return append(*lines)(text) if lines else text


def stops_openresolv(text: str, name: str) -> bool:
    """Whether resolvconf.conf(5) switches a subscriber off, or with ``resolvconf`` all of them."""
    # The file is read by a shell: the last assignment counts.
    values = re.findall(rf"^[ \t]*{name}=[\"']?(\w+)", text, re.MULTILINE)
    return bool(values) and values[-1].lower() in ("no", "false", "0", "off")


WRITERS = (
    Writer(
        "systemd-resolved",
        "/etc/systemd/resolved.conf.d/90-gfwtools.conf",
        # Programs that ask it over D-Bus or nss-resolve must come to dnsmasq as well, and a set is filled only by an
        # answer that dnsmasq gives: hence the routing domain, and no cache (resolved.conf(5)).
        _whole("[Resolve]\nDNSStubListener=no\nDNS=127.0.0.1\nDomains=~.\nCache=no\n"),
        ("systemctl", "try-restart", "systemd-resolved.service"),
        "leaves port 53 to dnsmasq",
    ),
    Writer(
        "NetworkManager",
        "/etc/NetworkManager/conf.d/90-gfwtools.conf",
        _network_manager,
        ("systemctl", "try-reload-or-restart", "NetworkManager.service"),
    ),
    Writer("dhcpcd", "/etc/dhcpcd.enter-hook", _dhcpcd),
    Writer("openresolv", "/etc/resolvconf.conf", _openresolv, ("resolvconf", "-u")),
    # Debian's resolvconf touches /etc/resolv.conf only where that is a link to its own file. If the link is made
    # again, this line comes first in it, and none after it is kept (TRUNCATE_NAMESERVERS_LIST_...).
    Writer(
        "resolvconf",
        "/etc/resolvconf/resolv.conf.d/head",
        lambda text, _: append("nameserver 127.0.0.1")(text),
        ("resolvconf", "-u"),
    ),
    Writer(
        "resolvconf",
        "/etc/resolvconf/interface-order",
        _interface_order,
        ("resolvconf", "-u"),
        "leaves the resolvers of the tunnel out of what dnsmasq reads",
    ),
    # Its hooks are read by the shell in alphabetical order.
    Writer("dhclient", "/etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools", _dhclient),
)


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def snippet(config: Config) -> str:
    return str(PurePosixPath(config.dns.conf_dir) / SNIPPET)
