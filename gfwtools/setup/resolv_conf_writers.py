"""The programs that write /etc/resolv.conf, and the setting that stops each of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from gfwtools.config.model import Config
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.render.header import WRITTEN
from gfwtools.system import ownership

__all__ = ["HEADER", "WRITERS", "Writer", "append", "decode", "encode", "snippet", "without_ours"]

HEADER = f"{WRITTEN} bootstrap; gfwtools teardown puts back what was here before.\n"


@dataclass(frozen=True, slots=True)
class Writer:
    """A program that writes /etc/resolv.conf, and the setting that stops it."""

    name: str
    path: str
    change: Callable[[str], str]
    """The file's content without our lines -> the wanted content; the same where the setting is there already."""
    reload: tuple[str, ...] = ()
    why: str = "leaves /etc/resolv.conf alone"


def without_ours(text: str) -> str:
    return decode(ownership.without_ours(encode(text)))


def append(*lines: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{ownership.lines(lines)}"

    return change


def _whole(text: str) -> Callable[[str], str]:
    return lambda _: HEADER + text


def _dhcpcd(text: str) -> str:
    # What stands after an `interface`, `ssid` or `profile` line is for that one only (dhcpcd.conf(5)): ours goes first.
    general = re.split(r"^[ \t]*(?:interface|ssid|profile)\b", text, maxsplit=1, flags=re.MULTILINE)[0]
    hooks = re.findall(r"^[ \t]*nohook[ \t]+([^#\n]*)", general, re.MULTILINE)
    if "resolv.conf" in re.split(r"[,\s]+", ",".join(hooks)):
        return text
    return ownership.lines(["nohook resolv.conf"]) + text


def _openresolv(text: str) -> str:
    # The file is read by a shell: the last assignment counts.
    values = re.findall(r"^[ \t]*resolvconf=[\"']?(\w+)", text, re.MULTILINE)
    if values and values[-1].lower() in ("no", "false", "0", "off"):
        return text
    return append("resolvconf=NO")(text)


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
        _whole("[main]\ndns=none\n"),
        ("systemctl", "try-reload-or-restart", "NetworkManager.service"),
    ),
    Writer("dhcpcd", "/etc/dhcpcd.conf", _dhcpcd),
    Writer("openresolv", "/etc/resolvconf.conf", _openresolv),
    # Debian's resolvconf touches /etc/resolv.conf only where that is a link to its own file. If the link is made
    # again, this line comes first in it, and none after it is kept (TRUNCATE_NAMESERVERS_LIST_...).
    Writer("resolvconf", "/etc/resolvconf/resolv.conf.d/head", append("nameserver 127.0.0.1"), ("resolvconf", "-u")),
    # Its hooks are read by the shell in alphabetical order: the last definition counts.
    Writer(
        "dhclient",
        "/etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools",
        _whole("make_resolv_conf() { :; }\n"),
    ),
)


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def snippet(config: Config) -> str:
    return str(PurePosixPath(config.dns.conf_dir) / SNIPPET)
