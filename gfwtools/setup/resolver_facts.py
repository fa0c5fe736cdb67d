"""How the host resolves names now, and did before the first bootstrap. This module reads, and changes nothing."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any

from gfwtools.config.model import Address, Config, Paths, Upstream
from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.conf import MAIN_CONF, SNIPPET
from gfwtools.setup import files
from gfwtools.setup.lan import OtherNetwork, lan_of
from gfwtools.setup.resolv_conf_writers import WRITERS, encode, snippet, without_ours
from gfwtools.storage import atomic
from gfwtools.system import ownership
from gfwtools.system.commands import Runner
from gfwtools.system.questions import RESOLV_CONF, holders, nameservers_in

__all__ = ["RESOLV_CONF", "ResolverFacts", "observe", "pid_in"]

_RESOLVED = "/run/systemd/resolve"
#: Where the ISP's resolvers are found, after resolv.conf itself; the first one that names some counts.
_SERVER_FILES = (f"{_RESOLVED}/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf", "/run/dnsmasq/resolv.conf")
#: Where DHCP clients keep their leases: dhclient, NetworkManager, systemd-networkd.
_LEASES = ("var/lib/dhcp/*.leases", "var/lib/NetworkManager/*.lease", "run/systemd/netif/leases/*")
#: Where distributions put dnsmasq's file with the root's keys.
_ANCHOR_FILES = ("/usr/share/dnsmasq-base/trust-anchors.conf", "/usr/share/dnsmasq/trust-anchors.conf")


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """How the host resolves names now, and did before the first bootstrap."""

    link: str | None = None
    """The target of /etc/resolv.conf before ours was put there; None where it was not a symbolic link."""
    nameservers: tuple[str, ...] = ()
    """The nameservers of /etc/resolv.conf before ours was put there."""
    managers: tuple[str, ...] = ()
    """The other programs that write /etc/resolv.conf."""
    resolvers: tuple[Upstream, ...] = ()
    """The ISP's resolvers; never an address of this host."""
    found_in: str = ""
    """Where the resolvers were found."""
    reads_conf_dir: bool = False
    """dnsmasq reads ``dns.conf_dir`` without a line of ours, after its service manager has restarted it."""
    directives: tuple[tuple[str, str], ...] = ()
    """Name and value of every line of dnsmasq's configuration that is not ours."""
    addresses: frozenset[Address] = frozenset()
    """The addresses of this host."""
    lan: tuple[Address, ...] = ()
    """The addresses at which the LAN reaches this host."""
    others: tuple[OtherNetwork, ...] = ()
    """The networks of this host where another program answers names."""
    anchors: str = ""
    """The distribution's file with the root's keys, if there is one."""
    pid_folder: bool = False
    """The folder of ``dns.pid_file`` is there at every boot."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Path -> content of the files that may have to be changed. A file that is missing has no entry."""
    tools: frozenset[str] = frozenset()
    """The tools that can be used here to have a manager read its configuration."""
    dhcpcd_pid: int | None = None

    def has(self, name: str) -> bool:
        """Whether there is such a directive that is not ours."""
        return any(directive == name for directive, _ in self.directives)

    def values(self, name: str) -> list[str]:
        return [value for directive, value in self.directives if directive == name]

    @property
    def has_upstream(self) -> bool:
        """Whether dnsmasq has a resolver for any name from a source other than /etc/resolv.conf."""
        files_ = {*self.values("resolv-file"), *self.values("servers-file")} - {RESOLV_CONF}
        servers = [value for value in self.values("server") if not value.startswith("/") or value.startswith("/#/")]
        return bool(files_ or servers)


def observe(config: Config, runner: Runner) -> ResolverFacts:
    """Read the host.

    :raises StoreError: a file is there and cannot be read.
    """
    paths = config.paths
    is_host = config.root == Path("/")
    before, link = _resolv_conf_before(paths)
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "address") or "[]")
    here = tuple(addresses_of(links))
    addresses = frozenset(address for _, address in here)
    lan = lan_of(config, here, runner)
    managers = _managers(paths, link, runner)
    resolvers, found_in = _resolvers(config, before, link, addresses)
    # What is ours aside; what else lies in the folder must not be said twice, though nothing reads it before our line.
    own = {SNIPPET, *(f"{policy.name}.conf" for policy in config.policies)}
    found = conf.read(config, skip=own, edit=without_ours, anew=True)
    edited = [MAIN_CONF, *(manager.path for manager in WRITERS)]
    texts = {path: text for path in edited if (text := text_of(paths, path)) is not None}
    # A link of a fake root would lead out of it: it has been followed already.
    place = paths.at(RESOLV_CONF)
    ours = "" if place.is_symlink() else text_of(paths, RESOLV_CONF) or ""
    texts[RESOLV_CONF] = ours if ownership.is_file(encode(ours)) else before
    systemd = is_host and runner.has("systemctl") and paths.at("/run/systemd/system").is_dir()
    usable = {"systemctl": systemd, "resolvconf": is_host and runner.has("resolvconf")}
    return ResolverFacts(
        link=link,
        nameservers=tuple(nameservers_in(before)),
        managers=managers,
        resolvers=resolvers,
        found_in=found_in,
        reads_conf_dir=found.reads_conf_dir,
        directives=found.directives,
        addresses=addresses,
        lan=lan.addresses,
        others=lan.others,
        anchors=next((path for path in _ANCHOR_FILES if paths.at(path).is_file()), ""),
        pid_folder=_stays(paths, config.dns.pid_file),
        texts=texts,
        tools=frozenset(tool for tool, can in usable.items() if can),
        dhcpcd_pid=pid_in(paths, "/run/dhcpcd/pid", "/run/dhcpcd.pid") if is_host else None,
    )


def text_of(paths: Paths, path: str | Path) -> str | None:
    data = atomic.read(paths.at(path))
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _has_ours(paths: Paths, path: str) -> bool:
    data = atomic.read(paths.at(path)) or b""
    return ownership.is_file(data) or ownership.with_lines(data)


def _resolv_conf_before(paths: Paths) -> tuple[str, str | None]:
    """/etc/resolv.conf before ours, and where it led. A link is followed below the root."""
    place = paths.at(RESOLV_CONF)
    target = os.readlink(place) if place.is_symlink() else None
    if target is None:
        text = text_of(paths, RESOLV_CONF) or ""
        entry = files.recorded(paths).get(RESOLV_CONF)
        if entry is None or not ownership.is_file(encode(text)):
            return text, None
        original = files.original_of(entry)
        if original.target is None:
            return (files.content_of(paths, original) or b"").decode("utf-8", "surrogateescape"), None
        target = original.target
    return text_of(paths, os.path.normpath(target if target.startswith("/") else f"/etc/{target}")) or "", target


def addresses_of(links: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Address]]:
    """Name of the interface and address, but for link-local ones."""
    for link in links:
        for entry in link.get("addr_info", ()):
            if "local" in entry and entry.get("scope") != "link":
                yield str(link.get("ifname")), ip_address(entry["local"])


def _stays(paths: Paths, pid_file: str) -> bool:
    """dnsmasq does not start where the folder is missing, and /run is empty at boot but for what tmpfiles.d makes."""
    folder = PurePosixPath(pid_file).parent
    if not paths.at(str(folder)).is_dir():
        return False
    volatile = any(top in folder.parents for top in (PurePosixPath("/run"), PurePosixPath("/var/run")))
    return not volatile or paths.at("/usr/lib/tmpfiles.d/dnsmasq.conf").is_file()


def pid_in(paths: Paths, *names: str) -> int | None:
    for name in names:
        text = (text_of(paths, name) or "").strip()
        if text.isascii() and text.isdigit():
            return int(text)
    return None


def _managers(paths: Paths, link: str | None, runner: Runner) -> tuple[str, ...]:
    def there(*names: str) -> bool:
        return any(paths.at(name).exists() for name in names)

    resolved = (
        (link is not None and "systemd/resolve/" in link)
        or (there(_RESOLVED) and runner.ask("systemctl", "is-active", "systemd-resolved.service") is not None)
        or any(holder.program.startswith("systemd-resolve") for holder in holders(runner))
    )
    found = {
        # Its files in /run stay when it has been stopped: they prove nothing.
        "systemd-resolved": resolved,
        "NetworkManager": there("/run/NetworkManager", "/etc/NetworkManager/NetworkManager.conf"),
        "dhcpcd": there("/etc/dhcpcd.conf"),
        "openresolv": there("/etc/resolvconf.conf"),
        "resolvconf": there("/etc/resolvconf/resolv.conf.d", "/etc/resolvconf/interface-order"),
        "dhclient": there("/etc/dhcp/dhclient.conf"),
    }
    # A manager with a setting of ours counts, also where the signs by which it was found have gone.
    ours = {manager.name for manager in WRITERS if _has_ours(paths, manager.path)}
    return tuple(name for name, is_there in found.items() if is_there or name in ours)


def _resolvers(
    config: Config, before: str, link: str | None, own: frozenset[Address]
) -> tuple[tuple[Upstream, ...], str]:
    """The resolvers for what is not blocked, and where they were found."""
    if config.dns.resolvers:
        return config.dns.resolvers, "dns.resolvers"
    paths = config.paths
    sources: list[tuple[str, list[str]]] = [(RESOLV_CONF if link is None else link, nameservers_in(before))]
    sources += [(path, nameservers_in(text_of(paths, path) or "")) for path in _SERVER_FILES]
    sources += [(f"/{pattern}", _leased(paths, pattern)) for pattern in _LEASES]
    # Where resolv.conf is ours and no other file names a resolver: what was found the first time.
    ours = re.findall(r"^server=([^/#\s]+(?:#\d+)?)$", text_of(paths, snippet(config)) or "", re.MULTILINE)
    sources.append((snippet(config), ours))
    for where, servers in sources:
        usable = dict.fromkeys(server for text in servers if (server := _usable(text, own)))
        if usable:
            return tuple(usable), where
    return (), ""


def _usable(text: str, own: frozenset[Address]) -> Upstream | None:
    """The resolver, or None for one that is this host itself.

    A link-local one is of no use either: dnsmasq does not start where the interface in its scope is not there yet.
    """
    address, _, port = text.partition("#")
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast or parsed in own:
        return None
    return Upstream(parsed, int(port) if port.isdigit() else 53)


def _leased(paths: Paths, pattern: str) -> list[str]:
    """The resolvers of the last lease in the newest of the files."""
    found = [path for path in paths.root.glob(pattern) if path.is_file()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        text = (atomic.read(path) or b"").decode("utf-8", "replace")
        # `option domain-name-servers 192.0.2.1, 192.0.2.2;` (dhclient.leases(5)), `DNS=192.0.2.1 192.0.2.2`
        lines = re.findall(r"^\s*(?:option (?:domain-name-servers|dhcp6\.name-servers) |DNS=)([^;\n]*)", text, re.M)
        if lines:
            return re.split(r"[,\s]+", lines[-1].strip())
    return []
